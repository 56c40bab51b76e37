#include "athanor/runner/step/make_strategy.h"

#include <optional>
#include <string>
#include <utility>

#include "athanor/base/status_macros.h"
#include "athanor/config/derived_options.h"
#include "athanor/io/dtype_names.h"
#include "athanor/parallel/strategies/replicate_strategy.h"
#include "athanor/parallel/strategies/shard_strategy.h"

namespace athanor {
namespace {

constexpr int64_t kMiB = 1 << 20;

std::optional<torch::ScalarType> TypeOf(const std::optional<std::string>& name) {
  return name.has_value() ? DtypeOfOption(*name) : std::nullopt;
}

ShardLevel LevelOf(const std::string& shard) {
  if (shard == "optimizer") return ShardLevel::kOptimizer;
  return shard == "gradients" ? ShardLevel::kGradients : ShardLevel::kParameters;
}

}  // namespace

absl::StatusOr<Membership> WithAxesOf(const RunnerConfig& config, const Membership& ranks) {
  if (config.stack != "parallel") return ranks;
  if (ranks.world_size() == 1)
    return absl::InvalidArgumentError("stack: found parallel on 1 rank; allowed: auto, or 2 ranks and more");
  ASSIGN_OR_RETURN(const ParallelTopology topology, ranks.topology().WithAxes(ParallelAxes(config)));
  return Membership::Create(topology, ranks.group());
}

std::unique_ptr<DataStrategy> MakeDataStrategy(const RunnerConfig& config, const ParallelTopology& topology,
                                               const torch::nn::Module* module, bool find_unused_parameters) {
  const FsdpConfig& fsdp = config.fsdp;
  if (topology.degree("shard") == 1 || !fsdp.enabled.value_or(true)) {
    GradientReducerOptions options;
    options.bucket_bytes = static_cast<int64_t>(config.comm.bucket_mb * static_cast<double>(kMiB));
    options.find_unused_parameters = find_unused_parameters || config.comm.find_unused_parameters;
    return std::make_unique<ReplicateStrategy>(module, options);
  }
  ShardStrategyOptions options;
  options.level = LevelOf(fsdp.shard);
  options.units = fsdp.units;
  options.ignored = fsdp.ignored_params;
  options.unit_bytes = static_cast<int64_t>(fsdp.unit_mb * static_cast<double>(kMiB));
  options.sharding.sum_once = fsdp.no_sync;
  options.sharding.reshard_after_forward = fsdp.reshard_after_forward;
  options.sharding.prefetch = fsdp.prefetch;
  options.sharding.parameter_type = TypeOf(fsdp.mp_policy.param_dtype);
  options.sharding.reduce_type = TypeOf(fsdp.mp_policy.reduce_dtype);
  return std::make_unique<ShardStrategy>(module, std::move(options));
}

}  // namespace athanor
