// Serves the ranks of this machine: TrainerService on a Unix socket that only this user can open. gRPC threads only
// post to the loop; the loop answers through Answer() and Direct(), which are thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/v1/trainer_service.pb.h"
#include "common/service/listener.h"
#include "worker/agent/rank_key.h"

namespace athanor::agent {

class RankServer {
 public:
  struct Handlers {  // called on gRPC threads
    std::function<void(uint64_t token, const v1::RankCall& call)> on_call;
    std::function<void(uint64_t token)> on_call_gone;
    std::function<void(const v1::TrainerReport& report)> on_report;
  };
  // Listens in `directory`, or in a fresh short one where the path would be too long for a socket.
  static absl::StatusOr<std::unique_ptr<RankServer>> Open(const std::string& directory, const ListenerOptions& options,
                                                          Handlers handlers);
  virtual ~RankServer() = default;
  virtual const std::string& socket_path() const = 0;
  virtual void Answer(uint64_t token, const v1::RankCallReply& reply) = 0;
  // Kept until the rank opens its Control stream.
  virtual void Direct(const RankKey& key, const v1::ControlDirective& directive) = 0;
  virtual void Forget(const RankKey& key) = 0;
  // Makes a call of no rank through the socket and the loop: do ranks get an answer? Blocks for at most `limit`.
  virtual absl::Status CallSelf(absl::Duration limit) = 0;
  // What Report answers: whether calls wait for a coordinator that is away, and how long the lease lasts.
  virtual void SetContact(bool coordinator_away, absl::Time lease_until) = 0;
  virtual void Close() = 0;
};

}  // namespace athanor::agent
