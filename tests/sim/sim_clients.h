// Clients: submit jobs and send verbs at random, each repeated under its request key until it is answered, sometimes
// several times at once. Remembers what was acknowledged.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/coordinator_host.h"
#include "tests/sim/sim_rank.h"
#include "tests/sim/sim_world.h"

namespace athanor::sim {

class SimClients {
 public:
  SimClients(World& world, CoordinatorHost& host, Training& training, std::vector<core::WorkerId> workers,
             int32_t slots, bool membership_faults)
      : world_(world),
        host_(host),
        training_(training),
        workers_(std::move(workers)),
        slots_(slots),
        membership_faults_(membership_faults) {}

  void SubmitRandomJob();
  void SendRandomVerb();
  // Resumes, undrains and cancels so that every job can end.
  void LetEverythingEnd();
  // An older copy of the store was restored: what it does not know was lost with the disk.
  void ForgetWhatIsGone();
  bool idle() const { return waiting_ == 0; }
  // Every acknowledged submit is a job in a final state that its acknowledged verbs allow.
  void CheckEnd();

 private:
  struct Request {
    std::string key, what;
    std::function<core::Event(core::CallId, const core::RequestKey&)> make;
    std::function<void(const core::Reply&)> answered;
    bool done = false;
    int attempts = 0;
    core::JobId first_answer;
  };
  void Send(std::string what, std::function<core::Event(core::CallId, const core::RequestKey&)> make,
            std::function<void(const core::Reply&)> answered = nullptr);
  void Attempt(const std::shared_ptr<Request>& request);
  void Answered(Request& request, const core::Reply& reply);
  core::JobId RandomJob();
  core::JobSpec RandomSpec(JobShape& shape);
  void SendJobVerb(const core::JobId& job);
  void SendCheckpointVerb(const core::JobId& job);

  World& world_;
  CoordinatorHost& host_;
  Training& training_;
  const std::vector<core::WorkerId> workers_;
  const int32_t slots_;
  const bool membership_faults_;
  int next_job_ = 1, next_key_ = 1, waiting_ = 0;
  std::vector<core::JobId> acknowledged_;
  std::map<core::JobId, bool> cancelled_;
};

}  // namespace athanor::sim
