// An agent and a coordinator in one, for one generation of one job: answers TrainerService on a Unix socket as they
// would. Thread-safe.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "athanor/v1/trainer_service.grpc.pb.h"

namespace athanor {

class FakeAgent : public v1::TrainerService::Service {
 public:
  FakeAgent(const std::string& socket, int world_size) : world_size_(world_size) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeAgent() override {
    {
      std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    server_->Shutdown(std::chrono::system_clock::now());
  }

  // What the next generation may resume from.
  void OfferResume(int64_t step, const std::string& path, const std::string& storage = "") {
    std::lock_guard lock(mutex_);
    v1::ResumePoint& point = *plan_.add_resume();
    point.set_step(step);
    point.set_path(path);
    point.set_storage(storage);
  }
  // A rank that joins and is never seen again.
  void PretendJoined(int rank) {
    std::lock_guard lock(mutex_);
    joined.insert(rank);
    changed_.notify_all();
  }
  // From now on every call is told that its generation is over.
  void EndGeneration() {
    std::lock_guard lock(mutex_);
    stale_ = true;
  }
  void AskToStop(const std::string& reason) {
    std::lock_guard lock(mutex_);
    stop_reason_ = reason;
    changed_.notify_all();
  }
  // True once `done(*this)` holds, which sees the fields below; false after the deadline.
  template <typename Done>
  bool WaitUntil(Done done, std::chrono::seconds deadline = std::chrono::seconds(60)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, deadline, [&] { return done(*this); });
  }

  // Read them within WaitUntil(), or when no rank runs any longer.
  std::map<int, v1::RankProgress> progress;
  std::set<int> joined, finished;
  std::vector<int64_t> committed;
  std::vector<v1::ReportEvaluation> evaluated;
  std::map<int, v1::RankProgress> final_progress;
  std::vector<std::string> abandoned, damaged;
  std::string storage;  // of the last commit

  grpc::Status Call(grpc::ServerContext* context, const v1::TrainerCall* request, v1::RankCallReply* reply) override {
    std::unique_lock lock(mutex_);
    const v1::RankCall& call = request->call();
    const int rank = call.id().rank();
    reply->set_call(call.call());
    if (stale_) {
      reply->set_code(static_cast<int>(grpc::StatusCode::FAILED_PRECONDITION));
      reply->set_message("generation 1 is over");
      return grpc::Status::OK;
    }
    if (call.has_join()) {
      joined.insert(rank);
      if (rank == 0) plan_.set_store_endpoint(call.join().endpoint());
      if (!Hold(lock, context, [this] { return static_cast<int>(joined.size()) == world_size_; })) return Gone();
      *reply->mutable_plan() = plan_;
      reply->mutable_plan()->set_world_size(world_size_);
    } else if (call.has_commit_shard()) {
      const int64_t step = call.commit_shard().step();
      shards_[step][rank] = call.commit_shard().shard();
      changed_.notify_all();
      if (rank != 0) return grpc::Status::OK;
      if (!Hold(lock, context, [&] { return static_cast<int>(shards_[step].size()) == world_size_; })) return Gone();
      for (const auto& [shard_rank, shard] : shards_[step]) *reply->add_shards() = shard;
    } else if (call.has_commit_manifest()) {
      committed.push_back(call.commit_manifest().step());
      storage = call.commit_manifest().storage();
    } else if (call.has_report_evaluation()) {
      evaluated.push_back(call.report_evaluation());
    } else if (call.has_finish()) {
      finished.insert(rank);
      final_progress[rank] = call.finish().progress();
    } else if (call.has_abandon_checkpoint()) {
      abandoned.push_back(call.abandon_checkpoint().reason());
    } else if (call.has_report_damage()) {
      damaged.push_back(call.report_damage().reason());
    }
    changed_.notify_all();
    return grpc::Status::OK;
  }

  grpc::Status Report(grpc::ServerContext*, const v1::TrainerReport* report, v1::TrainerReportReply*) override {
    std::lock_guard lock(mutex_);
    progress[report->id().rank()] = report->progress();
    changed_.notify_all();
    return grpc::Status::OK;
  }

  grpc::Status Control(grpc::ServerContext* context, const v1::ControlRequest*,
                       grpc::ServerWriter<v1::ControlDirective>* writer) override {
    std::unique_lock lock(mutex_);
    if (!Hold(lock, context, [this] { return !stop_reason_.empty(); })) return Gone();
    v1::ControlDirective directive;
    directive.set_stop(v1::SAVE_AND_LEAVE);
    directive.set_reason(stop_reason_);
    writer->Write(directive);
    Hold(lock, context, [] { return false; });
    return grpc::Status::OK;
  }

 private:
  template <typename Ready>
  bool Hold(std::unique_lock<std::mutex>& lock, grpc::ServerContext* context, Ready ready) {
    changed_.notify_all();
    while (!ready()) {
      if (closing_ || context->IsCancelled()) return false;
      changed_.wait_for(lock, std::chrono::milliseconds(50));
    }
    return true;
  }
  static grpc::Status Gone() { return {grpc::StatusCode::UNAVAILABLE, "the agent is closing"}; }

  const int world_size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closing_ = false, stale_ = false;
  std::string stop_reason_;
  v1::RendezvousPlan plan_;
  std::map<int64_t, std::map<int, v1::ShardInfo>> shards_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace athanor
