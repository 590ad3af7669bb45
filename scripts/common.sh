# What demo.sh and test.sh share; to be sourced. Leaves the shell at the
# repository's root.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '==> %s\n' "$*"; }

# run_quietly LOG COMMAND...: the command's output goes to LOG, which is shown
# when it fails. On a terminal, Ninja's count of steps is shown meanwhile.
run_quietly() {
  local log="$1" line
  shift
  mkdir -p "$(dirname "$log")"
  if [[ -t 1 ]]; then
    "$@" 2>&1 | tee "$log" | while IFS= read -r line; do
      if [[ "$line" =~ ^\[[0-9]+/[0-9]+\] ]]; then
        printf '\r    %s ' "${BASH_REMATCH[0]}"
      fi
    done && printf '\r\e[K' && return
    printf '\r\e[K'
  else
    "$@" >"$log" 2>&1 && return
  fi
  tail -n 60 "$log" >&2
  printf 'Failed: %s\nThe whole log is in %s\n' "$*" "$log" >&2
  return 1
}

# Whether a build tree was configured with tests.
has_tests() {
  grep -qs '^FLASHELM_BUILD_TESTS:BOOL=ON$' "build/$1/CMakeCache.txt"
}

# build PRESET TESTS TARGET...: configures with tests ON or OFF, and with
# build_options, and builds with all processors. With tests, what users run is
# built with benchmarks, too.
build_options=()
build() {
  local preset="$1" tests="$2" benchmarks=OFF
  if [[ "$preset" == release ]]; then benchmarks="$tests"; fi
  shift 2
  run_quietly "build/log/$preset-configure.log" \
    cmake --preset "$preset" "-DFLASHELM_BUILD_TESTS=$tests" \
    "-DFLASHELM_BUILD_BENCHMARKS=$benchmarks" "${build_options[@]}"
  run_quietly "build/log/$preset-build.log" \
    cmake --build --preset "$preset" -j "$(nproc)" --target "$@"
}
