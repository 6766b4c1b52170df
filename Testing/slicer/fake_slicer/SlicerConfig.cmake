# Stand-in for the CMake package of a Slicer build, for extensions that hold only Python: enough to configure and
# install one without Slicer, a compiler or a build tool.
#
#   cmake -DSlicer_DIR=<this folder> -S <extension> -B <build> && cmake --install <build> --component RuntimeLibraries
#
# Files go to <build>/<modules folder> when configuring (Slicer: when building) and from there, with everything else
# that lies there, to the installation.

set(Slicer_FOUND TRUE)
set(Slicer_VERSION "5.12")
set(Slicer_USE_PYTHONQT TRUE)
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/ExtensionConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/ExtensionPackage.cmake")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-${Slicer_VERSION}/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
