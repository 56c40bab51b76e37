#include "worker/trainer/rendezvous_client.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/failpoint.h"
#include "athanor/base/status_macros.h"

namespace athanor {

RendezvousClient::RendezvousClient(AgentLink* link, const TrainerEnv& env, absl::Time deadline)
    : link_(link), env_(env), deadline_(deadline) {}

RendezvousClient::~RendezvousClient() {
  if (joining_.valid()) joining_.wait();  // at most until the deadline
}

absl::Status RendezvousClient::Start() {
  std::string endpoint;
  if (env_.rank == 0) {
    ASSIGN_OR_RETURN(store_, HostStore::Create({.host = env_.host, .timeout = deadline_ - absl::Now()}));
    endpoint = absl::StrCat(store_->host(), ":", store_->port());
  }
  ATHANOR_FAILPOINT("trainer.before_join");
  joining_ = std::async(std::launch::async, [this, endpoint] { return link_->Join(endpoint, deadline_); });
  return absl::OkStatus();
}

absl::StatusOr<ProcessGroupOptions> RendezvousClient::GroupOptions(const RendezvousPlan& plan) const {
  if (plan.world_size != env_.world_size) {
    return absl::InvalidArgumentError(absl::StrCat("the coordinator's plan is for ", plan.world_size,
                                                   " ranks, this one was started for ", env_.world_size));
  }
  ProcessGroupOptions options{.rank = env_.rank, .world_size = env_.world_size};
  const size_t colon = plan.store_endpoint.rfind(':');
  if (colon == std::string::npos || !absl::SimpleAtoi(plan.store_endpoint.substr(colon + 1), &options.store_port)) {
    return absl::InvalidArgumentError(absl::StrCat("the plan's store '", plan.store_endpoint, "' is no host:port"));
  }
  options.store_host = plan.store_endpoint.substr(0, colon);
  options.prefix = absl::StrCat(env_.job, "/", env_.generation);
  options.bind_host = env_.host;
  options.hosted_store = store_.get();
  return options;
}

absl::StatusOr<JoinedRanks> RendezvousClient::Finish(const torch::Device& device, const CommConfig& comm) {
  JoinedRanks member;
  ASSIGN_OR_RETURN(member.plan, joining_.get());
  ATHANOR_FAILPOINT("trainer.after_join");
  if (env_.world_size > 1) {
    ASSIGN_OR_RETURN(ProcessGroupOptions options, GroupOptions(member.plan));
    options.device = device;
    options.timeout =
        absl::Seconds(comm.init_timeout_seconds);  // the runner sets that of training after the first update
    options.backend = comm.backend;
    options.shared_memory = comm.shared_memory;
    options.check = comm.check;
    ASSIGN_OR_RETURN(member.group, ProcessGroup::Create(options));
  }
  member.store = std::move(store_);
  return member;
}

}  // namespace athanor
