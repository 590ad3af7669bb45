#!/usr/bin/env bash
# Compares the binary interface of libflashelm with the recorded one, which is
# what programs may have been compiled for.
#
#   scripts/abi.sh check [LIBRARY [HEADERS [RECORD]]]
#   scripts/abi.sh renew [HEADERS [RECORD]]
#   scripts/abi.sh stub HEADERS LIBRARY
#
#   check  says what has changed, and fails where a program would notice: what
#          is new is no such change, and neither is a struct that grew at its
#          end, if it says how large it is
#   renew  records the interface that the header has now
#   stub   makes a library that has each function of the header, with nothing in
#          it: what is recorded is that, since it brings no types of C++
#
#   LIBRARY  with debug information of its interface, which a build with tests
#            has; build/release/libflashelm.so unless given
#   HEADERS  the folder of flashelm.h; include/flashelm unless given
#   RECORD   the folder of what is recorded; tests/package/abi unless given
#
# Exit code 77: nothing is recorded for this processor.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
die() {
  echo "$*" >&2
  exit 1
}

make_stub() {
  local headers library
  headers="$(cd "$1" && pwd)"
  library="$2"
  {
    echo "#include \"$headers/flashelm.h\""
    awk '/^FLASHELM_API/ {on = 1}
         on && sub(/\);$/, ") { __builtin_trap(); }") {print; on = 0; next}
         on {print}' "$headers/flashelm.h"
  } >"$work/stub.c"
  cc -std=c99 -g -w -shared -fPIC "$work/stub.c" -o "$library" \
    -Wl,-soname,libflashelm.so.0 \
    "-Wl,--version-script=$root/core/flashelm.map"
}

# Macros leave nothing in a library, but a program has their values.
constants() {
  cc -E -dM "$1/flashelm.h" | grep -E '^#define FLASHELM_[A-Z0-9_]+ .' |
    grep -v 'FLASHELM_API ' | LC_ALL=C sort
}

for tool in abidw abidiff; do
  command -v "$tool" >/dev/null ||
    die "$tool is not installed: scripts/install-packages.sh"
done
machine="$(uname -m)"
what="${1:-}"
shift $(($# > 0))
case "$what" in
  stub)
    make_stub "$1" "$2"
    exit 0
    ;;
  renew)
    headers="${1:-$root/include/flashelm}"
    record="${2:-$root/tests/package/abi}"
    make_stub "$headers" "$work/libflashelm.so"
    mkdir -p "$record"
    # Without what differs between machines: folders, lines, other libraries.
    abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed \
      --type-id-style hash --out-file "$work/types.abi" "$work/libflashelm.so"
    sed "s/ path='[^']*'//" "$work/types.abi" \
      >"$record/libflashelm-$machine.abi"
    constants "$headers" >"$record/constants.txt"
    echo "Recorded: $record/libflashelm-$machine.abi $record/constants.txt"
    exit 0
    ;;
  check)
    library="${1:-$root/build/release/libflashelm.so}"
    headers="${2:-$root/include/flashelm}"
    record="${3:-$root/tests/package/abi}"
    ;;
  *)
    echo "usage: $0 check [LIBRARY [HEADERS [RECORD]]]" >&2
    echo "       $0 renew [HEADERS [RECORD]]" >&2
    echo "       $0 stub HEADERS LIBRARY" >&2
    exit 2
    ;;
esac

types="$record/libflashelm-$machine.abi"
[[ -e "$library" ]] || die "there is no $library: build it, with its tests"
[[ -e "$types" ]] || {
  echo "nothing is recorded for $machine: scripts/abi.sh renew"
  exit 77
}
# Without it, abidiff would compare names alone.
readelf -SW "$library" | awk '/\.debug_info/ {found = 1} END {exit !found}' ||
  die "$library has no debug information of its interface"
# compare OPTION...: abidiff, whose exit code has a 4 for a change and 1 or 2
# where it did not compare.
compare() {
  local status=0
  abidiff "$@" "$types" "$library" >"$work/changes" 2>&1 || status=$?
  ((!(status & 3))) || die "$(cat "$work/changes")"
  ((status == 0))
}

failed=0
constants "$headers" >"$work/constants"
LC_ALL=C comm -23 "$record/constants.txt" "$work/constants" >"$work/gone"
if [[ -s "$work/gone" ]]; then
  echo "Constants that are gone, or have another value:"
  cat "$work/gone"
  failed=1
fi
# Of what abidiff reports, all but structs that say how large they are and have
# new fields behind their old ones. Its own way to allow those allows more.
sized="$(awk '/^typedef struct flashelm_/ {name = $3}
  /^  size_t struct_size;/ {print name}' "$headers/flashelm.h" | paste -sd '|')"
compare --no-added-syms --leaf-changes-only || true
awk -v sized="^.struct ($sized). changed:\$" '
  /^(Leaf changes|Changed leaf types) summary: / {next}
  /^Removed\/Changed\/Added (functions|variables) summary: / {next}
  /^$/ {next}
  /^[^ ]/ {
    grows = $0 ~ sized
    old_bits = -1
    title = $0
    if (grows) next
  }
  grows && /^  type size changed from [0-9]+ to [0-9]+ \(in bits\)$/ {
    old_bits = $5
    next
  }
  grows && /^  [0-9]+ data member insertions?:$/ {next}
  grows && old_bits >= 0 && /, at offset [0-9]+ \(in bits\)/ {
    offset = $0
    sub(/^.*, at offset /, "", offset)
    if (offset + 0 >= old_bits + 0) next
  }
  grows {print title; grows = 0}
  {print}' "$work/changes" >"$work/refused"
if [[ -s "$work/refused" ]]; then
  cat "$work/refused"
  failed=1
fi
if ((failed)); then
  cat <<'END'
Programs that were compiled with the older header would notice. If that is meant,
FLASHELM_ABI_VERSION (flashelm.h) and FLASHELM_SOVERSION (cmake/library.cmake)
change with it, and scripts/abi.sh renew records the new interface.
END
  exit 1
fi
# What is new: here with the header's own library, as that of C++ has more of the
# opaque structs.
make_stub "$headers" "$work/libflashelm.so"
library="$work/libflashelm.so"
if ! compare --harmless || ! cmp -s "$record/constants.txt" "$work/constants"; then
  cat "$work/changes"
  LC_ALL=C comm -13 "$record/constants.txt" "$work/constants"
  echo "The interface has grown, which no program notices. Please record it," \
    "so that it is kept from now on: scripts/abi.sh renew"
fi
