#include "tests/sim/sim_clients.h"

#include "athanor/v1/job.pb.h"

#include <algorithm>

namespace athanor::sim {

using core::CallId;
using core::Event;
using core::JobId;
using core::RequestKey;

void SimClients::Send(std::string what, std::function<Event(CallId, const RequestKey&)> make,
                      std::function<void(const core::Reply&)> answered) {
  auto request = std::make_shared<Request>();
  request->key = absl::StrCat("key-", next_key_++);
  request->what = std::move(what);
  request->make = std::move(make);
  request->answered = std::move(answered);
  ++waiting_;
  Attempt(request);
  if (world_.random.Chance(0.2)) Attempt(request);
}

void SimClients::Attempt(const std::shared_ptr<Request>& request) {
  if (request->done) return;
  ++request->attempts;
  world_.Trace("client ", request->key, " ", request->what);
  host_.Verb([&](CallId call) { return request->make(call, {request->key, request->what}); },
             [this, request](const core::Reply& reply) { Answered(*request, reply); });
  world_.After(absl::Seconds(2), [this, request] { Attempt(request); });
}

void SimClients::Answered(Request& request, const core::Reply& reply) {
  world_.Trace("client ", request.key, " <- ", reply.status.ToString());
  if (reply.status.ok()) {
    if (!host_.store().durable().requests.contains(request.key)) {
      world_.Fail(absl::StrCat(request.what, " was acknowledged before it was durable"));
    }
    if (request.first_answer.empty()) request.first_answer = reply.job;
    if (request.first_answer != reply.job) world_.Fail(absl::StrCat(request.key, " was answered with two jobs"));
  }
  if (request.done) return;
  request.done = true;
  --waiting_;
  if (request.answered && reply.status.ok()) request.answered(reply);
}

core::JobSpec SimClients::RandomSpec(JobShape& shape) {
  Random& random = world_.random;
  shape.total_steps = random.Between(4, 60);
  shape.save_every = random.Between(2, 12);
  shape.step_time = random.Duration(absl::Milliseconds(50), absl::Milliseconds(600));
  shape.fail_per_step = random.Chance(0.5) ? 0.01 : 0.0;
  shape.always_fails = random.Chance(0.05);
  core::JobSpec spec;
  spec.name = "job";
  const int all = slots_ * static_cast<int>(workers_.size());
  spec.ranks = random.Between(1, std::min(all, 5));
  if (random.Chance(0.05)) spec.ranks = all + 1;  // waits for more workers until it is cancelled
  // A rank sits on one worker: what counts is whole seats, not slots.
  const int wide = std::min(2, slots_);
  if (random.Chance(0.2) && spec.ranks <= slots_ / wide * static_cast<int>(workers_.size())) spec.slots_per_rank = wide;
  spec.priority = random.Between(0, 2);
  spec.preemptible = random.Chance(0.5);
  spec.keep_latest_k = random.Between(0, 3);
  spec.timeouts.join = absl::Seconds(20);
  spec.timeouts.startup = absl::Seconds(20);
  spec.timeouts.hang = absl::Seconds(8);
  spec.timeouts.stop_grace = random.Duration(absl::Milliseconds(500), absl::Seconds(5));
  spec.restart.max_generations_without_progress = random.Between(3, 8);
  spec.restart.backoff_max = absl::Seconds(10);
  shape.strict = !membership_faults_ || random.Chance(0.3);
  if (shape.strict) {
    spec.fencing = core::Fencing::kStrict;
    v1::JobSpec wire;  // as the agents read it
    wire.set_fencing("strict");
    spec.payload = wire.SerializeAsString();
  }
  if (!acknowledged_.empty() && random.Chance(0.15)) spec.parent_job = RandomJob().str();
  return spec;
}

void SimClients::SubmitRandomJob() {
  const JobId id(absl::StrCat("job-", next_job_++));
  JobShape shape;
  const core::JobSpec spec = RandomSpec(shape);
  training_.shapes[id] = shape;
  const uint64_t seed = world_.random.Next();
  const bool dry_run = world_.random.Chance(0.05);
  if (dry_run) {
    return host_.Verb([&](CallId call) { return core::SubmitJob{call, {}, id, spec, true, seed}; }, [](const auto&) {});
  }
  Send(
      absl::StrCat("submit ", id.str(), " of ", spec.ranks, "x", spec.slots_per_rank),
      [id, spec, seed](CallId call, const RequestKey& key) {
        return core::SubmitJob{call, key, id, spec, false, seed};
      },
      [this](const core::Reply& reply) {
        acknowledged_.push_back(reply.job);
        if (!host_.store().durable().jobs.contains(reply.job)) world_.Fail("an acknowledged job is not stored");
      });
}

JobId SimClients::RandomJob() {
  return acknowledged_[static_cast<size_t>(world_.random.Below(static_cast<int>(acknowledged_.size())))];
}

void SimClients::SendRandomVerb() {
  if (world_.random.Chance(0.25)) {
    const core::WorkerId worker = workers_[static_cast<size_t>(world_.random.Below(static_cast<int>(workers_.size())))];
    if (world_.random.Chance(0.4)) {
      return Send("drain " + worker.str(),
                  [worker](CallId call, const RequestKey& key) { return core::DrainWorker{call, key, worker}; });
    }
    return Send("undrain " + worker.str(),
                [worker](CallId call, const RequestKey& key) { return core::UndrainWorker{call, key, worker}; });
  }
  if (acknowledged_.empty()) return;
  const JobId job = RandomJob();
  if (world_.random.Chance(0.4)) return SendCheckpointVerb(job);
  SendJobVerb(job);
}

void SimClients::SendJobVerb(const JobId& job) {
  switch (world_.random.Below(6)) {
    case 0:
      return Send(
          "cancel " + job.str(),
          [job](CallId call, const RequestKey& key) { return core::CancelJob{call, key, job.str(), "by chance"}; },
          [this, job](const core::Reply&) { cancelled_[job] = true; });
    case 1:
    case 2:
      return Send("suspend " + job.str(),
                  [job](CallId call, const RequestKey& key) { return core::SuspendJob{call, key, job.str(), ""}; });
    default:
      return Send("resume " + job.str(),
                  [job](CallId call, const RequestKey& key) { return core::ResumeJob{call, key, job.str(), ""}; });
  }
}

void SimClients::SendCheckpointVerb(const JobId& job) {
  const std::string tag = absl::StrCat("tag-", world_.random.Below(3));
  const std::string step = world_.random.Chance(0.5) ? "latest" : absl::StrCat(world_.random.Between(1, 60));
  switch (world_.random.Below(3)) {
    case 0:
      return Send(absl::StrCat("tag ", job.str(), " ", step, " ", tag), [=](CallId call, const RequestKey& key) {
        return core::TagCheckpoint{call, key, job.str(), step, tag, std::nullopt};
      });
    case 1:
      return Send(absl::StrCat("untag ", job.str(), " ", tag), [=](CallId call, const RequestKey& key) {
        return core::UntagCheckpoint{call, key, job.str(), tag, std::nullopt};
      });
    default:
      return Send(absl::StrCat("delete ", job.str(), " ", step), [=](CallId call, const RequestKey& key) {
        return core::DeleteCheckpoint{call, key, job.str(), step, false};
      });
  }
}

void SimClients::LetEverythingEnd() {
  for (const core::WorkerId& worker : workers_) {
    Send("undrain " + worker.str(),
         [worker](CallId call, const RequestKey& key) { return core::UndrainWorker{call, key, worker}; });
  }
  const core::ClusterState& durable = host_.store().durable();
  const int all = slots_ * static_cast<int>(workers_.size());
  for (const auto& [id, job] : durable.jobs) {
    if (core::IsFinal(job.state)) continue;
    const JobId one = id;
    if (job.spec.ranks * job.spec.slots_per_rank > all) {
      Send("cancel " + id.str(),
           [one](CallId call, const RequestKey& key) { return core::CancelJob{call, key, one.str(), "never fits"}; });
    } else if (job.state == core::JobState::kSuspended || job.state == core::JobState::kSuspending) {
      const bool scratch = core::LostAllCheckpoints(durable, job);
      Send("resume " + id.str(), [one, scratch](CallId call, const RequestKey& key) {
        return core::ResumeJob{call, key, one.str(), "", scratch};
      });
    }
  }
}

void SimClients::ForgetWhatIsGone() {
  const core::ClusterState& durable = host_.store().durable();
  std::erase_if(acknowledged_, [&](const JobId& id) { return !durable.jobs.contains(id); });
  cancelled_.clear();
}

void SimClients::CheckEnd() {
  const core::ClusterState& durable = host_.store().durable();
  for (const JobId& id : acknowledged_) {
    auto it = durable.jobs.find(id);
    if (it == durable.jobs.end()) {
      world_.Fail(absl::StrCat("the acknowledged job ", id.str(), " is gone"));
      continue;
    }
    const core::JobState state = it->second.state;
    if (!core::IsFinal(state)) world_.Fail(absl::StrCat(id.str(), " never ended: ", ToString(state)));
    if (cancelled_.contains(id) && state == core::JobState::kFailed) {
      world_.Fail(absl::StrCat(id.str(), " was cancelled and ended ", ToString(state)));
    }
  }
}

}  // namespace athanor::sim
