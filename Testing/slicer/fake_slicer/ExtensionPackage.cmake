# Checks what the Extensions Manager shows of an extension and writes it to <build>/<extension>.s4ext, a line
# "<name in small letters> <value>" each.

foreach(_file IN ITEMS EXTENSION_README_FILE EXTENSION_LICENSE_FILE)
  if(NOT EXISTS "${${_file}}")
    message(FATAL_ERROR "${_file} is no file: ${${_file}}")
  endif()
endforeach()

set(_description "")
foreach(_name IN ITEMS HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${_name}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${_name} is empty")
  endif()
  string(TOLOWER "${_name}" _word)
  string(APPEND _description "${_word} ${EXTENSION_${_name}}\n")
endforeach()
file(WRITE "${CMAKE_BINARY_DIR}/${EXTENSION_NAME}.s4ext" "${_description}")
