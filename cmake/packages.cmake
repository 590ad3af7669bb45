# Debian packages, which `cpack` makes of what `cmake --install` installs:
#
#   libflashelm0     the shared library
#   libflashelm-dev  what programs are compiled with, and the static library
#   flashelm         the command, its manual pages and completions
#
# With CMAKE_INSTALL_PREFIX=/usr libraries go where Debian has them.
set(parts runtime development)
set(runtime_package libflashelm${FLASHELM_SOVERSION})
set(development_package libflashelm-dev)
set(tools_package flashelm)
if(FLASHELM_BUILD_CLI)
  list(APPEND parts tools)
endif()
# Each says whose code was compiled in: headers, and archives that the command
# links. Debian keeps the notices of every package it installs here.
set(library_code libexpected-dev libeigen3-dev libfmt-dev libhwy-dev
  nlohmann-json3-dev)
if(uring_FOUND)
  list(APPEND library_code liburing-dev)
endif()
set(tools_code ${library_code} libcli11-dev libxxhash-dev libzstd-dev)
# Not of a copy that is installed by hand.
foreach(part IN LISTS parts)
  set(copyright ${PROJECT_BINARY_DIR}/packages/${part}/copyright)
  file(READ ${PROJECT_SOURCE_DIR}/LICENSE text)
  set(code ${library_code})
  if(part STREQUAL tools)
    set(code ${tools_code})
  endif()
  foreach(package IN LISTS code)
    set(notice /usr/share/doc/${package}/copyright)
    if(EXISTS ${notice})
      file(READ ${notice} notice_text)
      string(APPEND text "\n\nThis package has code of Debian's package "
        "${package}, whose notice says:\n\n${notice_text}")
    else()
      message(STATUS "Packages will lack the notice of ${package}: there is no "
        "${notice}")
    endif()
  endforeach()
  file(WRITE ${copyright} "${text}")
  install(FILES ${copyright}
    DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${${part}_package}
    COMPONENT ${part} EXCLUDE_FROM_ALL)
endforeach()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL ${parts})
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
# Whoever makes packages for others puts a name and an address here.
set(CPACK_PACKAGE_CONTACT "FlashELM contributors")
# Each has a first line of its own.
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")
set(about
  "FlashELM runs Apple's OpenELM language models on machines whose free RAM is
smaller than the model: weights stay on flash storage, and what fits into a
memory budget is kept in RAM.")

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME ${runtime_package})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION
  "language models from flash, under a memory budget (library)\n${about}\n
This package has the shared library.")

set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS runtime)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME ${development_package})
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
# What the static library is linked with; the shared one needs none of it.
string(REPLACE " " ";" modules "${FLASHELM_PC_REQUIRES}")
list(TRANSFORM modules REPLACE "^lib" "")
list(TRANSFORM modules PREPEND lib)
list(TRANSFORM modules APPEND -dev)
list(JOIN modules ", " CPACK_DEBIAN_DEVELOPMENT_PACKAGE_RECOMMENDS)
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION
  "language models from flash, under a memory budget (headers)\n${about}\n
This package has the headers for C and C++, the static library, and what
pkg-config and CMake find them by.")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME ${tools_package})
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
if(FLASHELM_HAS_LIBEDIT)
  # Loaded by `flashelm chat` where it is there.
  set(CPACK_DEBIAN_TOOLS_PACKAGE_RECOMMENDS libedit2)
endif()
set(CPACK_DEBIAN_TOOLS_DESCRIPTION
  "language models from flash, under a memory budget (command)\n${about}\n
This package has the command flashelm, which converts, runs and measures
models, its manual pages, and completion for bash, zsh and fish.")

# So that other packages come to depend on the library by themselves.
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
include(CPack)
