#!/usr/bin/env python3
"""Counts test results of several Bazel runs and prints "N passed, N failed" as its last line.

Usage: count_results.py [--skipped "test: reason"]... NAME:EXIT_CODE:BUILD_EVENTS_JSON...

The events name the tests of a run and their test.xml files, so results that an earlier run left
behind are not counted. What counts:
  a case in a test.xml                             one, passed or failed; skipped ones are listed
  a test without a usable test.xml                 one, as Bazel saw it
  a test that failed though all its cases passed   one failed more (a leak, a crash at exit)
  a target that was not built                      one failed
  a run that failed for no reason among these      one failed (a BUILD file in error)
"""

import argparse
import collections
import json
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

EXIT_BUILD_FAILED = 1
EXIT_NO_TESTS = 4  # Bazel's word for "no test has the tags asked for"


class Tally:
    """Counts of one run, and the names behind them."""

    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []

    def add_test(self, label, status, xml_texts):
        """Adds one test target from Bazel's verdict on it and its test.xml files."""
        failed_before = len(self.failed)
        for text in xml_texts:
            if not self._add_cases(label, text):
                self._add_whole(label, status)
        if not xml_texts:
            self._add_whole(label, status)
        if status not in ("PASSED", "FLAKY") and len(self.failed) == failed_before:
            self.failed.append(f"{label}: {status} outside its cases")

    def _add_whole(self, label, status):
        if status in ("PASSED", "FLAKY"):
            self.passed += 1
        else:
            self.failed.append(f"{label}: {status}")

    def _add_cases(self, label, text):
        """Adds the cases of one test.xml; false if it has none."""
        try:
            cases = list(ElementTree.fromstring(text).iter("testcase"))
        except ElementTree.ParseError:
            return False
        for case in cases:
            name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
            name = label if name == label.lstrip("/").replace(":", "/") else f"{label} {name}"
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed.append(name)
            elif case.find("skipped") is not None or case.get("result") == "skipped":
                self.skipped.append(f"{name}: {_skip_reason(case)}")
            elif case.get("status") == "notrun":
                self.skipped.append(f"{name}: disabled")
            else:
                self.passed += 1
        return bool(cases)


def _skip_reason(case):
    node = case.find("skipped")
    message = (node.get("message") or node.text or "") if node is not None else ""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    # GoogleTest's first line is the place; the words follow it.
    return " ".join(lines[1:] or lines) or "no reason given"


def _read(uri):
    path = urllib.parse.unquote(urllib.parse.urlparse(uri).path)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def tally_events(lines, exit_code, read=_read):
    """The tally of one Bazel run: its build events, one JSON text a line, and its exit code."""
    verdicts = {}
    attempts = collections.defaultdict(dict)  # label -> (run, shard) -> (attempt, xml uri)
    unbuilt = {}
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed
        identity = event.get("id", {})
        if "testSummary" in identity and "testSummary" in event:
            verdicts[identity["testSummary"]["label"]] = event["testSummary"]["overallStatus"]
        elif "testResult" in identity and "testResult" in event:
            where = identity["testResult"]
            uris = [output["uri"] for output in event["testResult"].get("testActionOutput", [])
                    if output["name"] == "test.xml" and "uri" in output]
            place = (where.get("run", 1), where.get("shard", 1))
            latest = attempts[where["label"]].get(place, (0, None))
            if where.get("attempt", 1) > latest[0]:
                attempts[where["label"]][place] = (where.get("attempt", 1), (uris or [None])[0])
        elif "targetCompleted" in identity:
            if not event.get("completed", {}).get("success", False):
                unbuilt[identity["targetCompleted"]["label"]] = True
    tally = Tally()
    for label, status in sorted(verdicts.items()):
        if status == "FAILED_TO_BUILD" or (status == "NO_STATUS" and label in unbuilt):
            unbuilt[label] = True
            continue
        uris = [uri for _, uri in attempts[label].values()]
        tally.add_test(label, status, [read(uri) if uri else "" for uri in uris])
    tally.failed += [f"{label}: failed to build" for label in sorted(unbuilt)]
    explained = unbuilt if exit_code == EXIT_BUILD_FAILED else tally.failed
    if exit_code not in (0, EXIT_NO_TESTS) and not explained:
        tally.failed.append(f"the build itself, with exit code {exit_code}")
    return tally


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--skipped", action="append", default=[])
    parser.add_argument("runs", nargs="+", metavar="NAME:EXIT_CODE:BUILD_EVENTS_JSON")
    options = parser.parse_args(arguments)
    passed, failed, skipped = 0, [], list(options.skipped)
    print("=== results ===")
    for run in options.runs:
        name, exit_code, path = run.split(":", 2)
        lines = []
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.readlines()
        tally = tally_events(lines, int(exit_code))
        print(f"{name}: {tally.passed} of {tally.passed + len(tally.failed)} passed")
        passed += tally.passed
        failed += [f"{what} ({name})" for what in tally.failed]
        skipped += [f"{what} ({name})" for what in tally.skipped]
    for what in skipped:
        print(f"skipped: {what}")
    for what in failed:
        print(f"failed: {what}")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
