# Builds for aarch64 on Debian with its cross compiler and with libraries of the
# foreign architecture arm64, which lie beside those of the machine itself and
# not in a root of their own. `scripts/install-packages.sh aarch64` installs all
# of it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# Headers and the files of packages without code are shared with the machine;
# libraries have a folder of their own.
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
# In place of the machine's own: what has no arm64 package is not there.
set(ENV{PKG_CONFIG_LIBDIR}
  /usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig)
set(ENV{PKG_CONFIG_PATH} "")

# The loader and the C library are where programs look for them, so no prefix is
# needed. The CPU is chosen when a program runs: by QEMU_CPU.
find_program(FLASHELM_QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
mark_as_advanced(FLASHELM_QEMU_AARCH64)
if(FLASHELM_QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${FLASHELM_QEMU_AARCH64})
endif()
