# cmake -DSOURCE=DIR -DOUTPUT=FILE -P build_commit.cmake: writes a header with
# the commit that SOURCE has checked out, "" where it is no repository of its
# own. Runs with every build, and touches the file only when it changes.
set(commit "")
find_program(git git)
if(git AND EXISTS "${SOURCE}/.git")
  execute_process(
    # Whoever uses the repository meanwhile is not to wait for a lock.
    COMMAND ${CMAKE_COMMAND} -E env GIT_OPTIONAL_LOCKS=0
      "${git}" describe --always --dirty --exclude "*"
    WORKING_DIRECTORY "${SOURCE}"
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    set(commit "")
  endif()
endif()
set(text "#define FLASHELM_BUILD_COMMIT \"${commit}\"\n")
set(old "")
if(EXISTS "${OUTPUT}")
  file(READ "${OUTPUT}" old)
endif()
if(NOT old STREQUAL text)
  file(WRITE "${OUTPUT}" "${text}")
endif()
