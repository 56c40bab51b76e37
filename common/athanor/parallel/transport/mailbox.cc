#include "athanor/parallel/transport/mailbox.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

// How long the mailbox's thread leaves it to others: a caller that waits at once moves its message itself, sooner than
// a thread that must be woken for it.
constexpr auto kDoze = std::chrono::microseconds(50);

constexpr uint32_t kMagic = 0x50485441;  // "ATHP"

size_t Bytes(int64_t count, int64_t type) {
  return static_cast<size_t>(count) * c10::elementSize(static_cast<c10::ScalarType>(type));
}

bool Known(int64_t type) {
  return type >= 0 && type < static_cast<int64_t>(c10::ScalarType::Undefined);
}

}  // namespace

Mailbox::Mailbox(std::unique_ptr<Peers> peers)
    : peers_(std::move(peers)),
      senders_(static_cast<size_t>(peers_->world_size())),
      receivers_(static_cast<size_t>(peers_->world_size())),
      thread_([this] { Loop(); }) {}

Mailbox::~Mailbox() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  Abort();
  thread_.join();
}

void Mailbox::Abort() {
  peers_->Abort();
}

std::string Mailbox::Describe(const Header& header) {
  return absl::StrCat(header.count, " x ", c10::toString(static_cast<c10::ScalarType>(header.type)), " with tag ",
                      header.tag);
}

absl::Status Mailbox::Agree(int peer, const Header& header, const Message& message) {
  if (header.type == static_cast<int64_t>(message.type) && header.count == message.count) return absl::OkStatus();
  const Header wanted{kMagic, message.tag, static_cast<int64_t>(message.type), message.count};
  return absl::FailedPreconditionError(
      absl::StrCat("rank ", peer, " sends ", Describe(header), ", this rank expects ", Describe(wanted)));
}

void Mailbox::Post(Message message, std::deque<Pending>& queue) {
  absl::Status failed;
  bool drive = false;
  {
    const std::lock_guard lock(mutex_);
    failed = failed_;
    if (failed.ok()) {
      const absl::Time deadline = absl::Now() + message.timeout;
      queue.push_back({std::move(message), deadline});
      busy_ = true;
      drive = !std::exchange(driving_, true);
    }
  }
  if (!failed.ok()) return message.done({failed, message.peer});
  if (!drive) return peers_->Wake();  // whoever drives looks again
  Step(nullptr);
  Leave();
}

void Mailbox::Leave() {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    driving_ = false;
    wake = stopping_ || helpers_ > 0 || (busy_ && !dozing_);
  }
  if (wake) changed_.notify_all();
}

void Mailbox::Help(absl::FunctionRef<bool()> enough, absl::Time deadline) {
  {
    std::unique_lock lock(mutex_);
    if (driving_) {
      ++helpers_;
      peers_->Wake();
      const auto free = [&] { return enough() || !driving_; };
      const bool in_time = changed_.wait_until(lock, absl::ToChronoTime(deadline), free);
      --helpers_;
      if (!in_time) return;
    }
    if (enough() || stopping_) return;
    driving_ = true;
  }
  Drive(enough, deadline);
  Leave();
}

void Mailbox::Drive(absl::FunctionRef<bool()> enough, absl::Time deadline) {
  Peers::Patience patience;
  patience.deadline = absl::InfiniteFuture();  // each message has its own: Turn() looks
  while (Step(&patience) && !enough() && absl::Now() < deadline) {
  }
}

bool Mailbox::Step(Peers::Patience* patience) {
  Finished finished;
  const uint32_t bell = peers_->bell();
  absl::StatusOr<Round> round = Turn(finished);
  if (patience != nullptr && round.ok() && round->busy && !round->moved) {
    patience->bell = bell;
    const absl::Status idle = peers_->Idle(*patience, needs_);
    if (!idle.ok()) round = idle;
  } else if (patience != nullptr) {
    patience->spin_until = 0;
  }
  if (!round.ok()) Fail(round.status(), finished);
  for (auto& [pending, result] : finished) pending.message.done(result);
  if (!finished.empty() && helpers_ > 0) {
    {
      const std::lock_guard lock(mutex_);
    }  // not between a helper's look and its sleep
    changed_.notify_all();
  }
  return round.ok() && round->busy;
}

