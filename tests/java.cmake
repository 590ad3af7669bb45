# The example in Java, on a virtual machine of the desktop.
find_package(Java 17 QUIET COMPONENTS Development Runtime)
if(NOT Java_FOUND)
  add_test(NAME library.ExampleInJava
    COMMAND ${CMAKE_COMMAND} -E echo "no JDK 17 is installed")
  set_tests_properties(library.ExampleInJava PROPERTIES
    SKIP_REGULAR_EXPRESSION "is installed")
  return()
endif()

# FindJNI asks for libraries of windows, too, which a headless JDK lacks.
get_filename_component(javac ${Java_JAVAC_EXECUTABLE} REALPATH)
get_filename_component(java_home ${javac}/../.. ABSOLUTE)
find_path(FLASHELM_JNI_INCLUDE jni.h HINTS ${java_home}/include
  NO_DEFAULT_PATH REQUIRED)
find_path(FLASHELM_JNI_MD_INCLUDE jni_md.h HINTS ${java_home}/include/linux
  NO_DEFAULT_PATH REQUIRED)
mark_as_advanced(FLASHELM_JNI_INCLUDE FLASHELM_JNI_MD_INCLUDE)

add_library(example_jni MODULE ${PROJECT_SOURCE_DIR}/examples/jni/flashelm_jni.cc)
set_target_properties(example_jni PROPERTIES
  OUTPUT_NAME flashelm_jni
  CXX_STANDARD 17 CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden)
target_compile_options(example_jni PRIVATE -Wall -Wextra -Wpedantic -Werror)
target_include_directories(example_jni SYSTEM PRIVATE
  ${FLASHELM_JNI_INCLUDE} ${FLASHELM_JNI_MD_INCLUDE})
target_link_libraries(example_jni PRIVATE flashelm::flashelm)

set(classes ${CMAKE_CURRENT_BINARY_DIR}/java)
set(sources
  ${PROJECT_SOURCE_DIR}/examples/jni/flashelm/FlashelmException.java
  ${PROJECT_SOURCE_DIR}/examples/jni/flashelm/Story.java
  ${PROJECT_SOURCE_DIR}/examples/jni/flashelm/TextModel.java
  ${CMAKE_CURRENT_SOURCE_DIR}/jni/flashelm/TextModelTest.java)
add_custom_command(OUTPUT ${classes}.stamp
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${classes}
  COMMAND ${Java_JAVAC_EXECUTABLE} --release 17 -Xlint:all -Werror
    -d ${classes} ${sources}
  COMMAND ${CMAKE_COMMAND} -E touch ${classes}.stamp
  DEPENDS ${sources} COMMENT "Compiling Java" VERBATIM)
add_custom_target(example_java ALL DEPENDS ${classes}.stamp)

set(java ${Java_JAVA_EXECUTABLE} -Xmx64m
  -Djava.library.path=$<TARGET_FILE_DIR:example_jni> -cp ${classes})
add_test(NAME library.ExampleInJava
  COMMAND ${run} ${java} flashelm.Story ${model} 4 "Once upon a time")
set_tests_properties(library.ExampleInJava PROPERTIES
  PASS_REGULAR_EXPRESSION "${story}.*40 tokens.*exit code 0[\r\n]*$")
# Warns of a reference that stays, and of a call that an exception forbids. Only
# on Android is the number of a descriptor to be had without asking for it.
add_test(NAME library.ExampleInJavaKeepsItsPromises
  COMMAND ${run} ${java} -Xcheck:jni -ea --add-opens java.base/java.io=ALL-UNNAMED
    flashelm.TextModelTest ${model})
set_tests_properties(library.ExampleInJavaKeepsItsPromises PROPERTIES
  LABELS slow PASS_REGULAR_EXPRESSION "all passed.*exit code 0[\r\n]*$"
  FAIL_REGULAR_EXPRESSION "WARNING|FATAL|Exception in")
set_tests_properties(library.ExampleInJava
  library.ExampleInJavaKeepsItsPromises PROPERTIES
  FIXTURES_REQUIRED library_sample TIMEOUT 600)
