# What another extension's find_package(<this one>) would read.

file(WRITE "${CMAKE_BINARY_DIR}/${EXTENSION_NAME}Config.cmake" "set(${EXTENSION_NAME}_FOUND TRUE)\n")
