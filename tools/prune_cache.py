#!/usr/bin/env python3
"""Keeps Bazel's disk cache within a bound and says when the disk is nearly full.

Bazel 4 never removes anything from --disk_cache: after some dozens of builds of ours (a test with
sanitizers is up to 90 MB) the disk is full, and what fails then says so in a thousand places. Files
not used for longest go first. A running build loses nothing by it but time: what was used within
the hour stays, and a missing file is made again.

Usage: prune_cache.py DIRECTORY [LIMIT_GIB [FREE_GIB]]
  LIMIT_GIB  how much the cache may hold (12)
  FREE_GIB   how much of the disk is to be free, for which the cache gives more if need be (12)
"""

import os
import shutil
import sys
import time

GIB = 1 << 30
YOUNG_S = 3600


def files_by_last_use(directory):
    """Returns (last use in seconds, size in bytes, path) of all files, the oldest first."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            try:
                stat = os.stat(path)
            except OSError:
                continue  # went while we looked
            found.append((max(stat.st_atime, stat.st_mtime), stat.st_blocks * 512, path))
    return sorted(found)


def prune(directory, limit, free_wanted, free, now):
    """Removes files until at most `limit` bytes are left and `free_wanted` of the disk are free,
    of which `free` are now. Returns the bytes removed."""
    files = files_by_last_use(directory)
    total = sum(size for _, size, _ in files)
    to_remove = max(total - limit, free_wanted - free)
    removed = 0
    for used, size, path in files:
        if removed >= to_remove or now - used < YOUNG_S:
            break
        try:
            os.unlink(path)
            removed += size
        except OSError:
            pass  # another one was faster
    return removed


def main(arguments):
    directory = arguments[0]
    limit = float(arguments[1] if len(arguments) > 1 else 12) * GIB
    free_wanted = float(arguments[2] if len(arguments) > 2 else 12) * GIB
    os.makedirs(directory, exist_ok=True)
    removed = prune(directory, limit, free_wanted, shutil.disk_usage(directory).free, time.time())
    if removed > GIB:
        print(f"Removed {removed / GIB:.1f} GiB not used for longest from {directory}",
              file=sys.stderr)
    free = shutil.disk_usage(directory).free
    if free < free_wanted:
        print(f"Only {free / GIB:.1f} GiB are free at {directory}: all tests together need up to "
              f"{free_wanted / GIB:.0f}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
