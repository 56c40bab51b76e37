#include "athanor/data/stateful_data_loader.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

// Loader threads would each start an OpenMP team as large as the training thread's. The symbol is looked up because
// LibTorch brings its own OpenMP library; linking a second one would set the wrong one's limit.
void KeepThreadSequential() {
  at::init_num_threads();
  if (void* symbol = dlsym(RTLD_DEFAULT, "omp_set_num_threads")) reinterpret_cast<void (*)(int)>(symbol)(1);
}

absl::Status CheckOptions(const Dataset* dataset, const LoaderOptions& o) {
  const auto bad = [](auto&&... what) { return absl::InvalidArgumentError(absl::StrCat("data loader: ", what...)); };
  if (dataset == nullptr || dataset->size() <= 0) return bad("the dataset has no samples");
  if (o.batch_size <= 0) return bad("batch_size: found ", o.batch_size, "; allowed: integer > 0");
  if (o.num_workers < 0 || o.num_workers > 256) return bad("num_workers: found ", o.num_workers, "; allowed: 0 to 256");
  if (o.prefetch_factor < 1 || o.prefetch_factor > 1024)
    return bad("prefetch_factor: found ", o.prefetch_factor, "; allowed: 1 to 1024");
  if (o.snapshot_every_n_steps < 1)
    return bad("snapshot_every_n_steps: found ", o.snapshot_every_n_steps, "; allowed: integer > 0");
  if (!(o.timeout > 0)) return bad("timeout: found ", o.timeout, "; allowed: seconds > 0");
  if (o.world_size < 1 || o.rank < 0 || o.rank >= o.world_size)
    return bad("rank ", o.rank, " of ", o.world_size, " ranks");
  if (o.pin_memory && !at::globalContext().hasCUDA()) return bad("pin_memory: found true; allowed without CUDA: false");
  const int64_t share = o.drop_last ? dataset->size() / o.world_size : 1;
  if (o.drop_last && share < o.batch_size) {
    return bad("drop_last leaves nothing: ", share, " samples per rank, batch_size ", o.batch_size);
  }
  return absl::OkStatus();
}

}  // namespace

class StatefulDataLoader::Impl {
 public:
  Impl(std::shared_ptr<const Dataset> dataset, LoaderOptions options)
      : dataset_(std::move(dataset)),
        options_(std::move(options)),
        sampler_({.dataset_size = dataset_->size(),
                  .world_size = options_.world_size,
                  .rank = options_.rank,
                  .shuffle = options_.shuffle,
                  .drop_last = options_.drop_last,
                  .seed = options_.seed,
                  .padding = options_.padding}) {
    whole_epoch_ = total_ = CountBatches();
  }

  ~Impl() { StopWorkers(); }