void Mailbox::Loop() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    changed_.wait(lock, [this] { return stopping_ || (busy_ && !driving_); });
    dozing_ = true;
    changed_.wait_for(lock, kDoze, [this] { return stopping_; });
    dozing_ = false;
    if (stopping_ || driving_ || !busy_) continue;
    driving_ = true;
    lock.unlock();
    Drive([this] { return helpers_ > 0; }, absl::InfiniteFuture());
    lock.lock();
    driving_ = false;
    if (helpers_ > 0) changed_.notify_all();
  }
  changed_.wait(lock, [this] { return !driving_; });
  driving_ = true;
  lock.unlock();
  Finished rest;
  Fail(absl::UnavailableError("the group was closed"), rest);
  for (auto& [pending, result] : rest) pending.message.done(result);
}

absl::StatusOr<Mailbox::Round> Mailbox::Turn(Finished& finished) {
  Round round;
  if (peers_->aborted()) return absl::UnavailableError("the group was aborted");
  RETURN_IF_ERROR(TakeKept(finished));
  needs_.clear();
  for (int peer = 0; peer < peers_->world_size(); ++peer) {
    if (peer == peers_->rank()) continue;
    RETURN_IF_ERROR(Annotate(PumpOut(peer, round, finished), absl::StrCat("sending to rank ", peer)));
    RETURN_IF_ERROR(Annotate(PumpIn(peer, round, finished), absl::StrCat("receiving from rank ", peer)));
    const bool sends = senders_[peer].current.has_value();
    const bool receives = receivers_[peer].header_moved > 0 || Expects(peer);
    if (sends || receives) needs_.push_back({peer, sends, receives});
    for (const std::optional<Pending>* open : {&senders_[peer].current, &receivers_[peer].current}) {
      if (open->has_value() && absl::Now() >= (*open)->deadline) {
        return absl::DeadlineExceededError(absl::StrCat("a message to or from rank ", peer, " did not end in time"));
      }
    }
  }
  const std::lock_guard lock(mutex_);
  for (const std::deque<Pending>* queue : {&outgoing_, &expected_}) {
    for (const Pending& pending : *queue) {
      if (absl::Now() < pending.deadline) continue;
      return absl::DeadlineExceededError(absl::StrCat("no message with tag ", pending.message.tag, " to or from rank ",
                                                      pending.message.peer, " in time"));
    }
  }
  round.busy = !needs_.empty() || !outgoing_.empty();
  busy_ = round.busy;
  return round;
}

absl::Status Mailbox::PumpOut(int peer, Round& round, Finished& finished) {
  Sender& sender = senders_[peer];
  if (!sender.current.has_value()) {
    const std::lock_guard lock(mutex_);
    const auto next = std::ranges::find_if(outgoing_, [&](const Pending& p) { return p.message.peer == peer; });
    if (next == outgoing_.end()) return absl::OkStatus();
    sender.current = std::move(*next);
    outgoing_.erase(next);
    const Message& message = sender.current->message;
    sender.header = {kMagic, message.tag, static_cast<int64_t>(message.type), message.count};
    sender.moved = 0;
  }
  const Message& message = sender.current->message;
  const size_t bytes = Bytes(message.count, static_cast<int64_t>(message.type));
  const size_t in_header = std::min(sender.moved, sizeof(Header));
  const size_t in_data = sender.moved - in_header;
  const iovec pieces[] = {{reinterpret_cast<char*>(&sender.header) + in_header, sizeof(Header) - in_header},
                          {static_cast<char*>(message.data) + in_data, bytes - in_data}};
  ASSIGN_OR_RETURN(const size_t moved, peers_->channel(peer).TrySend(pieces));
  sender.moved += moved;
  round.moved = round.moved || moved > 0;
  if (sender.moved < sizeof(Header) + bytes) return absl::OkStatus();
  finished.push_back({*std::exchange(sender.current, std::nullopt), {absl::OkStatus(), peer}});
  return absl::OkStatus();
}

bool Mailbox::Expects(int peer) {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(expected_, [&](const Pending& pending) {
    return pending.message.peer == peer || pending.message.peer == kAnyPeer;
  });
}

std::optional<Mailbox::Pending> Mailbox::TakeExpected(int peer, int tag) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(expected_, [&](const Pending& pending) {
    return (pending.message.peer == peer || pending.message.peer == kAnyPeer) && pending.message.tag == tag;
  });
  if (found == expected_.end()) return std::nullopt;
  std::optional<Pending> taken = std::move(*found);
  expected_.erase(found);
  return taken;
}

