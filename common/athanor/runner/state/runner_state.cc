#include "athanor/runner/state/runner_state.h"

#include <mutex>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/runner/record/json_numbers.h"
#include "athanor/torch/status.h"

namespace athanor {

void TrainState::Advance(bool updated, bool epoch_ended, int64_t new_samples, int64_t accum_steps) {
  step += updated ? 1 : 0;
  skipped_updates += updated ? 0 : 1;
  epoch += epoch_ended ? 1 : 0;
  micro_step += accum_steps;  // a short window counts as a whole one
  samples += new_samples;
}

nlohmann::json TrainState::ToJson() const {
  nlohmann::json json = {{"step", step},       {"micro_step", micro_step},           {"epoch", epoch},
                         {"samples", samples}, {"skipped_updates", skipped_updates}, {"stopped_early", stopped_early}};
  if (monitored.has_value()) json["monitored"] = NumberToJson(*monitored);
  return json;
}

absl::Status TrainState::FromJson(const nlohmann::json& json) {
  const std::pair<const char*, int64_t*> numbers[] = {{"step", &step},
                                                      {"micro_step", &micro_step},
                                                      {"epoch", &epoch},
                                                      {"samples", &samples},
                                                      {"skipped_updates", &skipped_updates}};
  for (const auto& [name, value] : numbers) {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_number_integer() || found->get<int64_t>() < 0) {
      return absl::DataLossError(absl::StrCat("checkpoint: train.", name, " is missing or not a number >= 0"));
    }
    *value = found->get<int64_t>();
  }
  const auto set = [&json](const char* name) {
    const auto found = json.find(name);
    return found != json.end() && found->is_boolean() && found->get<bool>();
  };
  stopped_early = set("stopped_early");
  monitored.reset();
  if (const auto found = json.find("monitored"); found != json.end()) {
    try {
      monitored = NumberFromJson(*found);
    } catch (const std::exception&) {
      return absl::DataLossError("checkpoint: train.monitored is not a number");
    }
  }
  return absl::OkStatus();
}

absl::Status ElasticState::FromJson(const nlohmann::json& json) {
  const auto found = json.find("restarts");
  if (found == json.end() || !found->is_number_integer() || found->get<int64_t>() < 0)
    return absl::DataLossError("checkpoint: elastic.restarts is missing or not a number >= 0");
  restarts = found->get<int64_t>();
  return absl::OkStatus();
}

nlohmann::json RunnerState::StateDict() const {
  return {{"train", train.ToJson()}, {"elastic", elastic.ToJson()}};
}

absl::Status RunnerState::LoadStateDict(const nlohmann::json& state) {
  RunnerState loaded = *this;
  if (const auto found = state.find("train"); found != state.end()) RETURN_IF_ERROR(loaded.train.FromJson(*found));
  if (const auto found = state.find("elastic"); found != state.end()) RETURN_IF_ERROR(loaded.elastic.FromJson(*found));
  *this = std::move(loaded);
  return absl::OkStatus();
}

void SeedGenerators(uint64_t seed) {
  torch::manual_seed(seed);
}

bool GeneratorsAreUnseeded() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.current_seed() == c10::default_rng_seed_val;
}

namespace {

torch::Tensor GeneratorState(at::Generator generator) {
  std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

absl::Status SetGeneratorState(at::Generator generator, const char* name, const TensorMap& tensors) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return absl::DataLossError(absl::StrCat("checkpoint: no random state ", name));
  const absl::Status set = RunTorch("restoring the random state", [&] {
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(found->second);
  });
  return set.ok() ? set : absl::DataLossError(absl::StrCat("checkpoint: random state ", name, ": ", set.message()));
}

}  // namespace

void CaptureGenerators(const torch::Device& device, TensorMap* out) {
  (*out)["rng.cpu"] = GeneratorState(at::detail::getDefaultCPUGenerator());
  if (device.is_cuda()) (*out)["rng.cuda"] = GeneratorState(at::globalContext().defaultGenerator(device));
}

absl::Status RestoreGenerators(const torch::Device& device, const TensorMap& tensors) {
  RETURN_IF_ERROR(SetGeneratorState(at::detail::getDefaultCPUGenerator(), "rng.cpu", tensors));
  // A checkpoint made on a CPU may go on on a GPU: then that generator keeps its seed.
  if (device.is_cuda() && tensors.count("rng.cuda") > 0) {
    RETURN_IF_ERROR(SetGeneratorState(at::globalContext().defaultGenerator(device), "rng.cuda", tensors));
  }
  return absl::OkStatus();
}

}  // namespace athanor
