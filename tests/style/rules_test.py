#!/usr/bin/env python3
"""Tests the rules of the style test, each with a piece of source that breaks it."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rules  # pylint: disable=wrong-import-position

LIMITS = {"file_lines": 20, "function_lines": 5, "line_columns": 40}


def rule_names(findings):
    return [finding.rule for finding in findings]


class FunctionsTest(unittest.TestCase):

    def names(self, text):
        return [(name, size) for _, size, name in rules.cpp_functions(text)]

    def test_finds_functions_and_not_scopes(self):
        self.assertEqual(
            self.names("namespace a {\nclass B : public C<int(int)> {\n public:\n"
                       "  void D() const {\n    if (x) {\n    }\n  }\n"
                       "  B()\n      : x_(1) {\n  }\n  int x_ = 0;\n};\n}\n"
                       "enum class E { kA };\nstatic const int kT[] = {F(1)};\n"),
            [("D", 4), ("B", 3)])

    def test_counts_lambdas_as_part_of_their_function(self):
        self.assertEqual(self.names("void F() {\n  g([] {\n    h();\n  });\n}\n"), [("F", 5)])

    def test_is_not_fooled_by_literals_comments_and_macros(self):
        self.assertEqual(
            self.names('void F() {\n  // {\n  g("{", \'{\', R"(}})"); /* } */\n}\n'
                       "#define M(x) do { \\\n  x; } while (0)\nvoid G() {}\n"),
            [("F", 4), ("G", 1)])

    def test_finds_operators_templates_and_tests(self):
        self.assertEqual(
            [size for _, size, _ in rules.cpp_functions(
                "template <typename T = int>\nbool operator==(T a, T b) {\n  return true;\n}\n"
                "TEST(A, B) {\n}\nstruct Result Make(struct In in) {\n}\n")][:2], [4, 2])


class LimitsTest(unittest.TestCase):

    def test_sizes(self):
        text = "// x\nvoid F() {\n" + "  g();\n" * 20 + "}\n" + "int " + "x" * 40 + ";\n"
        findings = rules.check_limits("a/b.cc", text, LIMITS)
        self.assertEqual(rule_names(findings), ["file_lines", "function_lines", "line_columns"])
        self.assertEqual([finding.value for finding in findings], [24, 22, 45])
        self.assertEqual(rules.check_limits("a/b.cc", "void F() {}\n", LIMITS), [])

    def test_python_functions(self):
        text = "def f():\n" + "    g()\n" * 6
        self.assertEqual(rule_names(rules.check_limits("a.py", text, LIMITS)), ["function_lines"])


class BannedTest(unittest.TestCase):
    ENTRY = {"name": "lock", "pattern": r"\bstd::mutex\b", "files": ["core/shard*", "io/*"],
             "except": ["*_test.cc"], "reason": "no lock"}

    def test_looks_only_at_code_of_the_files_named(self):
        bad = "std::mutex a;\nstd::mutex b;\n"
        found = rules.check_banned("core/shard.h", bad, self.ENTRY)
        self.assertEqual([(finding.line, finding.value) for finding in found], [(1, 2)])
        self.assertEqual(rules.check_banned("core/engine.h", bad, self.ENTRY), [])
        self.assertEqual(rules.check_banned("io/loop_test.cc", bad, self.ENTRY), [])
        self.assertEqual(rules.check_banned("io/a.cc", "// no std::mutex\n", self.ENTRY), [])

    def test_comments_on_demand(self):
        entry = dict(self.ENTRY, comments=True)
        self.assertEqual(len(rules.check_banned("io/a.cc", "// std::mutex\n", entry)), 1)


class FilesTest(unittest.TestCase):

    def test_include_guard(self):
        good = "// x\n#ifndef RINGSOCK_IO_A_B_H_\n#define RINGSOCK_IO_A_B_H_\n#endif  // x\n"
        self.assertEqual(rules.check_guard("io/a_b.h", good), [])
        self.assertEqual(len(rules.check_guard("io/b.h", good)), 1)
        self.assertEqual(len(rules.check_guard("io/b.h", "// x\n#pragma once\n")), 1)
        self.assertEqual(len(rules.check_guard("io/b.h", "")), 1)

    def test_first_comment(self):
        self.assertEqual(rules.check_first_comment("a.cc", "// What it is.\nint x;\n"), [])
        self.assertEqual(rules.check_first_comment("a.py", "#!/usr/bin/python3\n\"\"\"What.\n"), [])
        self.assertEqual(len(rules.check_first_comment("a.cc", "int x;\n")), 1)
        self.assertEqual(rules.check_first_comment("a.cc", "int x;\n", {"a.h"}), [])

    def test_dead_and_missing_files(self):
        build = {"a/BUILD.bazel": "ringsock_cc_library(name = 'x', srcs = ['x.cc', 'gone.cc'],\n"
                                  "  hdrs = glob(['sub/*.h']), deps = ['//b:y', '//b:z.h'])\n"}
        found = rules.check_dead_files(build, {"a/x.cc", "a/sub/h.h", "a/dead.cc", "b/z.h"})
        self.assertEqual([(finding.rule, finding.file) for finding in found],
                         [("missing_file", "a/BUILD.bazel"), ("dead_file", "a/dead.cc")])


class AllowancesTest(unittest.TestCase):
    FOUND = rules.Finding("file_lines", "a.cc", 1, 600, "600 lines")

    def apply(self, findings, value, reason="it is a table of numbers"):
        allowance = {"rule": "file_lines", "file": "a.cc", "value": value, "reason": reason}
        return [finding.message for finding in rules.apply_allowances(findings, [allowance])]

    def test_ratchet(self):
        self.assertEqual(self.apply([self.FOUND], 600), [])
        self.assertEqual(self.apply([self.FOUND], 599), ["600 lines"])
        self.assertIn("lower its allowance", self.apply([self.FOUND], 601)[0])
        self.assertIn("remove it", self.apply([], 600)[0])
        self.assertIn("no reason", self.apply([self.FOUND], 600, reason="")[0])


if __name__ == "__main__":
    unittest.main()