  void StopWorkers() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    work_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    stop_ = false;
  }

  absl::Status StartWorkers() {
    try {
      for (int i = 0; i < options_.num_workers; ++i) workers_.emplace_back([this] { Work(); });
    } catch (const std::system_error& error) {
      return absl::ResourceExhaustedError(absl::StrCat("data loader: cannot start thread ", workers_.size(), " of ",
                                                       options_.num_workers, ": ", error.what()));
    }
    return absl::OkStatus();
  }

  void Start(int64_t epoch, int64_t offset, int64_t low, std::set<int64_t> ahead, bool active) {
    {
      const std::lock_guard lock(mutex_);
      sampler_.StartEpoch(epoch, offset);
      total_ = CountBatches();
      ++generation_;
      ready_.clear();
      retry_.clear();
      in_flight_ = 0;
      low_ = std::min(low, total_);
      ahead_ = std::move(ahead);
      next_ = low_;
      active_ = active;
    }
    work_.notify_all();
  }

  absl::Status Skip() {
    const std::lock_guard lock(mutex_);
    if (low_ >= total_) return absl::OutOfRangeError(absl::StrCat("end of epoch ", sampler_.epoch()));
    Give(low_);
    // Nothing is made ahead of a batch that may be skipped too.
    ++generation_;
    ready_.clear();
    retry_.clear();
    in_flight_ = 0;
    next_ = low_;
    active_ = false;
    return absl::OkStatus();
  }

  absl::StatusOr<Batch> Next() {
    if (position() >= total_) {
      if (!options_.persistent_workers) StopWorkers();
      return absl::OutOfRangeError(absl::StrCat("end of epoch ", sampler_.epoch()));
    }
    if (workers_.empty() && options_.num_workers > 0) RETURN_IF_ERROR(StartWorkers());
    std::unique_lock lock(mutex_);
    if (workers_.empty()) {
      const int64_t number = low_;
      absl::StatusOr<Batch> batch =
          Make(number, sampler_.epoch(), sampler_.Indices(number * options_.batch_size, options_.batch_size));
      if (batch.ok()) Give(number);
      return batch;
    }
    if (!active_) {
      active_ = true;
      work_.notify_all();
    }
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                               std::chrono::duration<double>(options_.timeout));
    auto found = ready_.end();
    const bool came = result_.wait_until(lock, deadline, [&] {
      found = options_.in_order ? ready_.find(low_) : ready_.begin();
      return found != ready_.end();
    });
    if (!came) {
      return absl::DeadlineExceededError(absl::StrCat("data loader: batch ", low_, " of epoch ", sampler_.epoch(),
                                                      " was not ready within ", options_.timeout, " s"));
    }
    const int64_t number = found->first;
    absl::StatusOr<Batch> batch = std::move(found->second);
    ready_.erase(found);
    --in_flight_;
    if (batch.ok()) {
      Give(number);
    } else {
      retry_.push_back(number);
    }
    lock.unlock();
    work_.notify_one();
    return batch;
  }

  nlohmann::json StateDict() const {
    const std::lock_guard lock(mutex_);
    const int64_t size = dataset_->size();
    nlohmann::json state = {
        {"epoch", sampler_.epoch()},
        {"offset", sampler_.offset()},
        {"position", low_},
        {"samples", std::min(size, sampler_.offset() + low_ * options_.batch_size * options_.world_size)},
        {"seed", options_.seed},
        {"shuffle", options_.shuffle},
        {"dataset_size", size},
        {"batch_size", options_.batch_size},
        {"world_size", options_.world_size}};
    if (!ahead_.empty()) state["ahead"] = ahead_;
    return state;
  }

  absl::Status LoadStateDict(const nlohmann::json& state) {
    int64_t epoch = 0, offset = 0, position = 0, samples = 0, size = 0;
    bool same_division = false;
    std::set<int64_t> ahead;
    try {
      epoch = state.at("epoch").get<int64_t>();
      offset = state.at("offset").get<int64_t>();
      position = state.at("position").get<int64_t>();
      samples = state.at("samples").get<int64_t>();
      size = state.at("dataset_size").get<int64_t>();
      same_division = state.at("batch_size") == options_.batch_size && state.at("world_size") == options_.world_size;
      if (state.contains("ahead")) ahead = state.at("ahead").get<std::set<int64_t>>();
      if (state.at("seed") != options_.seed || state.at("shuffle") != options_.shuffle) {
        return absl::InvalidArgumentError(absl::StrCat(
            "data loader state: found seed ", state.at("seed").dump(), ", shuffle ", state.at("shuffle").dump(),
            "; allowed: seed ", options_.seed, ", shuffle ", options_.shuffle ? "true" : "false"));
      }
    } catch (const nlohmann::json::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat("data loader state is damaged: ", error.what()));
    }
    if (size != dataset_->size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("data loader state: found a dataset of ", size, " samples; allowed: ", dataset_->size()));
    }
    if (epoch < 0 || position < 0 || offset < 0 || offset > size || samples < offset || samples > size) {
      return absl::InvalidArgumentError(absl::StrCat("data loader state is damaged: ", state.dump()));
    }
    if (same_division) {
      Start(epoch, offset, position, std::move(ahead), false);
    } else {
      Start(epoch, samples, 0, {}, false);
    }
    return absl::OkStatus();
  }

  int64_t epoch() const { return sampler_.epoch(); }  // written by the caller's thread only
  int64_t whole_epoch() const { return whole_epoch_; }
  int64_t position() const {
    const std::lock_guard lock(mutex_);
    return low_ + static_cast<int64_t>(ahead_.size());
  }
  int64_t total() const { return total_; }
  const LoaderOptions& options() const { return options_; }

 private:
  int64_t CountBatches() const {
    return options_.drop_last ? sampler_.size() / options_.batch_size
                              : (sampler_.size() + options_.batch_size - 1) / options_.batch_size;
  }

  void Give(int64_t number) {
    ahead_.insert(number);
    while (!ahead_.empty() && *ahead_.begin() == low_) {
      ahead_.erase(ahead_.begin());
      ++low_;
    }
    next_ = std::max(next_, low_);
  }

  absl::StatusOr<Batch> Make(int64_t number, int64_t epoch, std::vector<int64_t> indices) const {
    std::erase(indices, -1);
    const auto size = static_cast<int64_t>(indices.size());
    if (indices.empty()) indices.push_back(0);  // a stand-in, so that the model can run; weight 0
    try {
      absl::StatusOr<Batch> batch = dataset_->GetInEpoch(indices, epoch);
      if (!batch.ok()) return Annotate(batch.status(), absl::StrCat("batch ", number));
      // A dataset may leave damaged samples out of the batch; one that says nothing means all.
      batch->size = batch->size == 0 ? size : std::min(batch->size, size);
      if (batch->size != size && !dataset_->may_leave_out()) {
        return absl::InternalError(absl::StrCat("batch ", number, ": the dataset gave ", batch->size, " of ", size,
                                                " samples; one that leaves samples out says so by may_leave_out()"));
      }
      if (options_.pin_memory) {
        if (batch->input.defined()) batch->input = batch->input.pin_memory();
        if (batch->target.defined()) batch->target = batch->target.pin_memory();
        if (batch->ragged.has_value()) batch->ragged = batch->ragged->pin_memory();
        for (auto& [name, tensor] : batch->more) tensor = tensor.pin_memory();
        if (batch->ragged_target.has_value()) batch->ragged_target = batch->ragged_target->pin_memory();
      }
      return batch;
    } catch (const std::exception& error) {
      return absl::UnknownError(absl::StrCat("batch ", number, ": the dataset threw: ", error.what()));
    }
  }

  bool Wanted() const {
    return active_ && in_flight_ < int64_t{options_.num_workers} * options_.prefetch_factor &&
           (!retry_.empty() || next_ < total_);
  }

  int64_t TakeNumber() {
    ++in_flight_;
    if (!retry_.empty()) {
      const int64_t number = retry_.front();
      retry_.pop_front();
      return number;
    }
    const int64_t number = next_++;
    while (ahead_.contains(next_)) ++next_;
    return number;
  }

  void Work() {
    KeepThreadSequential();
    const torch::NoGradGuard no_grad;
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [&] { return stop_ || Wanted(); });
      if (stop_) return;
      const int64_t number = TakeNumber();
      const uint64_t generation = generation_;
      const int64_t epoch = sampler_.epoch();
      std::vector<int64_t> indices = sampler_.Indices(number * options_.batch_size, options_.batch_size);
      lock.unlock();
      absl::StatusOr<Batch> batch = Make(number, epoch, std::move(indices));
      lock.lock();
      if (generation != generation_) continue;  // of an epoch that was left
      ready_.emplace(number, std::move(batch));
      result_.notify_one();
    }
  }

  const std::shared_ptr<const Dataset> dataset_;
  const LoaderOptions options_;
  int64_t whole_epoch_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable work_, result_;
  DistributedSampler sampler_;
  int64_t total_ = 0;        // batches of the present division
  int64_t low_ = 0;          // all batches before it were given out
  std::set<int64_t> ahead_;  // given out beyond low_ (not in order)
  int64_t next_ = 0;         // to be made next
  int64_t in_flight_ = 0;    // in the making or ready
  uint64_t generation_ = 0;
  bool active_ = false;
  bool stop_ = false;
  std::map<int64_t, absl::StatusOr<Batch>> ready_;
  std::deque<int64_t> retry_;
  std::vector<std::thread> workers_;
};

