#!/usr/bin/env bash
# Installs the libraries, moves the copy, and uses it as an application would.
#
#   package_test.sh BUILD_DIR SOURCE_DIR MODEL.felm WHAT
#
# WHAT: symbols, readme, pkg-config, find-package or subproject.
set -euo pipefail
build="$1" source="$2" model="$3" what="$4"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "$*"; }; }

prefix="$work/moved"
install_copy() {
  for component in runtime development; do
    quietly cmake --install "$build" --component "$component" \
      --prefix "$work/first"
  done
  mv "$work/first" "$prefix"
  libdir="$(dirname "$(find "$prefix" -name libflashelm.a)")"
  export PKG_CONFIG_PATH="$libdir/pkgconfig" LD_LIBRARY_PATH="$libdir"
}

# expect_story COMMAND...: it prints what the model writes, within 4 MiB.
story='Once upon a time, there was a little girl named Lily.'
expect_story() {
  local text
  text="$("$@" "$model" 4 'Once upon a time' 2>"$work/log")" || {
    cat "$work/log" >&2
    fail "$*"
  }
  [[ "$text" == "$story"* ]] || fail "$* wrote: $text"
}

case "$what" in
  symbols)
    install_copy
    library="$libdir/libflashelm.so"
    # The interface and nothing else is to be seen.
    nm -D --defined-only "$library" | awk '{print $3}' |
      sed 's/@.*//' | sort -u >"$work/exported"
    grep -o 'flashelm_[a-z_]*(' "$source/include/flashelm/flashelm.h" |
      tr -d '(' | sort -u >"$work/mentioned"
    others="$(grep -v '^flashelm_\|^FLASHELM_0$' "$work/exported" || true)"
    [[ -z "$others" ]] || fail "exported as well: $others"
    sed -n '/^FLASHELM_API/,/;/p' "$source/include/flashelm/flashelm.h" |
      grep -o 'flashelm_[a-z_]*(' | tr -d '(' | sort -u >"$work/declared"
    [[ "$(wc -l <"$work/declared")" -ge 20 ]] || fail "no declarations found"
    grep -v '^FLASHELM_0$' "$work/exported" | diff - "$work/declared" ||
      fail "what is exported is not what is declared"
    # A guest: what would end the process, print, read the environment or install
    # a handler.
    nm -D --undefined-only "$library" | awk '{print $NF}' |
      sed 's/@.*//' >"$work/called"
    grep -qx 'pread' "$work/called" || fail "no list of what is called"
    cat >"$work/no_guest" <<'EOF'
_?exit|quick_exit|abort|raise|kill|__assert_fail|atexit
(__)?(v|d|vd)?f?printf(_chk)?|f?puts|f?putc|putchar|fwrite|write|perror|syslog
std(out|err)|.*4cout.*|.*4cerr.*
(secure_)?getenv|setenv|signal|sigaction|sigprocmask|pthread_sigmask
EOF
    ! grep -xEf "$work/no_guest" "$work/called" || fail "no guest does this"
    # Into a file: a pipe that grep -q leaves early is an error of objdump.
    objdump -p "$library" >"$work/headers"
    grep -q 'SONAME *libflashelm.so.0$' "$work/headers" || fail "another SONAME"
    readelf -lW "$library" | awk '$1 == "LOAD" {print $NF}' >"$work/aligned"
    [[ -s "$work/aligned" ]] || fail "no segments"
    ! grep -vx '0x4000' "$work/aligned" || fail "pages that are not 16 KiB"
    ;;
  readme)
    install_copy
    # The programs that the README shows, as pasted.
    for language in c cc; do
      header="$([[ "$language" == c ]] && echo h || echo hpp)"
      awk -v first="    #include <flashelm/flashelm.$header>" \
        '$0 == first {on = 1}
         on && !/^    / && !/^$/ {exit}
         on {print substr($0, 5)}' "$source/README.md" >"$work/story.$language"
      [[ -s "$work/story.$language" ]] || fail "no program in the README"
      build_line="$(grep -o 'cc story.c .*' "$source/README.md")"
      if [[ "$language" == cc ]]; then
        build_line="c++ -std=c++17 ${build_line/#cc story.c/story.cc}"
      fi
      (cd "$work" && quietly bash -c "$build_line")
      text="$("$work/story" "$model")" || fail "the README's program"
      [[ "$text" == "${story#Once upon a time}"* ]] || fail "it wrote: $text"
    done
    ;;
  pkg-config)
    install_copy
    for name in flashelm flashelm-static; do
      read -ra flags < <(pkg-config --cflags --libs "$name")
      quietly cc -std=c99 -Wall -Wextra -Wpedantic -Werror \
        "$source/examples/c/minimal.c" -o "$work/c" "${flags[@]}"
      expect_story "$work/c"
      quietly c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror \
        "$source/examples/cpp/stream.cc" -o "$work/cpp" "${flags[@]}" -pthread
      quietly "$work/cpp" "$model" 4 'Once upon a time' 30
      if [[ "$name" == flashelm-static ]]; then
        [[ "$(ldd "$work/c")" != *libflashelm* ]] || fail "not linked statically"
      fi
    done
    ;;
  find-package)
    install_copy
    quietly cmake -S "$source/tests/package/consumer" -B "$work/consumer" \
      -DCMAKE_PREFIX_PATH="$prefix" -DEXAMPLES="$source/examples" \
      -DCMAKE_BUILD_TYPE=Release
    quietly cmake --build "$work/consumer"
    unset LD_LIBRARY_PATH
    for kind in shared static; do
      expect_story "$work/consumer/c_$kind"
      quietly "$work/consumer/cpp_$kind" "$model" 4 'Once upon a time' 30
    done
    ;;
  subproject)
    cmake -G Ninja -S "$source/tests/package/subproject" -B "$work/subproject" \
      -DFLASHELM="$source" -DCMAKE_CXX_FLAGS=-O0 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    ! grep -i 'warning\|flashelm:' "$work/log" || fail "it is not quiet"
    # Nothing that nobody asked for is in `all`.
    cmake --build "$work/subproject" --target help >"$work/targets"
    ! grep -q 'flashelm_cli\|_test' "$work/targets" || fail "too many targets"
    quietly cmake --build "$work/subproject" --target application
    expect_story "$work/subproject/application"
    ;;
  *) fail "what is $what?" ;;
esac
