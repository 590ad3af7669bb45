#!/usr/bin/env bash
# Makes the Debian packages, looks at what they say and hold, unpacks them, and
# uses what was unpacked.
#
#   deb_test.sh BUILD_DIR SOURCE_DIR MODEL.felm
#
# Skips, with exit code 77, where Debian's tools are missing.
set -euo pipefail
build="$1" source="$2" model="$3"
for tool in dpkg-deb dpkg-shlibdeps file; do
  command -v "$tool" >/dev/null || {
    echo "no $tool here"
    exit 77
  }
done

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

cpack --config "$build/CPackConfig.cmake" -B "$work/made" \
  >"$work/log" 2>&1 || {
  cat "$work/log" >&2
  fail "cpack"
}
architecture="$(dpkg --print-architecture)"
version="$(sed -n 's/^project(flashelm VERSION \([0-9.]*\).*/\1/p' \
  "$source/CMakeLists.txt")"
deb() { echo "$work/made/$1_${version}_$architecture.deb"; }
packages=(libflashelm0 libflashelm-dev flashelm)
find "$work/made" -maxdepth 1 -name '*.deb' -printf '%f\n' | sort >"$work/found"
for package in "${packages[@]}"; do basename "$(deb "$package")"; done |
  sort | diff - "$work/found" || fail "other packages"

# expect_field PACKAGE FIELD PATTERN
expect_field() {
  local value
  value="$(dpkg-deb -f "$(deb "$1")" "$2")"
  grep -qE "$3" <<<"$value" || fail "$1, $2: no '$3' in: $value"
}
# expect_files PACKAGE PATTERN...: it holds each, and nothing that matches none.
expect_files() {
  local package="$1" pattern
  shift
  dpkg-deb -c "$(deb "$package")" | grep -v '^d' |
    awk '{print $6}' | sed 's/^\.//' >"$work/files"
  for pattern in "$@" "/usr/share/doc/$package/copyright"; do
    grep -qxE "$pattern" "$work/files" ||
      fail "$package has no $pattern, but: $(cat "$work/files")"
    grep -vxE "$pattern" "$work/files" >"$work/rest" || true
    mv "$work/rest" "$work/files"
  done
  [[ ! -s "$work/files" ]] || fail "$package has, too: $(cat "$work/files")"
  dpkg-deb -c "$(deb "$package")" |
    awk '$2 != "root/root" || ($1 !~ /^l/ && $1 !~ /^.rw.r-.r-.$/)' \
      >"$work/odd"
  [[ ! -s "$work/odd" ]] || fail "$package, whose: $(cat "$work/odd")"
}
for package in "${packages[@]}"; do
  expect_field "$package" Package "^$package\$"
  expect_field "$package" Version "^${version//./\\.}\$"
  expect_field "$package" Maintainer .
  expect_field "$package" Description '^language models from flash'
  expect_field "$package" Description '^ This package has '
done
expect_field libflashelm0 Section '^libs$'
expect_field libflashelm0 Depends 'libc6 \(>= .*libfmt[0-9].*libhwy[0-9]'
expect_field libflashelm-dev Section '^libdevel$'
expect_field libflashelm-dev Depends "^libflashelm0 \(= ${version//./\\.}\)\$"
expect_field libflashelm-dev Recommends 'libfmt-dev, libhwy-dev'
expect_field flashelm Section '^science$'
expect_field flashelm Depends 'libc6 \(>= .*libfmt[0-9]'
! dpkg-deb -f "$(deb flashelm)" Depends | grep -q libflashelm ||
  fail "the command needs the library"
dpkg-deb --info "$(deb libflashelm0)" shlibs >"$work/shlibs"
grep -q "^libflashelm 0 libflashelm0 (>= $version)" "$work/shlibs" ||
  fail "shlibs: $(cat "$work/shlibs")"

lib='/usr/lib(/[a-z0-9_]+-linux-[a-z]+)?'
expect_files libflashelm0 "$lib/libflashelm\.so\.0" \
  "$lib/libflashelm\.so\.${version//./\\.}"
expect_files libflashelm-dev "$lib/libflashelm\.so" "$lib/libflashelm\.a" \
  /usr/include/flashelm/flashelm.h /usr/include/flashelm/flashelm.hpp \
  "$lib/pkgconfig/flashelm\.pc" "$lib/pkgconfig/flashelm-static\.pc" \
  "$lib/cmake/flashelm/flashelm-(config|config-version|targets|targets-[a-z]*)\.cmake"
expect_files flashelm /usr/bin/flashelm \
  '/usr/share/man/man1/flashelm(-[a-z]+)*\.1' \
  /usr/share/bash-completion/completions/flashelm \
  /usr/share/zsh/site-functions/_flashelm \
  /usr/share/fish/vendor_completions.d/flashelm.fish

for package in "${packages[@]}"; do
  dpkg-deb -x "$(deb "$package")" "$work/root"
done
for package in "${packages[@]}"; do
  notices="$work/root/usr/share/doc/$package/copyright"
  for holder in 'Apache License' 'Victor Zverovich' 'Niels Lohmann' \
    'Google LLC'; do
    grep -q "$holder" "$notices" || fail "$notices: no $holder"
  done
done
for holder in 'Henry Schreiner' 'Yann Collet'; do
  grep -q "$holder" "$work/root/usr/share/doc/flashelm/copyright" ||
    fail "the command's notices: no $holder"
done
libdir="$(dirname "$(find "$work/root" -name libflashelm.a)")"
for program in "$work/root/usr/bin/flashelm" "$libdir/libflashelm.so.$version"; do
  [[ "$(file -b "$program")" == *', stripped'* ]] || fail "$program: not stripped"
done
library_bytes="$(stat -c %s "$libdir/libflashelm.so.$version")"
echo "libflashelm.so.$version: $library_bytes bytes"
# README: 1.4 MiB, of what users run.
if grep -q '^CMAKE_BUILD_TYPE:STRING=Release$' "$build/CMakeCache.txt"; then
  ((library_bytes < 1600 << 10)) || fail "the library has $library_bytes bytes"
fi
export PKG_CONFIG_PATH="$libdir/pkgconfig" LD_LIBRARY_PATH="$libdir"
read -ra flags < <(pkg-config --cflags --libs flashelm)
cc -std=c99 -Wall -Wextra -Wpedantic -Werror "$source/examples/c/minimal.c" \
  -o "$work/minimal" "${flags[@]}"
text="$("$work/minimal" "$model" 4 'Once upon a time' 2>"$work/log")" || {
  cat "$work/log" >&2
  fail "the example"
}
[[ "$text" == 'Once upon a time, there was a little girl named Lily.'* ]] ||
  fail "the example wrote: $text"
[[ "$(ldd "$work/minimal")" == *"$work/root"* ]] || fail "another library"
LD_LIBRARY_PATH='' "$work/root/usr/bin/flashelm" --version >"$work/version"
grep -q "flashelm $version" "$work/version" ||
  fail "another version: $(cat "$work/version")"
