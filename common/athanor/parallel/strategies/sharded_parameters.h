// Parameters, gradients and optimizer state divided over the ranks (ZeRO-3, FSDP), for any torch::nn::Module and any
// TorchScript module, without changing it. A unit's parameters are gathered just before their first use, freed when
// another unit is used, and their gradients are summed into shards as soon as the unit's are complete.
//
//   ASSIGN_OR_RETURN(auto sharded, ShardedParameters::Create(UnitsByName(parameters, {"blocks.*"}), group, {}));
//   auto optimizer = MakeOptimizer(config, sharded->Slices());      // 1-D views: what this rank owns
//   everywhere for (batches) {
//     RETURN_IF_ERROR(sharded->Begin());
//     RETURN_IF_ERROR(RunTorch("step", [&] { model->forward(x).backward(); }));
//     RETURN_IF_ERROR(sharded->FinishBackward(1.0 / ranks));       // slices have their .grad
//     optimizer.Step();
//   }
//
// A gather is a collective: every rank uses the units in the same order. The order of the last step is remembered and
// the next unit is gathered ahead, beside the computation. Memory at the peak: 1/N of parameters, gradients and state,
// and about five units. Units below 1 MB cost more in messages than they save.
//
// Refused, with the parameter's name, by an exception out of the operator: writing to a parameter while it is gathered
// (the next free would lose it), and using one outside of Begin() and Release() or FinishBackward(). Serialization is
// not seen: save the slices, or what Gathered() gives. Buffers are left alone: every rank has its own.
//
// Shared parameters belong to the first unit that names them. Frozen ones are sharded without a gradient. A parameter
// that got no gradient in a step has none afterwards: which do must be the same on every rank.
//
// Errors: UNAVAILABLE of a lost rank, and what operators throw. Threads: forward and backward of one training thread
// (and autograd's device threads).
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/parallel/process_group.h"
#include "athanor/parallel/strategies/flat_unit.h"

namespace athanor {

struct ShardUnit {
  std::string name;
  std::vector<NamedParameter> parameters;
};

// Divides parameters into units: one for each text that a pattern's '*' stands for ("blocks.*" makes blocks.0,
// blocks.1, ...), the rest in one unit "root". Without patterns children of a list (names with a number in them) are
// units of their own.
std::vector<ShardUnit> UnitsByName(const std::vector<NamedParameter>& parameters,
                                   const std::vector<std::string>& patterns);

struct ShardingOptions {
  // Parameters are always whole on every rank, and gradients and optimizer state are divided (ZeRO-1, ZeRO-2): after
  // the slices have changed, Refresh(). No operator is watched.
  bool parameters_stay = false;
  // Gradients add up whole on every rank until the last backward pass (Pass()), and are summed over the ranks once;
  // else after each pass, which keeps one slice of them only.
  bool sum_once = false;
  bool reshard_after_forward = true;  // false: a unit stays from forward to backward; more memory, fewer gathers
  bool prefetch = true;
  std::optional<torch::ScalarType> parameter_type;  // in which parameters are gathered and used; unset: their own
  std::optional<torch::ScalarType> reduce_type;     // in which gradients are summed; unset: that of the gradients
  std::optional<torch::Device> shard_device;        // of slices, gradients and state; unset: the parameters'
  ProcessGroup* replicas = nullptr;  // ranks that hold the same slices: gradients are summed over them, too
};

class ShardedParameters {
 public:
  // What this rank owns of a parameter: `value` is a 1-D view of the shard, which begins at element `begin` of the
  // flattened parameter.
  struct Slice {
    std::string name;
    torch::Tensor value;
    int64_t begin = 0;
    std::vector<int64_t> shape;  // of the whole parameter
    torch::Tensor parameter;     // the module's
  };
  struct Counts {
    int64_t gathers = 0;     // of this step
    int64_t prefetched = 0;  // of those, begun ahead of use
  };

  // Collective. Values are those of each rank: make them alike before (GradientReducer, or one seed). INVALID_ARGUMENT:
  // no parameters, parameters of a unit on several devices. A unit of several dtypes becomes several units.
  static absl::StatusOr<std::unique_ptr<ShardedParameters>> Create(std::vector<ShardUnit> units, ProcessGroup* group,
                                                                   const ShardingOptions& options);
  ~ShardedParameters();  // parameters stay as they are: freed, and of no use

  // In the order of the units and their parameters, the same on every rank; some without elements.
  std::vector<Slice> Slices() const;

  // Drops the gradients; from here on parameters may be used. FAILED_PRECONDITION when they may already.
  absl::Status Begin();
  // Before each backward pass: whether the sums are wanted after it. Needed with `sum_once`.
  void Pass(bool last);
  // After the backward passes (one or several, whose gradients add up): waits for the sums, multiplies them by `scale`,
  // puts them into the slices' .grad, and frees what is gathered.
  absl::Status FinishBackward(double scale);
  // Ends the use without gradients (evaluation, an error): frees what is gathered and drops what is under way.
  absl::Status Release();
  void DropGradients();
  // Collective, with `parameters_stay`: begins to bring the slices' values to the other ranks; Begin() and Gathered()
  // wait for the end. Nothing to do otherwise.
  absl::Status Refresh();

  // Collective. Calls `take` with each parameter, whole, unit by unit: the tensor is valid during the call.
  absl::Status Gathered(const std::function<absl::Status(const std::string& name, const torch::Tensor& whole)>& take);

  const Counts& counts() const { return counts_; }

 private:
  struct Unit;
  struct GradientHook;
  ShardedParameters(ProcessGroup* group, const ShardingOptions& options);
  void Use(Unit& unit, const char* op);
  void StartGather(Unit& unit);
  void FinishGather(Unit& unit);
  void Free(Unit& unit);
  void TakeGradient(Unit& unit, size_t slot, const torch::Tensor& parameter);
  void ClearUnused(Unit& unit);
  void StartReduction(Unit& unit);
  void SumOverReplicas();
  void FinishReduction();
  void EndUse();

  ProcessGroup* const group_;
  const ShardingOptions options_;
  std::vector<std::unique_ptr<Unit>> units_;
  bool in_use_ = false;
  bool last_pass_ = true;
  Unit* current_ = nullptr;
  Unit* reducing_ = nullptr;
  std::vector<size_t> order_, last_order_;  // of uses: indices of units
  Counts counts_;
};

}  // namespace athanor
