#include "tests/sim/simulator.h"

#include <memory>

#include "tests/sim/coordinator_host.h"
#include "tests/sim/sim_agent.h"
#include "tests/sim/sim_clients.h"
#include "tests/sim/sim_rank.h"
#include "tests/sim/sim_world.h"

namespace athanor::sim {
namespace {

constexpr absl::Duration kStormy = absl::Seconds(90);   // with faults and new verbs
constexpr absl::Duration kQuiet = absl::Seconds(3600);  // without, until everything has ended

class Simulation {
 public:
  explicit Simulation(const SimOptions& options)
      : options_(options),
        world_(options.seed, options.trace),
        host_(world_, HostOptionsOf(options)),
        training_(world_) {}

  SimResult Run() {
    Build();
    const absl::Time start = world_.now;
    while (world_.RunNext(start + kStormy)) {
    }
    world_.faults = false;
    world_.Trace("-- quiet --");
    CalmDown();
    while (!Ended() && world_.RunNext(start + kStormy + kQuiet)) {
    }
    Settle();
    if (!world_.failed()) CheckEnd();
    return Result();
  }

 private:
  static HostOptions HostOptionsOf(const SimOptions& options) {
    HostOptions host;
    host.core.max_events_per_job = 50;
    host.core.max_generations_per_job = 8;
    host.crash_before_commit = host.crash_after_commit = 0.0004 * options.fault_rate;
    return host;
  }

  void Build() {
    const int32_t slots = world_.random.Between(1, 4);
    const int count = world_.random.Between(2, 5);
    std::vector<core::WorkerId> ids;
    for (int i = 1; i <= count; ++i) ids.push_back(core::WorkerId(absl::StrCat("w", i)));
    host_.Start();
    for (const core::WorkerId& id : ids) {
      agents_.push_back(
          std::make_unique<SimAgent>(world_, host_, training_, id, slots, options_.membership_faults ? "#1" : ""));
      world_.After(world_.random.Duration(absl::ZeroDuration(), absl::Seconds(3)),
                   [agent = agents_.back().get()] { agent->Start(); });
    }
    for (const core::WorkerId& id : ids) {
      if (!options_.membership_faults) break;
      seconds_.push_back(std::make_unique<SimAgent>(world_, host_, training_, id, slots, "#2"));
    }
    clients_ = std::make_unique<SimClients>(world_, host_, training_, ids, slots, options_.membership_faults);
    const int jobs = world_.random.Between(2, 7);
    for (int i = 0; i < jobs; ++i) {
      world_.After(world_.random.Duration(absl::ZeroDuration(), absl::Seconds(60)),
                   [this] { clients_->SubmitRandomJob(); });
    }
    NextVerb();
    if (options_.outage > absl::ZeroDuration()) {
      world_.After(absl::Seconds(40), [this] { host_.Crash("and is away", options_.outage); });
    }
    if (options_.fault_rate > 0) NextFault();
    if (options_.fault_rate > 0 && options_.membership_faults) {
      world_.After(world_.random.Duration(absl::Seconds(1), absl::Seconds(60)), [this] { host_.BackUp(); });
    }
  }

  void NextVerb() {
    world_.After(world_.random.Duration(absl::Seconds(1), absl::Seconds(15)), [this] {
      if (!world_.faults) return;
      clients_->SendRandomVerb();
      NextVerb();
    });
  }

  void NextFault() {
    const absl::Duration longest = absl::Seconds(20) / options_.fault_rate;
    world_.After(world_.random.Duration(absl::Milliseconds(200), longest), [this] {
      if (!world_.faults) return;
      InjectFault();
      NextFault();
    });
  }

  void InjectFault() {
    const auto which = static_cast<size_t>(world_.random.Below(static_cast<int>(agents_.size())));
    SimAgent& agent = *agents_[which];
    if (options_.membership_faults && world_.random.Chance(0.4)) return InjectMembershipFault(agent, *seconds_[which]);
    switch (world_.random.Below(10)) {
      case 0:
        return agent.Crash();
      case 1:
        return host_.Crash("kill -9");
      case 2:
        return host_.Pause(world_.random.Duration(absl::Milliseconds(500), absl::Seconds(15)));
      case 3:
        return host_.BlackHole(agent.session());
      case 4:
      case 5:
        return host_.Cut(agent.session());
      default:
        return HarmRank();
    }
  }

