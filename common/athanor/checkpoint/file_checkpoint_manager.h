// Saves and restores a job's TrainingState as directories of safetensors shards with a JSON manifest
// (docs/checkpoint-format.md).
//
//   <root>/step-000000000120/shard-00000-of-00002.safetensors
//                            shard-00001-of-00002.safetensors
//                            manifest.json                       <- its presence makes the checkpoint complete
//   <root>/latest.pointer      <- names of checkpoints, where no coordinator keeps them (alias_files.h)
//
// Save() copies the state into host memory kept between saves (the only part training waits for), and hands it to the
// writer thread: tmp file, fsync, rename, fsync of the folder. One shard is written at a time. From there the commit
// thread takes over: vote, manifest. It may wait for other ranks or for a coordinator that is away; meanwhile training
// and further saves go on, up to kMaxPendingCommits of them.
//
// Once the manifest is durable the files are a checkpoint's, and only retention removes them, whatever fails after it:
// a name that cannot be written, a commit whose answer is lost. Before that a rank removes its own shard, when it is
// sure that no manifest can name it.
//
// Threads: all methods on the training thread; the writer and the commit thread are internal.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "athanor/checkpoint/committer.h"
#include "athanor/checkpoint/slice_reader.h"
#include "athanor/checkpoint/training_state.h"

namespace athanor {

struct CheckpointManagerOptions {
  std::string root;  // created when missing
  // Where the storage is mounted, and its id (athanor/base/storage_id.h): while another one is there, saves fail, and
  // nothing goes into an empty mount point. An empty id: not checked.
  std::string storage_root, storage;
  ProgressCallback on_bytes;  // hears of bytes read and written; optional
  int rank = 0;
  int world_size = 1;
  bool async = true;         // false: Save() returns when the checkpoint is committed (or has failed)
  bool load_only = false;    // Save() does nothing
  int keep_latest_k = 0;     // 0 = keep all; ignored where the committer owns retention
  std::string export_dtype;  // "", "fp32", "fp16", "bf16", "fp64": of floating tensors in `replicated`
};

struct SaveRequest {
  int64_t step = 0;
  std::map<std::string, double> metrics;
  bool is_best = false;
  // names for it: "latest", "best" …; where the committer keeps names they are its own
  std::vector<std::string> aliases;
  bool must_wait = false;  // wait for room instead of skipping this one (final and stop checkpoints)
  bool evaluated = false;  // ReportEvaluation(): `metrics` stand for the evaluation; a resume need not repeat it
};

struct CheckpointStats {                       // of this process
  int64_t saved = 0, failed = 0, skipped = 0;  // skipped: there was no room
  int64_t unnamed = 0;  // of those saved: whole, but a name or the evaluation's results could not be written
  int64_t bytes = 0;
  double stall_seconds = 0;  // training waited
  std::string last_error;
  int64_t last_committed_step = -1;
  std::vector<std::string> last_aliases;  // of the newest committed one, in order
};

// One place to resume from. `path` is the checkpoint's directory.
struct ResumeCandidate {
  int64_t step = -1;
  std::string path;
  bool weights_only = false;  // take `model.*` only (a parent job's checkpoint, pretrained)
  std::string storage;        // id of the storage that it was written to; empty: unknown
};

class FileCheckpointManager {
 public:
  static constexpr size_t kMaxPendingCommits = 8;  // saves whose shard is on disk and whose commit is not yet known

  // `committer` outlives the manager.
  static absl::StatusOr<std::unique_ptr<FileCheckpointManager>> Create(CheckpointManagerOptions options,
                                                                       CheckpointCommitter* committer);
  ~FileCheckpointManager();  // waits for the saves in flight, at most 10 s

  // Snapshots `state` and starts writing. Never fails because of the disk: a failed write is counted, logged to
  // `stats().last_error` and abandoned; training goes on. INVALID_ARGUMENT for a state that cannot be written
  // (undefined tensor, sparse).
  absl::Status Save(const TrainingState& state, const SaveRequest& request);
  // Other names for a checkpoint that is committed. NOT_FOUND when there is none of that step.
  absl::Status Point(int64_t step, const std::vector<std::string>& aliases);
  // Attaches the results of an evaluation to the checkpoint of `request.step`, which was given to Save() before it: its
  // manifest and the committer get `metrics` and `is_best`, and it gets further names. Returns at once: done on the
  // commit thread after that checkpoint's commit; left out when that has failed. Rank 0's; the others do nothing.
  void ReportEvaluation(const SaveRequest& request);
  // OK when a Save() would start now: waits at most `timeout` for the shard that is being written (DEADLINE_EXCEEDED),
  // and not at all for commits: UNAVAILABLE when kMaxPendingCommits are pending.
  absl::Status WaitForRoom(absl::Duration timeout);
  // Returns when nothing is in flight, or DEADLINE_EXCEEDED. The status is that of the last save; a name that could not
  // be written does not count.
  absl::Status Wait(absl::Duration timeout);

  // Complete checkpoints in `root`, newest first (manifest present and well formed).
  absl::StatusOr<std::vector<ResumeCandidate>> ListLocal() const;

  // Reads one checkpoint: manifest, every shard's size and CRC32C, every tensor. DATA_LOSS names file and offset of the
  // damage; UNAVAILABLE (IsStorageUnavailable()): its storage cannot be reached, which is no damage. The choice among
  // candidates over ranks is the runner's: all ranks must agree.
  absl::StatusOr<RestoredState> Read(const ResumeCandidate& candidate) const;

  CheckpointStats stats() const;  // thread-safe

 private:
  class Impl;
  explicit FileCheckpointManager(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace athanor
