"""The macros every package of this project builds with, so that flags and tags mean one thing.

Tags of tests, and what `./test` does with them:
  shared_memory  runs a second time under thread sanitizer
  opt_only       cannot run under sanitizers (counts allocations, measures time): optimised only
  network        makes namespaces, interfaces or nftables rules, needs root: sets local, exclusive
  fuzz           set by ringsock_fuzz_test: runs for some seconds with libFuzzer
Beside these only Bazel's local, exclusive, external (never cached) and manual are taken.
"""

_COPTS = [
    "-fno-omit-frame-pointer",
    "-fno-strict-aliasing",
    "-Wnon-virtual-dtor",
    "-Wimplicit-fallthrough",
]

# Linked into every test.
_TEST_DEPS = [
    "//third_party:gtest_main",
    "//tools:tsan_suppressions",
]

_TEST_TAGS = [
    "exclusive",
    "external",
    "local",
    "manual",
    "network",
    "opt_only",
    "shared_memory",
]

def _check_tags(name, tags):
    for tag in tags:
        if tag not in _TEST_TAGS:
            fail("%s: unknown tag %s, known are %s" % (name, tag, ", ".join(_TEST_TAGS)))

def _with_implied(tags):
    implied = ["local", "exclusive"] if "network" in tags else []
    return tags + [tag for tag in implied if tag not in tags]

def ringsock_cc_library(name, copts = [], **kwargs):
    """A library of this project."""
    native.cc_library(name = name, copts = _COPTS + copts, **kwargs)

def ringsock_cc_binary(name, copts = [], **kwargs):
    """A program of this project."""
    native.cc_binary(name = name, copts = _COPTS + copts, **kwargs)

def ringsock_cc_test(name, copts = [], deps = [], tags = [], size = "small", **kwargs):
    """A GoogleTest of this project; GoogleTest, GoogleMock and a main come with it."""
    _check_tags(name, tags)
    native.cc_test(
        name = name,
        size = size,
        # As binaries do: each object is compiled once for both, and libraries that a project
        # library needs but the test's own objects do not (absl, linked as needed) are found.
        linkstatic = True,
        copts = _COPTS + copts,
        tags = _with_implied(tags),
        deps = deps + _TEST_DEPS,
        **kwargs
    )

def ringsock_cc_benchmark(name, copts = [], deps = [], **kwargs):
    """A micro benchmark: a program, with Google Benchmark and its main."""
    native.cc_binary(
        name = name,
        testonly = True,
        copts = _COPTS + copts,
        deps = deps + ["//third_party:benchmark_main"],
        **kwargs
    )

def ringsock_script_test(name, srcs, tags = [], size = "small", **kwargs):
    """A test that is an executable script, its first line naming what runs it."""
    _check_tags(name, tags)
    native.sh_test(name = name, srcs = srcs, size = size, tags = _with_implied(tags), **kwargs)

def ringsock_fuzz_test(name, srcs, corpus = [], deps = [], copts = [], flags = [], **kwargs):
    """A fuzz target: defines LLVMFuzzerTestOneInput and comes with seeds.

    Args:
      name: of the test; the program is name + "_bin".
      srcs: the source with LLVMFuzzerTestOneInput.
      corpus: seed files, run by every pass of `./test` as a regression test.
      deps: what is fuzzed.
      copts: further compiler flags.
      flags: further libFuzzer flags such as -max_len=1500.
      **kwargs: passed to the test.
    """
    native.cc_binary(
        name = name + "_bin",
        testonly = True,
        srcs = srcs,
        copts = _COPTS + copts,
        tags = ["fuzz"],
        linkopts = select({
            "//tools:fuzzing": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        deps = deps + select({
            "//tools:fuzzing": [],
            "//conditions:default": ["//tools:fuzz_replay_main"],
        }),
    )
    native.sh_test(
        name = name,
        size = "small",
        srcs = ["//tools:fuzz_run.sh"],
        args = ["$(rootpath :%s_bin)" % name] + flags +
               ["$(rootpaths %s)" % seed for seed in corpus],
        data = [":%s_bin" % name] + corpus,
        tags = ["fuzz"],
        **kwargs
    )
