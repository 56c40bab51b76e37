// Whether a newly started agent may take the name of one that is known.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "server/core/cluster_state.h"
#include "server/core/event.h"

namespace athanor::core {

// Why `newcomer` may not register under the name of `known`; empty: it may. A process of another instance takes a name
// over once the older one is proven dead: its lease is over, its work folder is locked by the newcomer, it has said
// that it stops and has gone, or its connection has ended and it did not come back when agents do. `strict_ranks`: it
// runs ranks with strict fencing, which end with its lease and not before.
std::string WhyNameTaken(const WorkerEntry& known, const WorkerRegistered& newcomer, bool strict_ranks, absl::Time now);

}  // namespace athanor::core
