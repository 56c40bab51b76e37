// Fills in the defaults of LrScheduleOptions and refuses what cannot work. Internal to the module.
#pragma once

#include "absl/status/status.h"
#include "athanor/optim/lr_schedule.h"

namespace athanor {

absl::Status ResolveScheduleOptions(LrScheduleOptions* options);

}  // namespace athanor