// Where the data of the message goes whose header has come.
absl::Status Mailbox::Dispatch(int peer, Receiver& receiver, Finished& finished) {
  const Header& header = receiver.header;
  if (header.magic != kMagic || !Known(header.type) || header.count < 0) {
    return absl::FailedPreconditionError("what comes is no message");
  }
  receiver.moved = 0;
  receiver.current = TakeExpected(peer, header.tag);
  if (receiver.current.has_value()) {
    const absl::Status agreed = Agree(peer, header, receiver.current->message);
    if (!agreed.ok()) finished.push_back({*std::exchange(receiver.current, std::nullopt), {agreed, peer}});
    return agreed;
  }
  const size_t bytes = Bytes(header.count, header.type);
  if (sizeof(Header) + bytes > kMostKept - kept_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat("messages that nobody waits for: more than ", kMostKept >> 20,
                                                     " MiB; the newest is ", Describe(header)));
  }
  kept_bytes_ += sizeof(Header) + bytes;
  receiver.letter = {header, std::vector<char>(bytes)};
  return absl::OkStatus();
}

absl::Status Mailbox::PumpIn(int peer, Round& round, Finished& finished) {
  Receiver& receiver = receivers_[peer];
  PeerChannel& channel = peers_->channel(peer);
  if (receiver.header_moved < sizeof(Header)) {
    if (receiver.header_moved == 0 && !Expects(peer)) return absl::OkStatus();
    const iovec piece{reinterpret_cast<char*>(&receiver.header) + receiver.header_moved,
                      sizeof(Header) - receiver.header_moved};
    ASSIGN_OR_RETURN(const size_t moved, channel.TryReceive({&piece, 1}));
    receiver.header_moved += moved;
    round.moved = round.moved || moved > 0;
    if (receiver.header_moved < sizeof(Header)) return absl::OkStatus();
    RETURN_IF_ERROR(Dispatch(peer, receiver, finished));
  }
  const size_t bytes = Bytes(receiver.header.count, receiver.header.type);
  if (receiver.moved < bytes) {
    char* data = receiver.current.has_value() ? static_cast<char*>(receiver.current->message.data)
                                              : receiver.letter.bytes.data();
    const iovec piece{data + receiver.moved, bytes - receiver.moved};
    ASSIGN_OR_RETURN(const size_t moved, channel.TryReceive({&piece, 1}));
    receiver.moved += moved;
    round.moved = round.moved || moved > 0;
    if (receiver.moved < bytes) return absl::OkStatus();
  }
  receiver.header_moved = 0;
  round.moved = true;
  if (receiver.current.has_value()) {
    finished.push_back({*std::exchange(receiver.current, std::nullopt), {absl::OkStatus(), peer}});
  } else {
    receiver.kept.push_back(std::move(receiver.letter));
  }
  return absl::OkStatus();
}

// Receives that were asked for after their message had come.
absl::Status Mailbox::TakeKept(Finished& finished) {
  for (int peer = 0; peer < peers_->world_size(); ++peer) {
    std::deque<Letter>& kept = receivers_[peer].kept;
    for (auto letter = kept.begin(); letter != kept.end();) {
      std::optional<Pending> taken = TakeExpected(peer, letter->header.tag);
      if (!taken.has_value()) {
        ++letter;
        continue;
      }
      const absl::Status agreed = Agree(peer, letter->header, taken->message);
      if (agreed.ok() && !letter->bytes.empty()) {
        std::memcpy(taken->message.data, letter->bytes.data(), letter->bytes.size());
      }
      finished.push_back({*std::move(taken), {agreed, peer}});
      RETURN_IF_ERROR(agreed);
      kept_bytes_ -= sizeof(Header) + letter->bytes.size();
      letter = kept.erase(letter);
    }
  }
  return absl::OkStatus();
}

void Mailbox::Fail(const absl::Status& status, Finished& finished) {
  peers_->Abort();
  const auto give = [&](Pending pending) {
    const int peer = pending.message.peer;
    finished.push_back({std::move(pending), {status, peer}});
  };
  for (Sender& sender : senders_) {
    if (sender.current.has_value()) give(*std::exchange(sender.current, std::nullopt));
  }
  for (Receiver& receiver : receivers_) {
    if (receiver.current.has_value()) give(*std::exchange(receiver.current, std::nullopt));
  }
  const std::lock_guard lock(mutex_);
  failed_ = status;
  busy_ = false;
  for (std::deque<Pending>* queue : {&outgoing_, &expected_}) {
    for (Pending& pending : *queue) give(std::move(pending));
    queue->clear();
  }
}

}  // namespace athanor
