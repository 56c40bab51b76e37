// The name that ParallelTopology has in programs written before there were axes.
#pragma once

#include "athanor/parallel/parallel_topology.h"

namespace athanor {

using Topology = ParallelTopology;

}  // namespace athanor
