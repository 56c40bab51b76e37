// One structured line per event of a job and per note that no event covers. Thread: core loop.
#pragma once

#include "server/core/effect.h"

namespace athanor {

void LogJobEvent(const core::JobEventEntry& event);
void LogNote(const core::Note& note);

}  // namespace athanor
