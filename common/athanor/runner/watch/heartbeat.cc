#include "athanor/runner/watch/heartbeat.h"

#include <pthread.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <utility>

#include "absl/time/clock.h"
#include "athanor/base/file_system.h"

namespace athanor {
namespace {

double UnixSeconds(absl::Time time) {
  return absl::ToDoubleSeconds(time - absl::UnixEpoch());
}

nlohmann::json NumberOrNull(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

}  // namespace

Heartbeat::Heartbeat(HeartbeatOptions options, nlohmann::json identity)
    : options_(std::move(options)), identity_(std::move(identity)), progressed_(absl::Now()) {
  error_ = EnsureDir(std::filesystem::path(options_.path).parent_path().string());
  RemoveLeftovers(options_.path);
  Write("starting", "startup");
  thread_ = std::thread([this] { Run(); });
}

Heartbeat::~Heartbeat() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  thread_.join();
  Write("closed", "shutdown");
}

void Heartbeat::Update(const ProgressReport& progress) {
  std::lock_guard lock(mutex_);
  if (progress.step != progress_.step || progress.evaluated_batches != progress_.evaluated_batches || !started_)
    progressed_ = absl::Now();
  urgent_ = urgent_ || !started_ || progress.phase != progress_.phase;
  started_ = true;
  progress_ = progress;
  if (urgent_) wake_.notify_all();
}

void Heartbeat::Terminating(const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (!termination_.empty()) return;
  termination_ = reason.empty() ? "asked to stop" : reason;
  urgent_ = true;
  wake_.notify_all();
}

absl::Status Heartbeat::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

void Heartbeat::Run() {
  pthread_setname_np(pthread_self(), "athanor-beat");
  std::unique_lock lock(mutex_);
  while (!closing_) {
    wake_.wait_for(lock, absl::ToChronoMilliseconds(options_.interval), [this] { return closing_ || urgent_; });
    if (closing_) return;
    urgent_ = false;
    const bool terminating = !termination_.empty();
    const nlohmann::json event = terminating ? nlohmann::json(termination_) : nlohmann::json();
    lock.unlock();
    Write(terminating ? "terminating" : "running", event);
    lock.lock();
  }
}

void Heartbeat::Write(const std::string& status, const nlohmann::json& event) {
  const absl::Time now = absl::Now();
  nlohmann::json json = identity_;
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  {
    std::lock_guard lock(mutex_);
    json["mode"] = ToString(progress_.phase);
    json["global_step"] = progress_.step;
    json["micro_step"] = progress_.micro_step;
    json["progress"] = progress_.total_steps > 0
                           ? nlohmann::json(static_cast<double>(progress_.step) / progress_.total_steps)
                           : nlohmann::json();
    json["restart_count"] = progress_.restarts;
    json["steps"] = progress_.total_steps > 0 ? nlohmann::json(progress_.total_steps) : nlohmann::json();
    json["epoch"] = progress_.epoch;
    json["loss"] = NumberOrNull(progress_.loss);
    json["checkpoint_failures"] = progress_.checkpoint_failures;
    json["resumed_from_step"] = progress_.resumed_from_step;
    json["last_progress_at_unix"] = UnixSeconds(progressed_);
    json["seconds_since_progress"] = absl::ToDoubleSeconds(now - progressed_);
  }
  json["status"] = status;
  json["event"] = event;
  json["updated_at_unix"] = UnixSeconds(now);
  json["hostname"] = host;
  json["pid"] = getpid();
  const absl::Status written = WriteFileAtomically(options_.path, json.dump(2) + "\n");
  std::lock_guard lock(mutex_);
  if (!written.ok() && error_.ok()) error_ = written;
}

}  // namespace athanor
