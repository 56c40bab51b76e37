#include "athanor/runner/watch/telemetry.h"

#include <algorithm>

namespace athanor {

void Telemetry::Add(const StepTimes& times, double step_seconds, int64_t samples) {
  const double share = first_ ? 1.0 : kShare;
  first_ = false;
  const auto blend = [share](double* mean, double value) { *mean += share * (value - *mean); };
  blend(&times_.data, times.data);
  blend(&times_.forward, times.forward);
  blend(&times_.backward, times.backward);
  blend(&times_.optimizer, times.optimizer);
  blend(&times_.wait, std::max(0.0, step_seconds - times.data - times.forward - times.backward - times.optimizer));
  blend(&step_seconds_, step_seconds);
  blend(&samples_, static_cast<double>(samples));
}

}  // namespace athanor
