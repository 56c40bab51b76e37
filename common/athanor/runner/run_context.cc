#include "athanor/runner/run_context.h"

#include <utility>

#include "athanor/parallel/agree_on_status.h"
#include "athanor/torch/status.h"

namespace athanor {

RunContext::RunContext(RunnerConfig run, const Membership& ranks, const torch::Device& place, RunnerHooks* listener)
    : config(std::move(run)),
      members(ranks),
      device(place),
      hooks(listener),
      progress(listener),
      notes(&progress, listener, ranks.is_main()) {}

absl::Status RunContext::Together(const char* what, const std::function<absl::Status()>& alone) const {
  absl::Status done;
  const absl::Status thrown = RunTorch(what, [&] { done = alone(); });
  return AgreeOnStatus(members, thrown.ok() ? done : thrown);
}

absl::Status RunContext::Alone(const char* what, const std::function<void()>& work) const {
  const absl::Status done = RunTorch(what, work);
  if (!done.ok()) LeaveGroup();
  return done;
}

void RunContext::LeaveGroup() const {
  if (members.group() != nullptr) members.group()->Abort();
}

}  // namespace athanor
