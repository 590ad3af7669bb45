include(CheckLinkerFlag)
# Not every C library applies relocations in this form: glibc since 2.36, which
# the linker asks for by a version, and Android's since API 30. A linker that
# has it for other processors only says so in a warning.
if(NOT ANDROID OR CMAKE_SYSTEM_VERSION GREATER_EQUAL 30)
  check_linker_flag(CXX "-Wl,--fatal-warnings,-z,pack-relative-relocs"
    FLASHELM_PACKS_RELOCATIONS)
endif()

# flashelm_target(NAME): the settings that every target of this project shares,
# set on the target so that nothing leaks into a project that includes us.
function(flashelm_target name)
  target_compile_features(${name} PUBLIC cxx_std_20)
  set_target_properties(${name} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  # Contraction would let the compiler choose where a product is rounded, and
  # results must not depend on that; kernels ask for fused operations by name.
  target_compile_options(${name} PRIVATE
    -Wall -Wextra -Wpedantic -Wshadow -ffp-contract=off
    -ffunction-sections -fdata-sections
    $<$<BOOL:${FLASHELM_WERROR}>:-Werror>)
  # Code that nothing calls would still be mapped, and so be planned for.
  target_link_options(${name} PRIVATE
    $<$<NOT:$<PLATFORM_ID:Darwin>>:-Wl,--gc-sections>)
  # Relocations of tables of addresses take a bit each in place of 24 bytes.
  if(FLASHELM_PACKS_RELOCATIONS)
    target_link_options(${name} PRIVATE -Wl,-z,pack-relative-relocs)
  endif()
  if(FLASHELM_SANITIZE)
    target_compile_options(${name} PRIVATE
      -fsanitize=${FLASHELM_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${name} PRIVATE -fsanitize=${FLASHELM_SANITIZE})
    target_compile_definitions(${name} PRIVATE FLASHELM_SANITIZED=1)
    if(FLASHELM_SANITIZE MATCHES "thread")
      target_compile_definitions(${name} PRIVATE FLASHELM_THREAD_SANITIZED=1)
    endif()
  endif()
endfunction()

# Sources whose code is called so seldom that its size, which counts against the
# memory budget, matters more than its speed.
function(flashelm_small_code)
  set_property(SOURCE ${ARGN} APPEND PROPERTY
    COMPILE_OPTIONS $<$<CONFIG:Release>:-Os>)
endfunction()

# flashelm_from_archive(NAME): target flashelm_NAME, the library of the module
# NAME of pkg-config. Programs link its archive, where there is one: a shared
# library is mapped, and so planned for, whole. An archive need not be code that
# a shared library can hold, so those link the shared one.
function(flashelm_from_archive name)
  find_library(FLASHELM_${name}_ARCHIVE
    ${CMAKE_STATIC_LIBRARY_PREFIX}${name}${CMAKE_STATIC_LIBRARY_SUFFIX}
    HINTS ${${name}_LIBDIR})
  mark_as_advanced(FLASHELM_${name}_ARCHIVE)
  add_library(flashelm_${name} INTERFACE)
  if(FLASHELM_${name}_ARCHIVE)
    set(is_program $<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>)
    target_link_libraries(flashelm_${name} INTERFACE
      $<IF:${is_program},${FLASHELM_${name}_ARCHIVE},PkgConfig::${name}>)
    target_include_directories(flashelm_${name} SYSTEM INTERFACE
      ${${name}_INCLUDE_DIRS})
  else()
    target_link_libraries(flashelm_${name} INTERFACE PkgConfig::${name})
  endif()
endfunction()
