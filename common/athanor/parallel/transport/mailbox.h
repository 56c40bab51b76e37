// Messages from rank to rank with tags: asynchronous, matched by (sender, tag) in the order they were sent, received in
// any order of tags. A thread of its own moves bytes while something is under way, and sleeps otherwise.
//
//   mailbox.Send({.peer = 1, .tag = 7, .data = p, .count = n, .type = torch::kFloat32, .done = told});
//
// A message that comes while another tag is waited for is kept, up to kMostKept bytes in all. What a receive and its
// message say of dtype and count must agree: otherwise FAILED_PRECONDITION names both.
//
// Errors: UNAVAILABLE, DEADLINE_EXCEEDED (timeout from the call on) with the rank. The first error ends the mailbox:
// all that is under way gets it. Threads: Send(), Receive(), Abort() on any; `done` runs on the mailbox's thread.
#pragma once

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
  absl::Status failed_;
  std::deque<Pending> outgoing_, expected_;  // guarded by mutex_
  std::vector<Sender> senders_;              // the thread's own
  std::vector<Receiver> receivers_;
  std::vector<Peers::Need> needs_;
  size_t kept_bytes_ = 0;
  std::thread thread_;
};

}  // namespace athanor
