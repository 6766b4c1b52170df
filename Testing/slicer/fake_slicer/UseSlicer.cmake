# What a scripted extension's CMakeLists.txt may call: slicerMacroBuildScriptedModule, slicer_add_python_unittest.

set(EXTENSION_NAME "${PROJECT_NAME}")
if(EXTENSION_NAME MATCHES "^(Project|Slicer)?$")
  message(FATAL_ERROR "call project(<extension name>) before including Slicer's use file")
endif()

include(CTest)

# Give in `target` where a listed file goes below the modules folder. An absolute path is seen from the build folder,
# so one from the source tree lands outside: list paths relative to the CMakeLists.txt.
function(_target_of file target)
  if(IS_ABSOLUTE "${file}")
    file(RELATIVE_PATH file "${CMAKE_CURRENT_BINARY_DIR}" "${file}")
  endif()
  set(${target} "${file}" PARENT_SCOPE)
endfunction()

# Copy one listed file to the build tree, its subfolders kept.
function(_place_file module file folder)
  get_filename_component(source "${file}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
  if(NOT EXISTS "${source}" OR IS_DIRECTORY "${source}")
    message(FATAL_ERROR "${module} lists a file that does not exist: ${file}")
  endif()
  _target_of("${file}" target)
  configure_file("${source}" "${folder}/${target}" COPYONLY)
endfunction()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown words in slicerMacroBuildScriptedModule: ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  if("${MODULE_NAME}" STREQUAL "" OR "${MODULE_SCRIPTS}" STREQUAL "")
    message(FATAL_ERROR "slicerMacroBuildScriptedModule needs NAME and SCRIPTS")
  endif()

  # With WITH_SUBDIR the folder's name stays in the installation, else its content goes beside other modules.
  set(_folder "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
  set(_installed "${_folder}/")
  if(MODULE_WITH_SUBDIR)
    get_filename_component(_subfolder "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
    set(_folder "${_folder}/${_subfolder}")
    set(_installed "${_folder}")
  endif()

  foreach(_file IN LISTS MODULE_SCRIPTS)
    if(NOT _file MATCHES "\\.py$")
      string(APPEND _file ".py")
    endif()
    _place_file("${MODULE_NAME}" "${_file}" "${_folder}")
  endforeach()
  foreach(_file IN LISTS MODULE_RESOURCES)
    _place_file("${MODULE_NAME}" "${_file}" "${_folder}")
  endforeach()
  install(
    DIRECTORY "${_installed}"
    DESTINATION "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"
    COMPONENT RuntimeLibraries
    )
endmacro()

# Slicer runs the test class <script>Test inside the application; here the test is only known by its name.
macro(slicer_add_python_unittest)
  cmake_parse_arguments(UNITTEST "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(UNITTEST_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown words in slicer_add_python_unittest: ${UNITTEST_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${UNITTEST_SCRIPT}")
    message(FATAL_ERROR "slicer_add_python_unittest: no file ${UNITTEST_SCRIPT}")
  endif()
  get_filename_component(_test "${UNITTEST_SCRIPT}" NAME_WE)
  add_test(NAME "py_${UNITTEST_TESTNAME_PREFIX}${_test}" COMMAND ${CMAKE_COMMAND} -E true)
endmacro()
