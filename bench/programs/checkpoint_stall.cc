// How long an asynchronous save holds up the training thread, beside a plain memcpy of the same tensors into memory
// that is already there. The two take turns; each save is complete before the next turn.
//
//   bench_checkpoint_stall '{"directory": "/tmp/x", "megabytes": 128, "tensors": 64, "rounds": 7}'
#include <torch/torch.h>

#include <cstring>
#include <memory>

#include "athanor/base/status_macros.h"
#include "athanor/checkpoint/file_checkpoint_manager.h"
#include "athanor/checkpoint/local_committer.h"
#include "bench/programs/program.h"

namespace athanor::bench {
namespace {

constexpr absl::Duration kSaveTimeout = absl::Minutes(2);

TrainingState MakeState(int64_t bytes, int64_t tensors) {
  TrainingState state;
  const int64_t numbers = bytes / tensors / static_cast<int64_t>(sizeof(float));
  for (int64_t i = 0; i < tensors; ++i)
    state.replicated[absl::StrCat("model.layer", i, ".weight")] = torch::randn({numbers});
  state.meta = {{"step", 0}};
  return state;
}

int64_t Bytes(const TrainingState& state) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : state.replicated) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

double CopySeconds(const TrainingState& state, char* to) {
  const Clock::time_point began = Clock::now();
  for (const auto& [name, tensor] : state.replicated) {
    std::memcpy(to, tensor.data_ptr(), tensor.nbytes());
    to += tensor.nbytes();
  }
  return SecondsSince(began);
}

absl::StatusOr<double> SaveSeconds(FileCheckpointManager* checkpoints, const TrainingState& state, int64_t step) {
  const Clock::time_point began = Clock::now();
  RETURN_IF_ERROR(checkpoints->Save(state, {.step = step}));
  const double stall = SecondsSince(began);
  RETURN_IF_ERROR(checkpoints->Wait(kSaveTimeout));
  return stall;
}

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  torch::set_num_threads(1);
  const TrainingState state = MakeState(settings["megabytes"].get<int64_t>() << 20, settings["tensors"]);
  const int64_t bytes = Bytes(state);
  const auto buffer = std::make_unique<char[]>(static_cast<size_t>(bytes));
  std::memset(buffer.get(), 1, static_cast<size_t>(bytes));
  const std::string root = settings["directory"];
  LocalCommitter committer(root, /*rank=*/0, /*world_size=*/1);
  ASSIGN_OR_RETURN(const auto checkpoints,
                   FileCheckpointManager::Create({.root = root, .keep_latest_k = 1}, &committer));

  // The first save makes the staging memory, once a run.
  ASSIGN_OR_RETURN(const double first, SaveSeconds(checkpoints.get(), state, 1));
  CopySeconds(state, buffer.get());
  std::vector<double> copies, saves;
  for (int64_t round = 0; round < settings["rounds"].get<int64_t>(); ++round) {
    copies.push_back(CopySeconds(state, buffer.get()));
    ASSIGN_OR_RETURN(const double save, SaveSeconds(checkpoints.get(), state, round + 2));
    saves.push_back(save);
  }
  const CheckpointStats stats = checkpoints->stats();
  if (stats.failed != 0 || stats.skipped != 0)
    return absl::InternalError(
        absl::StrCat(stats.failed, " saves failed, ", stats.skipped, " were skipped: ", stats.last_error));
  return nlohmann::json{
      {"bytes", bytes}, {"first_save_seconds", first}, {"memcpy_seconds", copies}, {"save_seconds", saves}};
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(argc, argv, {{"directory", ""}, {"megabytes", 128}, {"tensors", 64}, {"rounds", 7}},
                              athanor::bench::Run);
}
