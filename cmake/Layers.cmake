# THE module graph. A target may link only what its row allows; athanor_module() refuses anything else.
# F = never sees LibTorch, T = needs it.
#            target                    allowed athanor targets
set(_layer_athanor_base                "")                                                                                         # F
set(_layer_athanor_contract            "")                                                                                         # F: what trainer, library and service agree on
set(_layer_athanor_config              "athanor_base")                                                                             # F
set(_layer_athanor_optim_schedule      "athanor_base")                                                                             # F
set(_layer_athanor_parallel_plan       "athanor_base;athanor_config")                                                              # F
set(_layer_athanor_parallel_transport  "athanor_base")                                                                             # F
set(_layer_athanor_checkpoint_policy   "athanor_base")                                                                             # F: the coordinator's too
set(_layer_athanor_checkpoint_plan     "athanor_base;athanor_config;athanor_contract;athanor_parallel_plan;athanor_checkpoint_policy") # F
set(_layer_athanor_torch_support       "athanor_base;athanor_contract")                                                            # T
set(_layer_athanor_nested              "athanor_torch_support")                                                                    # T
set(_layer_athanor_io                  "athanor_torch_support;athanor_checkpoint_plan")                                            # T
set(_layer_athanor_parallel            "athanor_torch_support;athanor_parallel_plan;athanor_parallel_transport;athanor_config")                               # T
set(_layer_athanor_metrics             "athanor_torch_support;athanor_nested;athanor_parallel")                                    # T
set(_layer_athanor_optim               "athanor_torch_support;athanor_optim_schedule;athanor_config")                              # T
set(_layer_athanor_data                "athanor_torch_support;athanor_nested;athanor_io;athanor_parallel_plan")                    # T
set(_layer_athanor_tools               "athanor_torch_support;athanor_nested;athanor_io;athanor_data;athanor_config")              # T
set(_layer_athanor_checkpoint          "athanor_io;athanor_parallel;athanor_checkpoint_plan")                                      # T
set(_layer_athanor_exchange            "athanor_checkpoint;athanor_io;athanor_checkpoint_plan;athanor_parallel_plan")                # T: checkpoints for and from other programs
set(_layer_athanor_runner              "athanor_checkpoint;athanor_exchange;athanor_parallel;athanor_optim;athanor_data;athanor_metrics;athanor_config") # T
set(_layer_athanor_proto               "")                                                                                         # F
set(_layer_athanor_service             "athanor_base;athanor_proto;athanor_contract")                                              # F
set(_layer_athanor_server_core         "athanor_base;athanor_contract;athanor_checkpoint_policy")                                  # F, pure: no protobuf, no gRPC
set(_layer_athanor_server_convert      "athanor_server_core;athanor_service;athanor_config")                                       # F: core structs <-> messages
set(_layer_athanor_server_storage      "athanor_server_convert;athanor_server_core;athanor_service")                               # F
set(_layer_athanor_server_views        "athanor_server_storage;athanor_server_convert;athanor_server_core;athanor_service")                # F: what is shown
set(_layer_athanor_server_runtime      "athanor_server_storage;athanor_server_core;athanor_service;athanor_server_observability")  # F
set(_layer_athanor_server_observability "athanor_server_core;athanor_service")                                                     # F
set(_layer_athanor_server_rpc          "athanor_server_runtime;athanor_server_views;athanor_config;athanor_service")                                    # F
set(_layer_athanord                    "athanor_server_rpc")                                                                       # F
set(_layer_athanor_agent_lib           "athanor_service")                                                                          # F
set(_layer_athanor-agent               "athanor_agent_lib")                                                                        # F
set(_layer_athanor_task                "athanor_runner;athanor_data;athanor_metrics;athanor_config")                               # T: worker/tasks
set(_layer_athanor_trainer_link        "athanor_service;athanor_contract")                                                         # F: gRPC side of the trainer
set(_layer_athanor_trainer_lib         "athanor_task;athanor_runner;athanor_trainer_link")                                         # T
set(_layer_athanor-trainer             "athanor_trainer_lib")                                                                      # T
set(_layer_athanor_client              "athanor_service;athanor_config")                                                           # F
set(_layer_athanor                     "athanor_client")                                                                           # F: the command line

