#!/usr/bin/env bash
# Builds FlashELM with its tests and runs all of them.
#
#   scripts/test.sh [PRESET]    release (default), dev, asan or tsan
#
# Run it from anywhere. Ends with ctest's summary.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

preset="${1:-release}"
case "$preset" in
  release | dev | asan | tsan) ;;
  *)
    echo "usage: $0 [release|dev|asan|tsan]" >&2
    exit 2
    ;;
esac

scripts/install-packages.sh test
say "Building build/$preset with its tests (a few minutes the first time)"
build "$preset" ON all
say "Running the tests"
ctest --preset "$preset" -j "$(nproc)"
