#!/bin/bash
# Runs one fuzz target as a test: fuzz_run.sh BINARY [libfuzzer flags and corpus files...].
# With libFuzzer it starts from a scratch copy of the seeds, so nothing is written to the tree, and
# leaves a crashing input in the test's outputs; without it the seeds are replayed.
set -euo pipefail
binary=$1
shift
flags=()
corpus=$(mktemp -d "${TEST_TMPDIR:-/tmp}/corpus.XXXXXX")
for word in "$@"; do
  case $word in
    -*) flags+=("$word") ;;
    *) cp -L "$word" "$corpus/$(printf '%s' "$word" | tr / _)" ;;
  esac
done
if grep -q 'libFuzzer' "$binary"; then
  outputs=${TEST_UNDECLARED_OUTPUTS_DIR:-$corpus.out}
  mkdir -p "$outputs"
  exec "$binary" -artifact_prefix="$outputs/" -max_total_time="${RINGSOCK_FUZZ_SECONDS:-5}" \
    -rss_limit_mb=2048 -timeout=10 ${flags[@]+"${flags[@]}"} "$corpus"
fi
exec "$binary" "$corpus"
