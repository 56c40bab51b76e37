// The stream to the coordinator, opened again whenever it ends. gRPC threads only post to the loop. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/v1/agent_service.pb.h"
#include "common/service/channel.h"

namespace athanor::agent {

class CoordinatorSession {
 public:
  struct Handlers {  // called on gRPC threads; `session` grows with each attempt
    std::function<void(uint64_t session, const v1::CoordinatorMessage& message)> on_message;
    std::function<void(uint64_t session, const absl::Status& status)> on_closed;
  };
  static absl::StatusOr<std::unique_ptr<CoordinatorSession>> Create(const std::string& address,
                                                                    const ChannelOptions& options, Handlers handlers);
  virtual ~CoordinatorSession() = default;
  // Starts an attempt; messages may be sent at once. Its end is told by on_closed.
  virtual uint64_t Open() = 0;
  virtual void Send(uint64_t session, v1::AgentMessage message) = 0;
  virtual void Close() = 0;
};

}  // namespace athanor::agent
