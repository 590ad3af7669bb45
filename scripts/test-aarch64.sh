#!/usr/bin/env bash
# Builds FlashELM for 64-bit ARM and runs its tests in an emulator.
#
#   scripts/test-aarch64.sh [--ci]
#
#   --ci  only the tests without the label `slow`, on the plainest CPU, and of
#         the library, not of the command; kernels also on a CPU that has dot
#         products
#
# Run it from anywhere, on Debian 12 for another processor. All tests run on a
# CPU that has NEON and nothing later, those of kernels and texts on others too:
# CMakePresets.json says which. Ends with ctest's summary.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

preset=aarch64-linux-gnu
case "${1:-}" in
  "") is_ci=false ;;
  --ci) is_ci=true ;;
  *)
    echo "usage: $0 [--ci]" >&2
    exit 2
    ;;
esac

scripts/install-packages.sh aarch64
# The command is the same for all processors; it would be half of the time.
if $is_ci; then build_options=(-DFLASHELM_BUILD_CLI=OFF); else
  build_options=(-DFLASHELM_BUILD_CLI=ON)
fi
say "Building build/$preset with its tests (a few minutes the first time)"
build "$preset" ON all
if $is_ci; then
  say "Running the tests without the label slow"
  ctest --preset "$preset-dotprod" -R '^kernels_test'
  ctest --preset "$preset" -j "$(nproc)" -LE slow
  exit
fi
for each in "$preset" "$preset-dotprod" "$preset-sve"; do
  say "Running the tests: ctest --preset $each"
  ctest --preset "$each" -j "$(nproc)"
done
