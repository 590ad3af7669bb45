#!/usr/bin/env bash
# Builds FlashELM with its tests and runs all of them, or those that arguments
# for ctest choose.
#
#   scripts/test.sh [PRESET [CTEST_ARGUMENT...]]
#
#   PRESET  release (default), dev, no-uring, asan or tsan
#
# Run it from anywhere. Ends with ctest's summary.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

preset="${1:-release}"
case "$preset" in
  release | dev | no-uring | asan | tsan) ;;
  *)
    echo "usage: $0 [release|dev|no-uring|asan|tsan [CTEST_ARGUMENT...]]" >&2
    exit 2
    ;;
esac
shift $(($# > 0))

scripts/install-packages.sh test
say "Building build/$preset with its tests (a few minutes the first time)"
build "$preset" ON all
say "Running the tests"
ctest --preset "$preset" -j "$(nproc)" "$@"
