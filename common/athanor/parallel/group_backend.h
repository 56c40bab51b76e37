// The backend itself of a group: c10d::ProcessGroup sends every call through the dispatcher, and its methods have other
// names in each version.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "athanor/parallel/process_group.h"

namespace athanor {

inline c10d::Backend& BackendOf(ProcessGroup& group) {
  return *group.c10d().getDefaultBackend();
}

}  // namespace athanor