  void InjectMembershipFault(SimAgent& agent, SimAgent& second) {
    const absl::Duration pause = world_.random.Duration(absl::Seconds(2), absl::Seconds(40));
    switch (world_.random.Below(8)) {
      case 0:
        return host_.Crash("for long", world_.random.Duration(absl::Seconds(5), absl::Seconds(100)));
      case 1:
        return host_.Partition(&agent, true, true, pause);
      case 2:
        return host_.Partition(&agent, true, false, pause);
      case 3:
        return host_.Partition(&agent, false, true, pause);
      case 4:
        return agent.Freeze(pause);
      case 5:
        if (second.alive()) return second.Leave();
        return second.Start();
      case 6:
        return agent.ShutDown();
      default:
        if (host_.CrashAndRestore()) clients_->ForgetWhatIsGone();
    }
  }

  void HarmRank() {
    SimRank* rank = training_.Pick();
    if (rank == nullptr) return;
    if (world_.random.Chance(0.2)) {
      world_.Trace("SIGSTOP ", Name(rank->id));
      rank->hung = true;
      return;
    }
    core::FailureCause cause{.kind = core::CauseKind::kSignal, .signal = 9, .detail = "kill -9"};
    training_.Exit(rank->id, rank->process, std::move(cause));
  }

  // Verbs under way may still suspend or drain: asked for again until nothing is left to undo.
  void CalmDown() {
    for (const auto& second : seconds_) second->Leave();
    if (Ended()) return;
    clients_->LetEverythingEnd();
    world_.After(absl::Seconds(30), [this] { CalmDown(); });
  }

  bool Ended() const {
    if (world_.failed()) return true;
    if (!host_.up() || !clients_->idle()) return false;
    for (const auto& [id, job] : host_.store().durable().jobs) {
      if (!core::IsFinal(job.state)) return false;
    }
    return true;
  }

  // Lets the last exits, deletions and acknowledgements arrive.
  void Settle() {
    const absl::Time end = world_.now + absl::Seconds(60);
    while (world_.RunNext(end)) {
    }
  }

  void CheckEnd() {
    clients_->CheckEnd();
    if (!host_.up()) return world_.Fail("the coordinator is down at the end");
    const core::ClusterState& state = host_.core().state();
    for (const auto& [id, worker] : state.workers) {
      if (!worker.used.empty()) world_.Fail(absl::StrCat("slots of ", id.str(), " are held at the end"));
      const bool drained_by_request = worker.state == core::WorkerState::kDrained && worker.drain;
      const bool resting = worker.state == core::WorkerState::kQuarantined && worker.quarantined_until > world_.now;
      if (worker.state != core::WorkerState::kReady && !drained_by_request && !resting) {
        world_.Fail(absl::StrCat(id.str(), " is ", ToString(worker.state), " at the end"));
      }
    }
    if (!world_.processes.empty()) world_.Fail(absl::StrCat(Name(world_.processes.begin()->first), " runs at the end"));
    if (std::string what = host_.store().Difference(state); !what.empty())
      world_.Fail("not stored at the end: " + what);
    for (const auto& [id, job] : state.jobs) {
      const bool lost = options_.outage > absl::ZeroDuration() && !training_.shapes[id].strict &&
                        job.restarts_by_cause.contains(core::CauseKind::kNodeLost);
      if (lost) world_.Fail(absl::StrCat(id.str(), " lost ranks to an outage of the coordinator"));
      const auto& events = host_.store().Events(id);
      if (static_cast<int32_t>(events.size()) > host_.core().options().max_events_per_job) {
        world_.Fail(absl::StrCat(id.str(), " has ", events.size(), " stored events"));
      }
    }
    for (const auto& [job, checkpoints] : state.checkpoints) {
      for (const auto& [step, checkpoint] : checkpoints) {
        const bool open = checkpoint.state == core::CheckpointState::kCollecting ||
                          checkpoint.state == core::CheckpointState::kSealed;
        if (open) world_.Fail(absl::StrCat("step ", step, " of ", job.str(), " is open at the end"));
      }
    }
  }

  SimResult Result() {
    SimResult result;
    result.failure = world_.failure();
    result.trace.assign(world_.trace().begin(), world_.trace().end());
    result.steps = host_.steps();
    for (const auto& [id, job] : host_.store().durable().jobs) {
      ++result.jobs;
      result.succeeded += job.state == core::JobState::kSucceeded ? 1 : 0;
      result.generations += job.generation;
    }
    for (const auto& [job, all] : host_.store().durable().checkpoints)
      result.checkpoints += static_cast<int64_t>(all.size());
    result.coordinator_lives = static_cast<int64_t>(host_.lives());
    return result;
  }

  const SimOptions options_;
  World world_;
  CoordinatorHost host_;
  Training training_;
  std::vector<std::unique_ptr<SimAgent>> agents_, seconds_;
  std::unique_ptr<SimClients> clients_;
};

}  // namespace

SimResult Simulate(const SimOptions& options) {
  return Simulation(options).Run();
}

}  // namespace athanor::sim
