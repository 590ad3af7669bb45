# The library as others get it: packages, binary interface, documentation.
add_test(NAME library.HeaderIsDocumented
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/package/doxygen_test.sh
    ${PROJECT_SOURCE_DIR})
set_tests_properties(library.HeaderIsDocumented PROPERTIES LABELS slow)
