# The library as others get it: packages, binary interface, documentation.
if(FLASHELM_BUILD_CLI AND FLASHELM_INSTALL)
  add_test(NAME library.DebianPackages
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/package/deb_test.sh
      ${PROJECT_BINARY_DIR} ${PROJECT_SOURCE_DIR} ${model})
  set_tests_properties(library.DebianPackages PROPERTIES
    FIXTURES_REQUIRED library_sample TIMEOUT 600 LABELS slow
    SKIP_RETURN_CODE 77)
endif()

# Its types are in the debug information of the files that implement it.
target_compile_options(flashelm_c_api PRIVATE -g)
add_test(NAME library.BinaryInterfaceIsAsRecorded
  COMMAND ${PROJECT_SOURCE_DIR}/scripts/abi.sh check
    $<TARGET_FILE:flashelm_shared>)
add_test(NAME library.BinaryInterfaceNoticesChanges
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/package/abi_test.sh
    $<TARGET_FILE:flashelm_shared> ${PROJECT_SOURCE_DIR})
set_tests_properties(library.BinaryInterfaceIsAsRecorded
  library.BinaryInterfaceNoticesChanges PROPERTIES
  TIMEOUT 600 LABELS slow SKIP_RETURN_CODE 77)

add_test(NAME library.HeaderIsDocumented
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/package/doxygen_test.sh
    ${PROJECT_SOURCE_DIR})
set_tests_properties(library.HeaderIsDocumented PROPERTIES LABELS slow)
