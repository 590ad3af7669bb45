#!/usr/bin/env bash
# What scripts/abi.sh takes for a change that a program would notice: tried on
# libraries that are made of changed headers, and on the library itself.
#
#   abi_test.sh LIBRARY SOURCE_DIR
set -euo pipefail
library="$1" source="$2"
abi="$source/scripts/abi.sh"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# change DIR SED_SCRIPT: the header as the script makes it.
change() {
  mkdir -p "$work/$1"
  sed "$2" "$source/include/flashelm/flashelm.h" >"$work/$1/flashelm.h"
}
check() {
  "$abi" check "$1" "$2" "$work/record" >"$work/log" 2>&1
}
expect_pass() {
  change changed "$2"
  "$abi" stub "$work/changed" "$work/changed.so"
  check "$work/changed.so" "$work/changed" ||
    fail "$1 is refused: $(cat "$work/log")"
  grep -q "abi.sh renew" "$work/log" || fail "$1 is not noticed"
}
expect_failure() {
  change changed "$2"
  ! cmp -s "$work/first/flashelm.h" "$work/changed/flashelm.h" ||
    fail "$1: nothing is changed by $2"
  "$abi" stub "$work/changed" "$work/changed.so"
  ! check "$work/changed.so" "$work/changed" ||
    fail "$1 is not noticed: $(cat "$work/log")"
  grep -q "would notice" "$work/log" || fail "$1: $(cat "$work/log")"
}

change first ''
"$abi" renew "$work/first" "$work/record" >/dev/null
"$abi" stub "$work/first" "$work/first.so"
for one in "$work/first.so" "$library"; do
  check "$one" "$work/first" || fail "$one is refused: $(cat "$work/log")"
  ! grep -q renew "$work/log" || fail "$one differs: $(cat "$work/log")"
done

expect_pass "a new function" \
  's/^FLASHELM_API void flashelm_cancel(.*/FLASHELM_API int flashelm_extra(int how);\n&/'
expect_pass "a new code" \
  's/FLASHELM_INTERNAL = 9 /FLASHELM_INTERNAL = 9, FLASHELM_NEW = 10/'
expect_pass "a new constant" \
  's/^#define FLASHELM_IO_PREAD 2.*/&\n#define FLASHELM_IO_NEW 3/'
expect_pass "fields at the ends of structs" \
  's/^} flashelm_\(engine_options\|stats\);/uint64_t more; void* user;\n&/'

expect_failure "a function that is gone" \
  '/^FLASHELM_API void flashelm_clear_cancel(/d'
expect_failure "another parameter" \
  's/^FLASHELM_API void flashelm_cancel(/&int how, /'
expect_failure "another result" \
  's/^FLASHELM_API uint32_t flashelm_abi/FLASHELM_API uint64_t flashelm_abi/'
expect_failure "a field of another type" \
  's/^  uint32_t context; .*/uint64_t context;/'
expect_failure "a field in the middle" 's/^  uint32_t kind;/uint32_t other; &/'
more='s/^} flashelm_engine_options;/uint64_t more;\n&/'
expect_failure "a field in the middle, and one at the end" \
  "s/^  uint32_t kv_type;/uint64_t other; &/; $more"
expect_failure "a field of another type, and one at the end" \
  "s/^  uint32_t kv_type;/float kv_type;/; $more"
expect_failure "a field that is gone" '/^  uint32_t ignore_eos; /d'
expect_failure "a field at the end of what does not say its size" \
  's/^} flashelm_plan_part;/uint64_t more;\n&/'
expect_failure "a field at the end of an error" \
  's/^} flashelm_error;/uint64_t more;\n&/'
expect_failure "a code of another value" \
  's/FLASHELM_CANCELLED = 8,/FLASHELM_CANCELLED = 10,/'
expect_failure "a constant of another value" \
  's/^#define FLASHELM_IO_PREAD 2/#define FLASHELM_IO_PREAD 3/'
expect_failure "a callback that is called otherwise" \
  's/^typedef int (\*flashelm_progress_callback)(void\* user,/& int how,/'

# That it sees the same in the library itself, which is C++.
change changed 's/^  uint32_t kv_type;/float kv_type;/'
"$abi" renew "$work/changed" "$work/record" >/dev/null
! check "$library" "$work/first" || fail "the library's fields are not seen"
