#include "server/runtime/effect_runner.h"

#include "server/convert/agent_messages.h"
#include "server/observability/event_log.h"

namespace athanor {

void EffectRunner::Run(core::Effect& effect) {
  std::visit([this](auto& one) { Do(one); }, effect);
}

void EffectRunner::Do(core::PutRecord& put) {
  if (const auto* event = std::get_if<core::JobEventEntry>(&put.record)) LogJobEvent(*event);
}

void EffectRunner::Do(core::RankReply& reply) {
  sessions.AnswerRankCall(reply.call, ReplyOf(reply, checkpoint_root));
}

void EffectRunner::Do(core::AcceptWorker& accept) {
  sessions.Bind(accept.session, accept.worker);
  sessions.Send(accept.session, MessageOf(accept, core.options().lease));
}

void EffectRunner::Do(core::RefuseWorker& refuse) {
  sessions.Send(refuse.session, MessageOf(refuse));
  sessions.Close(refuse.session, absl::FailedPreconditionError(refuse.reason));
}

void EffectRunner::Do(core::LaunchRanks& launch) {
  for (auto& [worker, message] : MessagesOf(launch, checkpoint_root)) sessions.SendToWorker(worker, std::move(message));
}

void EffectRunner::Do(core::StopTrainer& stop) {
  sessions.SendToWorker(stop.worker, MessageOf(stop));
}

void EffectRunner::Do(core::DeleteFiles& deletion) {
  sessions.SendToWorker(deletion.worker, MessageOf(deletion, checkpoint_root));
}

void EffectRunner::Do(core::Touched& touched) {
  if (touched.job.empty()) return;
  metrics.OnJobTouched(core.state(), touched.job);
  watches.Touch(touched.job);
}

void EffectRunner::Do(core::Note& note) {
  metrics.OnNote(note);
  LogNote(note);
}

}  // namespace athanor
