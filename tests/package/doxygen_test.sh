#!/usr/bin/env bash
# Doxygen finds everything in the header documented, and notices what is not.
#
#   doxygen_test.sh SOURCE_DIR
set -euo pipefail
cd "$1"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
command -v doxygen >/dev/null ||
  fail "doxygen is not installed: scripts/install-packages.sh"

# run_doxygen DIR: on the header in DIR, with output beside it.
run_doxygen() {
  {
    cat docs/Doxyfile
    echo "INPUT = $1"
    echo "OUTPUT_DIRECTORY = $work/pages"
  } | doxygen - >"$work/log" 2>&1
}

run_doxygen include/flashelm || {
  cat "$work/log" >&2
  fail "what is above"
}
[[ ! -s "$work/log" ]] || fail "it is not quiet: $(cat "$work/log")"
for name in flashelm_generate flashelm_source flashelm_token_callback; do
  grep -rq "$name" "$work/pages/html" || fail "$name is on no page"
done

# expect_complaint PATTERN SED_SCRIPT: of the header that the script makes.
expect_complaint() {
  mkdir -p "$work/changed"
  sed "$2" include/flashelm/flashelm.h >"$work/changed/flashelm.h"
  ! cmp -s include/flashelm/flashelm.h "$work/changed/flashelm.h" ||
    fail "nothing is changed by $2"
  ! run_doxygen "$work/changed" || fail "no complaint after $2"
  grep -q "$1" "$work/log" || fail "no '$1' after $2, but: $(cat "$work/log")"
}
expect_complaint 'flashelm_extra' \
  's/^FLASHELM_API void flashelm_cancel(.*/&\nFLASHELM_API int flashelm_extra(int how);/'
expect_complaint 'flashelm_positon' 's/^\/\* flashelm_position() :/\/* flashelm_positon() :/'
expect_complaint 'argument .positon' 's/ @position : filled/ @positon : filled/'
expect_complaint 'add_bos' '/^ \* @add_bos : /d'
expect_complaint 'return' '/^ \* @return : FLASHELM_ABI_VERSION/d'
expect_complaint 'model_dim' 's/^\( *uint32_t model_dim;\).*/\1/'
expect_complaint 'FLASHELM_STOP_EOS' 's/^\(#define FLASHELM_STOP_EOS 1\).*/\1/'
