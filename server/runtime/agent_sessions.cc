#include "server/runtime/agent_sessions.h"

#include <utility>
#include <vector>

namespace athanor {

core::SessionId AgentSessions::Open(std::shared_ptr<AgentStream> stream) {
  std::lock_guard lock(mutex_);
  const core::SessionId session = next_session_++;
  sessions_[session] = {std::move(stream), {}};
  return session;
}

void AgentSessions::Bind(core::SessionId session, const core::WorkerId& worker) {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(session);
  if (it == sessions_.end()) return;
  it->second.worker = worker;
  by_worker_[worker] = session;
}

void AgentSessions::Remove(core::SessionId session) {
  std::vector<std::pair<uint64_t, LogCallback>> orphans;
  {
    std::lock_guard lock(mutex_);
    auto it = sessions_.find(session);
    if (it == sessions_.end()) return;
    if (auto bound = by_worker_.find(it->second.worker); bound != by_worker_.end() && bound->second == session)
      by_worker_.erase(bound);
    sessions_.erase(it);
    reads_held_.erase(session);
    std::erase_if(calls_, [&](const auto& call) { return call.second.session == session; });
    for (auto read = reads_.begin(); read != reads_.end();) {
      if (read->second.session != session) {
        ++read;
        continue;
      }
      orphans.emplace_back(read->first, std::move(read->second.callback));
      read = reads_.erase(read);
    }
  }
  for (auto& [stream, callback] : orphans) {
    v1::LogData data;
    data.set_stream(stream);
    data.set_error("the agent's connection ended");
    callback(data);
  }
}

std::shared_ptr<AgentStream> AgentSessions::Find(core::SessionId session) {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(session);
  return it == sessions_.end() ? nullptr : it->second.stream;
}

bool AgentSessions::Send(core::SessionId session, v1::CoordinatorMessage message) {
  const std::shared_ptr<AgentStream> stream = Find(session);
  if (stream != nullptr) stream->Send(std::move(message));
  return stream != nullptr;
}

bool AgentSessions::SendToWorker(const core::WorkerId& worker, v1::CoordinatorMessage message) {
  core::SessionId session = 0;
  {
    std::lock_guard lock(mutex_);
    auto it = by_worker_.find(worker);
    if (it == by_worker_.end()) return false;
    session = it->second;
  }
  return Send(session, std::move(message));
}

void AgentSessions::Close(core::SessionId session, const absl::Status& status) {
  if (const std::shared_ptr<AgentStream> stream = Find(session)) stream->Close(status);
}

void AgentSessions::CloseAll(const absl::Status& status) {
  std::vector<std::shared_ptr<AgentStream>> streams;
  {
    std::lock_guard lock(mutex_);
    for (auto& [id, entry] : sessions_) streams.push_back(entry.stream);
  }
  for (const auto& stream : streams) stream->Close(status);
}

void AgentSessions::HoldRankCall(core::CallId call, core::SessionId session, uint64_t agent_call) {
  std::lock_guard lock(mutex_);
  if (sessions_.contains(session)) calls_[call] = {session, agent_call};
}

void AgentSessions::AnswerRankCall(core::CallId call, v1::RankCallReply reply) {
  HeldCall held;
  {
    std::lock_guard lock(mutex_);
    auto it = calls_.find(call);
    if (it == calls_.end()) return;  // its session ended: the agent asks again
    held = it->second;
    calls_.erase(it);
  }
  reply.set_call(held.agent_call);
  v1::CoordinatorMessage message;
  *message.mutable_reply() = std::move(reply);
  Send(held.session, std::move(message));
}

AgentSessions::ReadSent AgentSessions::ReadLog(const core::WorkerId& worker, v1::ReadLog request,
                                               LogCallback callback) {
  constexpr size_t kMaxReadsOfAgent = 1000;  // an agent refuses more than 1024
  core::SessionId session = 0;
  {
    std::lock_guard lock(mutex_);
    auto it = by_worker_.find(worker);
    if (it == by_worker_.end()) return ReadSent::kNoAgent;
    session = it->second;
    if (reads_held_[session] >= kMaxReadsOfAgent) return ReadSent::kBusy;
    ++reads_held_[session];
    request.set_stream(next_read_++);
    reads_[request.stream()] = {session, std::move(callback)};
  }
  v1::CoordinatorMessage message;
  const uint64_t stream = request.stream();
  *message.mutable_read_log() = std::move(request);
  if (Send(session, std::move(message))) return ReadSent::kYes;
  std::lock_guard lock(mutex_);
  // Answered by Remove() meanwhile, or nobody will.
  return reads_.erase(stream) == 0 ? ReadSent::kYes : ReadSent::kNoAgent;
}

void AgentSessions::OnLogData(const v1::LogData& data) {
  LogCallback callback;
  {
    std::lock_guard lock(mutex_);
    auto it = reads_.find(data.stream());
    if (it == reads_.end()) return;
    callback = std::move(it->second.callback);
    if (auto held = reads_held_.find(it->second.session); held != reads_held_.end()) --held->second;
    reads_.erase(it);
  }
  callback(data);
}

}  // namespace athanor