StatefulDataLoader::StatefulDataLoader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StatefulDataLoader::~StatefulDataLoader() = default;

absl::StatusOr<std::unique_ptr<StatefulDataLoader>> StatefulDataLoader::Make(std::shared_ptr<const Dataset> dataset,
                                                                             LoaderOptions options) {
  RETURN_IF_ERROR(CheckOptions(dataset.get(), options));
  auto impl = std::make_unique<Impl>(std::move(dataset), std::move(options));
  RETURN_IF_ERROR(impl->StartWorkers());
  return std::unique_ptr<StatefulDataLoader>(new StatefulDataLoader(std::move(impl)));
}

void StatefulDataLoader::StartEpoch(int64_t epoch, bool prefetch) {
  impl_->Start(epoch, 0, 0, {}, prefetch);
}
absl::StatusOr<Batch> StatefulDataLoader::Next() {
  return impl_->Next();
}
absl::Status StatefulDataLoader::Skip() {
  return impl_->Skip();
}
int64_t StatefulDataLoader::epoch() const {
  return impl_->epoch();
}
int64_t StatefulDataLoader::batches_per_epoch() const {
  return impl_->whole_epoch();
}
int64_t StatefulDataLoader::position() const {
  return impl_->position();
}
int64_t StatefulDataLoader::remaining() const {
  return impl_->total() - impl_->position();
}
nlohmann::json StatefulDataLoader::StateDict() const {
  return impl_->StateDict();
}
absl::Status StatefulDataLoader::LoadStateDict(const nlohmann::json& state) {
  return impl_->LoadStateDict(state);
}
const LoaderOptions& StatefulDataLoader::options() const {
  return impl_->options();
}

}  // namespace athanor