# athanor_module(NAME [EXECUTABLE|SHARED] [TORCH] SOURCES a.cc ... [HEADERS a.h ...] [DEPS athanor_x ...] [EXTERNAL lib ...])
# HEADERS are the module's public headers: they are installed with the package. Include root: common/, server/.. (the tree's root).
function(athanor_module name)
  cmake_parse_arguments(M "EXECUTABLE;TORCH" "" "SOURCES;HEADERS;DEPS;EXTERNAL" ${ARGN})
  if(NOT DEFINED _layer_${name})
    message(FATAL_ERROR "${name} has no row in cmake/Layers.cmake")
  endif()
  foreach(dep IN LISTS M_DEPS)
    if(NOT dep IN_LIST _layer_${name})
      message(FATAL_ERROR "layering: ${name} may not depend on ${dep} (allowed: ${_layer_${name}})")
    endif()
  endforeach()
  if(M_EXECUTABLE)
    add_executable(${name} ${M_SOURCES})
    set(scope PRIVATE)
  else()
    add_library(${name} STATIC ${M_SOURCES})
    set(scope PUBLIC)
    add_library(athanor::${name} ALIAS ${name})
  endif()
  target_compile_features(${name} ${scope} cxx_std_20)
  target_include_directories(${name} ${scope} $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/common>)
  if(M_HEADERS)
    target_sources(${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR}/common FILES ${M_HEADERS})
  endif()
  if(CMAKE_CURRENT_SOURCE_DIR MATCHES "^${CMAKE_SOURCE_DIR}/common/athanor/" AND NOT M_EXECUTABLE)  # the library
    string(REGEX REPLACE "^athanor_" "" exported ${name})
    set_target_properties(${name} PROPERTIES EXPORT_NAME ${exported})
    if(M_TORCH)
      set_property(GLOBAL APPEND PROPERTY ATHANOR_INSTALLED_TRAIN ${name})
    else()
      set_property(GLOBAL APPEND PROPERTY ATHANOR_INSTALLED_CORE ${name})
    endif()
  endif()
  target_link_libraries(${name} ${scope} ${M_DEPS} ${M_EXTERNAL} PRIVATE $<BUILD_INTERFACE:athanor_warnings>)
  if(M_TORCH)
    target_link_libraries(${name} ${scope} $<BUILD_INTERFACE:athanor::torch>)
    athanor_use_torch_pch(${name})
  endif()
endfunction()

# One precompiled header for all Torch code: a translation unit costs 15-20 s without it.
function(athanor_use_torch_pch name)
  if(NOT TARGET athanor_torch_pch)
    file(WRITE ${CMAKE_BINARY_DIR}/torch_pch.cc "")
    add_library(athanor_torch_pch OBJECT ${CMAKE_BINARY_DIR}/torch_pch.cc)
    target_link_libraries(athanor_torch_pch PRIVATE athanor::torch)
    target_compile_features(athanor_torch_pch PRIVATE cxx_std_20)
    target_precompile_headers(athanor_torch_pch PRIVATE <torch/torch.h>)
    # Without a time stamp inside, ccache knows the header again.
    target_compile_options(athanor_torch_pch PRIVATE $<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>)
  endif()
  get_target_property(kind ${name} TYPE)
  if(kind STREQUAL "EXECUTABLE")  # the header is compiled with -fPIC, and GCC refuses it under an executable's -fPIE
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${name} PRIVATE -fPIC)
  endif()
  target_precompile_headers(${name} REUSE_FROM athanor_torch_pch)
endfunction()

# athanor_test(path/x_test.cc [TORCH] [LABELS ..] DEPS ...): one GoogleTest program, named after its path.
function(athanor_test source)
  cmake_parse_arguments(T "TORCH" "TIMEOUT" "DEPS;LABELS;SOURCES" ${ARGN})
  string(REPLACE "/" "." name "${source}")
  string(REGEX REPLACE "\\.cc$" "" name "${name}")
  add_executable(${name} ${source} ${T_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/common)
  target_link_libraries(${name} PRIVATE ${T_DEPS} GTest::gmock GTest::gtest_main athanor_warnings)
  target_compile_definitions(${name} PRIVATE ATHANOR_SOURCE_DIR="${CMAKE_SOURCE_DIR}" ATHANOR_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(T_TORCH)
    target_link_libraries(${name} PRIVATE athanor::torch)
    athanor_use_torch_pch(${name})
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT})
endfunction()

# Adds those of the folders that have a CMakeLists.txt.
function(athanor_add_present)
  foreach(dir IN LISTS ARGN)
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${dir}/CMakeLists.txt)
      add_subdirectory(${dir})
    endif()
  endforeach()
endfunction()
