#include "bench/programs/swarm_agent.h"

#include "athanor/base/version.h"
#include "common/service/protocol_version.h"

namespace athanor::bench {

void SwarmAgent::Begin(v1::AgentService::Stub& stub) {
  v1::Register& message = *outgoing_.mutable_register_();
  message.set_worker(name_);
  message.set_host("127.0.0.1");
  message.set_slots(1);
  message.set_device("cpu");
  message.set_version(Version());
  message.set_protocol(kProtocolVersion);
  message.set_instance(name_);
  writing_ = true;
  stub.async()->Session(&context_, this);
  StartRead(&incoming_);
  StartWrite(&outgoing_);
  StartCall();
}

bool SwarmAgent::Beat() {
  std::lock_guard lock(mutex_);
  if (over_ || leaving_ || writing_ || waiting_) return false;
  outgoing_.Clear();
  outgoing_.mutable_heartbeat()->set_number(++number_);
  writing_ = waiting_ = true;
  sent_ = Clock::now();
  StartWrite(&outgoing_);
  return true;
}

void SwarmAgent::Leave() {
  {
    std::lock_guard lock(mutex_);
    leaving_ = true;
  }
  context_.TryCancel();
}

std::vector<double> SwarmAgent::TakeLatencies() {
  std::lock_guard lock(mutex_);
  return std::exchange(latencies_, {});
}

void SwarmAgent::OnReadDone(bool ok) {
  if (!ok) return;
  if (incoming_.has_registered()) swarm_->Change(&SwarmState::registered);
  if (incoming_.has_heartbeat_ack()) {
    std::lock_guard lock(mutex_);
    if (incoming_.heartbeat_ack().number() == number_) {
      latencies_.push_back(SecondsSince(sent_));
      waiting_ = false;
    }
  }
  incoming_.Clear();
  StartRead(&incoming_);
}

void SwarmAgent::OnWriteDone(bool /*ok*/) {
  std::lock_guard lock(mutex_);
  writing_ = false;
}

void SwarmAgent::OnDone(const grpc::Status& status) {
  bool left = false;
  {
    std::lock_guard lock(mutex_);
    over_ = true;
    left = leaving_;
  }
  swarm_->Change(&SwarmState::ended, left ? "" : absl::StrCat(name_, ": ", status.error_message()));
}

}  // namespace athanor::bench
