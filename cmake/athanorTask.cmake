# athanor_task_library(NAME a.cc ... [NO_PRECOMPILED_HEADER])
#
# Builds lib<NAME>.so, a task library for the job file's `task.library`. It holds the user's code alone: what it calls of
# Athanor it finds in athanor-trainer, which loads it. It must be built against the LibTorch of that trainer.
# NO_PRECOMPILED_HEADER compiles <torch/torch.h> anew in every source: for compilers and caches that do not go with one.
function(athanor_task_library name)
  cmake_parse_arguments(PARSE_ARGV 1 T "NO_PRECOMPILED_HEADER" "" "")
  add_library(${name} MODULE ${T_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE athanor::task)
  if(T_NO_PRECOMPILED_HEADER)
    return()
  endif()
  if(TARGET athanor_torch_pch)  # in Athanor's own tree
    target_precompile_headers(${name} REUSE_FROM athanor_torch_pch)
  else()
    target_precompile_headers(${name} PRIVATE <torch/torch.h>)
  endif()
endfunction()
