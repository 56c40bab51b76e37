// Says in the agent's log why it has no session with its coordinator: a new reason at once, the same one once a minute.
//
//   ContactLog contact(config, &files);
//   contact.NotConnected(status, now);   // the session ended before the registration was answered
//
// Not thread-safe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/agent/agent_config.h"
#include "worker/agent/task_thread.h"

namespace athanor::agent {

class ContactLog {
 public:
  // `probes` looks whether one side speaks TLS and the other plain text, which gRPC does not tell.
  ContactLog(const AgentConfig& config, TaskThread* probes)
      : coordinator_(config.coordinator), tls_(config.channel.tls.enabled()), probes_(probes) {}
  void Connected();
  void Ended(const absl::Status& status);  // a session that was registered
  void Refused(const std::string& reason, absl::Time now);
  void NotConnected(const absl::Status& status, absl::Time now);

 private:
  bool IsNews(const std::string& reason, absl::Time now);

  const std::string coordinator_;
  const bool tls_;
  TaskThread* const probes_;
  std::string said_;
  absl::Time say_again_ = absl::InfinitePast();
};

}  // namespace athanor::agent
