#!/usr/bin/env bash
# Installs what FlashELM is built from: the one list of packages.
#
#   scripts/install-packages.sh [build|test|aarch64]
#
#   build    what the command `flashelm` needs
#   test     the same and what its tests need (default)
#   aarch64  the same and what scripts/test-aarch64.sh needs: a cross compiler,
#            an emulator, and libraries of the architecture arm64, which is
#            added to those that this system installs packages of
#
# For Debian 12, Ubuntu 24.04 and later; aarch64 for Debian 12 on another
# architecture. Installs what is missing and nothing
# else, with sudo only when it is not run by root; a second run does nothing. On
# other systems it says what to install, and leaves the verdict to CMake.
set -euo pipefail

build_packages=(
  g++                  # C++20: GCC 12
  cmake                # 3.21 or later
  ninja-build
  pkg-config
  libhwy-dev           # SIMD with run-time dispatch
  libfmt-dev           # formatting
  libexpected-dev      # tl::expected
  nlohmann-json3-dev   # JSON
  libcli11-dev         # command line
  libxxhash-dev        # checksums
  libzstd-dev          # compression of the model file's directory
  libeigen3-dev        # training of predictors; the reference in tests
)
# Without these the build goes on and leaves something out.
optional_packages=(
  liburing-dev         # io_uring; elsewhere threads read with pread
  libedit-dev          # editing and history in chat; elsewhere plain lines
)
test_packages=(
  libgtest-dev
  libbenchmark-dev     # the benchmarks in bench/
  libsentencepiece-dev # the reference for the tokenizer
  python3-jsonschema   # what bench writes, against docs/bench.schema.json
  man-db               # the manual pages, as a reader sees them
  mandoc               # and what is wrong with them
  zsh                  # its completion; that of bash needs nothing
  fish                 # the same
  shellcheck           # the scripts
  dpkg-dev             # the Debian packages
  file                 # the same
  abigail-tools        # the library's binary interface
  doxygen              # what the header documents
  openjdk-17-jdk-headless # the example in Java
)
# Without these a test skips, or .ci/run takes longer.
optional_test_packages=(
  ccache               # compiles once what two presets of .ci/run share
  chromium             # bench's report in a browser
)
# What cannot be installed beside the same package of this machine is missing
# here: of sentencepiece, tests have stored answers.
foreign=arm64
aarch64_packages=(
  g++-aarch64-linux-gnu
  qemu-user            # runs what was built
  "libhwy-dev:$foreign"
  "libfmt-dev:$foreign"
  "libxxhash-dev:$foreign"
  "libzstd-dev:$foreign"
  "libgtest-dev:$foreign"
)
optional_aarch64_packages=(
  "liburing-dev:$foreign"
  "libedit-dev:$foreign"
)

case "${1:-test}" in
  build) wanted=("${build_packages[@]}") ;;
  test)
    wanted=("${build_packages[@]}" "${test_packages[@]}")
    optional_packages+=("${optional_test_packages[@]}")
    ;;
  aarch64)
    wanted=("${build_packages[@]}" "${test_packages[@]}"
      "${aarch64_packages[@]}")
    optional_packages+=("${optional_test_packages[@]}"
      "${optional_aarch64_packages[@]}")
    ;;
  *)
    echo "usage: $0 [build|test|aarch64]" >&2
    exit 2
    ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "This system has no apt-get. Please see to it that these are there; on" \
    "Debian they are called:"
  printf '  %s\n' "${wanted[*]}"
  printf '  %s (not necessary)\n' "${optional_packages[@]}"
  exit 0
fi

# Of one name there can be packages of several architectures.
native="$(dpkg --print-architecture)"
is_installed() {
  local name="${1%:*}" architecture="$native"
  if [[ "$1" == *:* ]]; then architecture="${1#*:}"; fi
  dpkg-query -W -f '${db:Status-Status} ${Architecture}\n' "$name" 2>/dev/null |
    grep -Eqx "installed ($architecture|all)"
}
missing=()
for package in "${wanted[@]}"; do
  is_installed "$package" || missing+=("$package")
done
missing_optional=()
for package in "${optional_packages[@]}"; do
  is_installed "$package" || missing_optional+=("$package")
done
((${#missing[@]} + ${#missing_optional[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "Not root, and there is no sudo. Please have these installed:"
    printf '  %s\n' "${missing[@]}" "${missing_optional[@]}"
    if [[ "${1:-}" == aarch64 ]]; then
      echo "after: dpkg --add-architecture $foreign"
    fi
    exit 0
  fi
  as_root=(sudo)
fi

if [[ "${1:-}" == aarch64 ]] &&
  ! dpkg --print-foreign-architectures | grep -qx "$foreign"; then
  echo "Adding $foreign to the architectures that this system installs packages" \
    "of (dpkg --add-architecture $foreign)"
  "${as_root[@]}" dpkg --add-architecture "$foreign"
fi
echo "Installing packages: ${missing[*]} ${missing_optional[*]}"
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null
}
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
# Package lists that cannot be renewed may still be good enough to install from.
apt update >"$log" 2>&1 ||
  echo "The package lists could not be renewed; trying with those there are."
for package in "${missing_optional[@]}"; do
  apt install -y --no-install-recommends "$package" >>"$log" 2>&1 ||
    echo "Could not install $package; the build or a test will do without."
done
((${#missing[@]})) || exit 0
if ! apt install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
  cat "$log" >&2
  echo "Could not install: ${missing[*]}" >&2
  exit 1
fi
