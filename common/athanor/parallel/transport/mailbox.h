// Messages from rank to rank with tags: asynchronous, matched by (sender, tag) in the order they were sent, received in
// any order of tags. Whoever sends, receives or waits moves the bytes itself as far as they go now; a thread of the
// mailbox's own goes on with what is left when nobody waits, and sleeps otherwise.
//
//   mailbox.Send({.peer = 1, .tag = 7, .data = p, .count = n, .type = torch::kFloat32, .done = told});
//
// A message that comes while another tag is waited for is kept, up to kMostKept bytes in all. What a receive and its
// message say of dtype and count must agree: otherwise FAILED_PRECONDITION names both.
//
// Errors: UNAVAILABLE, DEADLINE_EXCEEDED (timeout from the call on) with the rank. The first error ends the mailbox:
// all that is under way gets it. Threads: everything on any; `done` runs on whichever moves the last bytes, which may
// be inside of Send() and Receive().
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <c10/core/ScalarType.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "athanor/parallel/transport/peers.h"

namespace athanor {

class Mailbox {
 public:
  static constexpr int kAnyPeer = -1;
  static constexpr size_t kMostKept = size_t{256} << 20;

  struct Result {
    absl::Status status;
    int peer = -1;  // the sender of what was received
  };
  struct Message {
    int peer = 0;  // kAnyPeer: a receive takes the first that comes
    int tag = 0;
    void* data = nullptr;  // stays until `done`
    int64_t count = 0;
    c10::ScalarType type = c10::ScalarType::Byte;
    absl::Duration timeout = absl::Seconds(60);
    std::function<void(const Result&)> done;
  };

  explicit Mailbox(std::unique_ptr<Peers> peers);
  ~Mailbox();  // what is still under way gets UNAVAILABLE

  void Send(Message message) { Post(std::move(message), outgoing_); }
  void Receive(Message message) { Post(std::move(message), expected_); }
  // Moves bytes on this thread until `enough`, which is asked between the moves, or `deadline`.
  void Help(absl::FunctionRef<bool()> enough, absl::Time deadline);
  void Abort();

 private:
  struct Header {
    uint32_t magic = 0;
    int32_t tag = 0;
    int64_t type = 0;
    int64_t count = 0;
  };
  struct Pending {
    Message message;
    absl::Time deadline;
  };
  struct Letter {  // came before anybody asked for it
    Header header;
    std::vector<char> bytes;
  };
  struct Sender {
    std::optional<Pending> current;
    Header header;
    size_t moved = 0;  // of header and data
  };
  struct Receiver {
    Header header;
    size_t header_moved = 0;
    std::optional<Pending> current;  // none: into `letter`
    Letter letter;
    size_t moved = 0;  // of the data
    std::deque<Letter> kept;
  };
  using Finished = std::vector<std::pair<Pending, Result>>;

  static std::string Describe(const Header& header);
  static absl::Status Agree(int peer, const Header& header, const Message& message);
  void Post(Message message, std::deque<Pending>& queue);
  void Loop();
  // One thread drives at a time: it alone touches the peers, the senders and the receivers.
  void Leave();
  void Drive(absl::FunctionRef<bool()> enough, absl::Time deadline);
  // Moves what moves now, and tells what that has finished. `patience`: sleeps when nothing moved. False: nothing is
  // under way any more.
  bool Step(Peers::Patience* patience);
  // One round over all ranks. Moved: something went on. Busy: something is under way.
  struct Round {
    bool moved = false;
    bool busy = false;
  };
  absl::StatusOr<Round> Turn(Finished& finished);
  absl::Status PumpOut(int peer, Round& round, Finished& finished);
  absl::Status PumpIn(int peer, Round& round, Finished& finished);
  absl::Status Dispatch(int peer, Receiver& receiver, Finished& finished);
  absl::Status TakeKept(Finished& finished);
  std::optional<Pending> TakeExpected(int peer, int tag);
  bool Expects(int peer);
  void Fail(const absl::Status& status, Finished& finished);

  const std::unique_ptr<Peers> peers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool driving_ = false;          // somebody drives
  bool busy_ = false;             // something is under way
  bool dozing_ = false;           // the mailbox's thread looks again soon by itself
  std::atomic<int> helpers_ = 0;  // that wait for whoever drives to leave
  absl::Status failed_;
  std::deque<Pending> outgoing_, expected_;  // guarded by mutex_, as is everything above
  std::vector<Sender> senders_;              // of the one that drives, as is everything below
  std::vector<Receiver> receivers_;
  std::vector<Peers::Need> needs_;
  size_t kept_bytes_ = 0;
  std::thread thread_;
};

}  // namespace athanor
