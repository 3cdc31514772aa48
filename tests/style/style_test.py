#!/usr/bin/env python3
"""Holds the style of the tree: reads every file under version control and applies rules.toml.

Run by Bazel, or by hand from anywhere: tests/style/style_test.py
"""

import os
import subprocess
import sys
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import rules  # pylint: disable=wrong-import-position

SOURCES = (".cc", ".h", ".py", ".sh", ".bzl")


def find_top():
    """The top of the source tree, which the test's own files link to."""
    runfiles = os.environ.get("TEST_SRCDIR")
    if runfiles:
        place = os.path.join(runfiles, os.environ["TEST_WORKSPACE"], "WORKSPACE")
        return os.path.dirname(os.path.realpath(place))
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def list_files(top):
    """Files under version control that exist; in an exported tree, all of them."""
    listing = subprocess.run(["git", "-c", "safe.directory=*", "-C", top, "ls-files", "-z"],
                             capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        names = [name for name in listing.stdout.split("\0") if name]
    else:
        names = []
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(("bazel-", ".git"))]
            names += [os.path.relpath(os.path.join(folder, name), top) for name in files]
    return sorted(name for name in names if os.path.isfile(os.path.join(top, name)))


def is_script(path, text):
    return "." not in os.path.basename(path) and text.startswith("#!")


def check_tree(top, config):
    """All findings of the tree, before allowances."""
    findings, build_files, cpp, count = [], {}, set(), 0
    files = list_files(top)
    known = set(files)
    for path in files:
        with open(os.path.join(top, path), encoding="utf-8", errors="replace") as file:
            text = file.read() if os.path.getsize(file.name) < 1 << 20 else ""
        build = os.path.basename(path) in ("BUILD.bazel", "BUILD")
        if not (path.endswith(SOURCES) or build or is_script(path, text)):
            continue
        count += 1
        findings += rules.check_limits(path, text, config["limits"])
        for entry in config["banned"]:
            findings += rules.check_banned(path, text, entry)
        findings += rules.check_guard(path, text)
        findings += rules.check_first_comment(path, text, known)
        if build:
            build_files[path] = text
        elif path.endswith((".cc", ".h")):
            cpp.add(path)
    findings += rules.check_dead_files(build_files, cpp)
    return findings, count


def main():
    top = find_top()
    with open(os.path.join(HERE, "rules.toml"), "rb") as file:
        config = tomllib.load(file)
    findings, count = check_tree(top, config)
    findings = rules.apply_allowances(findings, config.get("allow", []))
    for finding in findings:
        print(f"{finding.file}:{finding.line}: {finding.rule}: {finding.message}")
    print(f"{count} files, {len(findings)} findings")
    return 1 if findings or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
