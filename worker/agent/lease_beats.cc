#include "worker/agent/lease_beats.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "worker/agent/agent_clock.h"

namespace athanor::agent {
namespace {

constexpr uint64_t kOurs = uint64_t{1} << 63;  // the loop counts from 1
constexpr double kLate = 1.5;                  // x the interval without a beat of the loop
constexpr size_t kInFlight = 64;

}  // namespace

void BeatPacer::Registered(absl::Duration interval, absl::Time now) {
  open_ = true;
  interval_ = interval;
  beaten_ = turned_ = now;
  sent_.clear();
  acked_.reset();
}

std::optional<absl::Time> BeatPacer::Turn(absl::Time now, absl::Time beaten) {
  turned_ = now;
  beaten_ = std::max(beaten_, beaten);
  return std::exchange(acked_, std::nullopt);
}

absl::Time BeatPacer::next() const {
  if (!open_) return absl::InfiniteFuture();
  const absl::Time due = beaten_ + interval_ * kLate;
  return due < turned_ + kStuckLoop ? due : absl::InfiniteFuture();
}

std::optional<uint64_t> BeatPacer::Due(absl::Time now) {
  if (now < next() || now >= turned_ + kStuckLoop) return std::nullopt;
  const uint64_t number = kOurs | ++sent_count_;
  sent_[number] = now;
  if (sent_.size() > kInFlight) sent_.erase(sent_.begin());
  // The loop is late already: from now on at the loop's own pace.
  beaten_ = now - interval_ * (kLate - 1);
  return number;
}

bool BeatPacer::Acked(uint64_t number) {
  if (number < kOurs) return false;
  if (const auto it = sent_.find(number); it != sent_.end()) {
    acked_ = it->second;
    sent_.erase(sent_.begin(), std::next(it));
  }
  return true;
}

LeaseBeats::LeaseBeats(Send send) : send_(std::move(send)), thread_([this] { Run(); }) {}

void LeaseBeats::Stop() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LeaseBeats::Registered(uint64_t session, absl::Duration interval, absl::Time now) {
  {
    std::lock_guard lock(mutex_);
    session_ = session;
    pacer_.Registered(interval, now);
  }
  wake_.notify_all();
}

void LeaseBeats::Closed() {
  std::lock_guard lock(mutex_);
  pacer_.Closed();
}

std::optional<absl::Time> LeaseBeats::Turn(absl::Time now, absl::Time beaten) {
  std::lock_guard lock(mutex_);
  return pacer_.Turn(now, beaten);
}

bool LeaseBeats::Acked(uint64_t number) {
  std::lock_guard lock(mutex_);
  return pacer_.Acked(number);
}

void LeaseBeats::Run() {
  pthread_setname_np(pthread_self(), "athanor-lease");
  std::unique_lock lock(mutex_);
  while (!closing_) {
    const absl::Time now = AgentClock();
    if (const std::optional<uint64_t> number = pacer_.Due(now)) {
      v1::AgentMessage message;
      message.mutable_heartbeat()->set_number(*number);
      const uint64_t session = session_;
      lock.unlock();
      send_(session, std::move(message));
      lock.lock();
      continue;
    }
    const absl::Duration wait = std::min(pacer_.next() - now, absl::Minutes(1));
    wake_.wait_for(lock, absl::ToChronoNanoseconds(std::max(wait, absl::Milliseconds(1))));
  }
}

}  // namespace athanor::agent
