# The installed package: find_package(athanor COMPONENTS core train). `core` never sees LibTorch.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/athanor)
get_property(_core GLOBAL PROPERTY ATHANOR_INSTALLED_CORE)
get_property(_train GLOBAL PROPERTY ATHANOR_INSTALLED_TRAIN)
foreach(_component IN ITEMS core train)
  if(NOT _${_component})
    continue()
  endif()
  install(TARGETS ${_${_component}} EXPORT athanor_${_component}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT athanor_${_component} NAMESPACE athanor:: FILE athanor_${_component}.cmake DESTINATION ${_package_dir})
  # One name for all of a component.
  set(_names ${_${_component}})
  list(TRANSFORM _names REPLACE "^athanor_" "athanor::")
  string(REPLACE ";" " " _names "${_names}")
  set(ATHANOR_${_component}_TARGETS "${_names}")
endforeach()

configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/athanorConfig.cmake.in ${CMAKE_BINARY_DIR}/athanorConfig.cmake
  INSTALL_DESTINATION ${_package_dir})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/athanorConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/athanorConfig.cmake ${CMAKE_BINARY_DIR}/athanorConfigVersion.cmake
  ${CMAKE_SOURCE_DIR}/cmake/Torch.cmake ${CMAKE_SOURCE_DIR}/cmake/athanorTask.cmake DESTINATION ${_package_dir})
if(ATHANOR_BUILD_TRAIN)
  install(FILES common/athanor/task/task.h common/athanor/task/task_options.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/athanor/task)
endif()
# What a stranger reads and starts from. README.md links to docs/, and finds it.
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs FILES_MATCHING PATTERN "*.md")
install(DIRECTORY examples/ DESTINATION ${CMAKE_INSTALL_DATADIR}/athanor/examples PATTERN CMakeLists.txt EXCLUDE
  PATTERN "*.pt" EXCLUDE PATTERN "*.npy" EXCLUDE PATTERN "*.train_step" EXCLUDE PATTERN __pycache__ EXCLUDE)
install(DIRECTORY tests/package/consumer/ DESTINATION ${CMAKE_INSTALL_DATADIR}/athanor/examples/project)
install(DIRECTORY deploy/ DESTINATION ${CMAKE_INSTALL_DATADIR}/athanor/deploy)
install(PROGRAMS scripts/export_train_step.py scripts/wandb_import.py DESTINATION ${CMAKE_INSTALL_DATADIR}/athanor/scripts)
install(DIRECTORY scripts/athanor_train_step DESTINATION ${CMAKE_INSTALL_DATADIR}/athanor/scripts FILES_MATCHING PATTERN "*.py")

set(_programs)
foreach(_program IN ITEMS athanord athanor-agent athanor-trainer athanor)
  if(TARGET ${_program})
    list(APPEND _programs ${_program})
  endif()
endforeach()
if(_programs)
  install(TARGETS ${_programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
