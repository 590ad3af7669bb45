#!/usr/bin/env bash
# Builds FlashELM for 64-bit ARM and runs its tests in an emulator.
#
#   scripts/test-aarch64.sh [--ci]
#
#   --ci  only what the processor could make a difference to: kernels (also on a
#         CPU that has dot products), readers, stores and threads, the text of
#         the engine, its session files, and the library as others call it;
#         without the tests labelled `slow`
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
ci_tests=(
  base_test kernels_test predictor_test tokenizer_test
  storage_test bundle_store_test reader_test weight_file_test
  engine_test session_file_test c_api_test cpp_api_test)
say "Building build/$preset with its tests (a few minutes the first time)"
if $is_ci; then
  build_options=(-DFLASHELM_BUILD_CLI=OFF)
  build "$preset" ON flashelm_shared flashelm_static "${ci_tests[@]}"
  say "Running ${ci_tests[*]}"
  ctest --preset "$preset-dotprod" -R '^kernels_test'
  ctest --preset "$preset" -j "$(nproc)" -LE slow \
    -R "^($(IFS='|' && echo "${ci_tests[*]}"))"
  exit
fi
build_options=(-DFLASHELM_BUILD_CLI=ON)
build "$preset" ON all
for each in "$preset-dotprod" "$preset-sve" "$preset"; do
  say "Running the tests: ctest --preset $each"
  ctest --preset "$each" -j "$(nproc)"
done
