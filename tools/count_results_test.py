#!/usr/bin/env python3
"""Tests count_results.py on events and test.xml files of the shapes Bazel and GoogleTest write."""

import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import count_results  # pylint: disable=wrong-import-position


def summary(label, status):
    return json.dumps({"id": {"testSummary": {"label": label}},
                       "testSummary": {"overallStatus": status}})


def result(label, uri, shard=1, attempt=1):
    return json.dumps({
        "id": {"testResult": {"label": label, "run": 1, "shard": shard, "attempt": attempt}},
        "testResult": {"testActionOutput": [{"name": "test.log", "uri": "file:///log"},
                                            {"name": "test.xml", "uri": uri}]}})


def completed(label, success):
    body = {"success": True} if success else {"failureDetail": {"message": "no"}}
    return json.dumps({"id": {"targetCompleted": {"label": label}}, "completed": body})


def gtest_xml(*cases):
    return "<testsuites><testsuite name='A'>" + "".join(cases) + "</testsuite></testsuites>"


PASS = "<testcase classname='A' name='Pass' status='run' result='completed'/>"
FAIL = "<testcase classname='A' name='Fail' status='run'><failure message='x'/></testcase>"
SKIP = ("<testcase classname='A' name='Skip' status='run' result='skipped'>"
        "<skipped message='a_test.cc:4&#x0A;no root'/></testcase>")
DISABLED = "<testcase classname='A' name='DISABLED_X' status='notrun' result='suppressed'/>"


def tally(lines, exit_code=0, **files):
    return count_results.tally_events(lines, exit_code, read=lambda uri: files.get(uri, ""))


class CountResultsTest(unittest.TestCase):

    def test_counts_cases(self):
        got = tally([result("//a:t", "x"), summary("//a:t", "FAILED")], 3,
                    x=gtest_xml(PASS, PASS, FAIL, SKIP, DISABLED))
        self.assertEqual(got.passed, 2)
        self.assertEqual(got.failed, ["//a:t A.Fail"])
        self.assertEqual(got.skipped, ["//a:t A.Skip: no root", "//a:t A.DISABLED_X: disabled"])

    def test_sums_shards_and_takes_the_last_attempt(self):
        got = tally([result("//a:t", "old", attempt=1), result("//a:t", "x", attempt=2),
                     result("//a:t", "y", shard=2), summary("//a:t", "FLAKY")],
                    old=gtest_xml(FAIL), x=gtest_xml(PASS), y=gtest_xml(PASS, PASS))
        self.assertEqual((got.passed, got.failed), (3, []))

    def test_target_without_usable_xml_counts_as_one(self):
        got = tally([result("//a:ok", "none"), summary("//a:ok", "PASSED"),
                     result("//a:late", "torn"), summary("//a:late", "TIMEOUT")], 3, torn="<tests")
        self.assertEqual((got.passed, got.failed), (1, ["//a:late: TIMEOUT"]))

    def test_script_counts_as_one_and_goes_by_its_label(self):
        got = tally([result("//a:t", "x"), summary("//a:t", "FAILED")], 3,
                    x="<testsuites><testsuite><testcase name='a/t'><error message='exit 1'/>"
                      "</testcase></testsuite></testsuites>")
        self.assertEqual((got.passed, got.failed), (0, ["//a:t"]))

    def test_failure_outside_the_cases_is_a_failure(self):
        got = tally([result("//a:leak", "x"), summary("//a:leak", "FAILED")], 3,
                    x=gtest_xml(PASS))
        self.assertEqual((got.passed, got.failed), (1, ["//a:leak: FAILED outside its cases"]))

    def test_what_is_not_built_is_a_failure_counted_once(self):
        got = tally([completed("//a:t", False), summary("//a:t", "FAILED_TO_BUILD"),
                     completed("//a:lib", False), completed("//a:good", True)], 1)
        self.assertEqual((got.passed, got.failed),
                         (0, ["//a:lib: failed to build", "//a:t: failed to build"]))

    def test_run_that_failed_without_saying_where_is_a_failure(self):
        self.assertEqual(len(tally([], 1).failed), 1)
        # A BUILD file in error beside a test that failed: two failures.
        self.assertEqual(len(tally([summary("//a:t", "FAILED")], 1).failed), 2)
        self.assertEqual(len(tally(['{"id": {"torn'], 37).failed), 1)

    def test_no_tests_with_the_tags_asked_for_is_none(self):
        got = tally([], count_results.EXIT_NO_TESTS)
        self.assertEqual((got.passed, got.failed), (0, []))


if __name__ == "__main__":
    unittest.main()
