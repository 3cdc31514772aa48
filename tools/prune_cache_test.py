#!/usr/bin/env python3
"""Tests prune_cache.py on folders of its own."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import prune_cache  # pylint: disable=wrong-import-position

NOW = 1_000_000_000
BLOCK = 1 << 16


class PruneTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def write(self, name, age_s):
        path = os.path.join(self.folder.name, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x" * BLOCK)
        os.utime(path, (NOW - age_s, NOW - age_s))

    def left(self):
        return sorted(os.path.basename(path)
                      for _, _, path in prune_cache.files_by_last_use(self.folder.name))

    def prune(self, limit, free_wanted=0, free=0):
        return prune_cache.prune(self.folder.name, limit, free_wanted, free, NOW)

    def test_within_the_bound_nothing_goes(self):
        self.write("cas/aa/old", 90000)
        self.assertEqual(self.prune(2 * BLOCK), 0)
        self.assertEqual(self.left(), ["old"])

    def test_the_oldest_go_first(self):
        self.write("cas/aa/middle", 20000)
        self.write("ac/bb/old", 90000)
        self.write("cas/cc/new", 5000)
        self.assertEqual(self.prune(2 * BLOCK), BLOCK)
        self.assertEqual(self.left(), ["middle", "new"])

    def test_a_full_disk_takes_more(self):
        self.write("cas/aa/old", 90000)
        self.write("cas/aa/new", 5000)
        self.prune(10 * BLOCK, free_wanted=3 * BLOCK, free=2 * BLOCK)
        self.assertEqual(self.left(), ["new"])

    def test_what_a_running_build_may_use_stays(self):
        self.write("cas/aa/now", 60)
        self.assertEqual(self.prune(0, free_wanted=100 * BLOCK), 0)
        self.assertEqual(self.left(), ["now"])

    def test_a_missing_folder_is_made(self):
        folder = os.path.join(self.folder.name, "not", "there")
        prune_cache.main([folder])
        self.assertTrue(os.path.isdir(folder))


if __name__ == "__main__":
    unittest.main()
