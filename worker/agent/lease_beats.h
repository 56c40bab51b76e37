// Heartbeats that do not wait for the agent's loop: 64 launches at once, or a folder on a slow disk, must not cost the
// agent its lease. The loop's own heartbeats carry what the ranks report; these carry nothing, and are sent only when
// the loop's are late. A loop that stands still altogether is not covered up.
//
//   LeaseBeats beats([&](uint64_t session, v1::AgentMessage m) { stream.Send(session, std::move(m)); });
//   beats.Registered(session, interval, now);      // and Closed() when the session ends
//   if (beats.Acked(number)) return;               // of an acknowledgement, on any thread; false: it is the loop's own
//   if (auto sent = beats.Turn(now, core.last_heartbeat())) core.OnLeaseExtended(*sent);  // each turn of the loop
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/time/time.h"
#include "athanor/v1/agent_service.pb.h"

namespace athanor::agent {

// When to beat. Values in and out, no clock; not thread-safe.
class BeatPacer {
 public:
  static constexpr absl::Duration kStuckLoop = absl::Minutes(2);  // a loop without a turn for longer is not alive

  void Registered(absl::Duration interval, absl::Time now);
  void Closed() { open_ = false; }
  // The loop is alive; it sent its newest heartbeat at `beaten`. Returns when the newest beat that was acknowledged
  // since the last turn was sent.
  std::optional<absl::Time> Turn(absl::Time now, absl::Time beaten);
  // The number of the beat that is due now.
  std::optional<uint64_t> Due(absl::Time now);
  absl::Time next() const;
  bool Acked(uint64_t number);

 private:
  bool open_ = false;
  absl::Duration interval_ = absl::InfiniteDuration();
  absl::Time beaten_, turned_;
  uint64_t sent_count_ = 0;
  std::map<uint64_t, absl::Time> sent_;
  std::optional<absl::Time> acked_;
};

// Thread-safe; a thread of its own ("athanor-lease") from construction to destruction.
class LeaseBeats {
 public:
  using Send = std::function<void(uint64_t session, v1::AgentMessage message)>;  // never blocks
  explicit LeaseBeats(Send send);
  ~LeaseBeats() { Stop(); }
  void Stop();  // joins the thread; the object stays usable
  void Registered(uint64_t session, absl::Duration interval, absl::Time now);
  void Closed();
  std::optional<absl::Time> Turn(absl::Time now, absl::Time beaten);
  bool Acked(uint64_t number);

 private:
  void Run();

  const Send send_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool closing_ = false;
  uint64_t session_ = 0;
  BeatPacer pacer_;
  std::thread thread_;
};

}  // namespace athanor::agent
