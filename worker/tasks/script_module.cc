#include "worker/tasks/script_module.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"

namespace athanor {
namespace {

absl::Status CheckReadable(const std::string& path, const std::string& option) {
  const std::string place = absl::StrCat("task.options.", option, ": ");
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(place, "cannot read ", path, ": ", strerror(errno)));
  char start[4] = {};
  file.read(start, sizeof(start));
  if (!file || std::memcmp(start, "PK\x03\x04", 4) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, path, " is not a TorchScript file; write it with torch.jit.save()"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string FirstLine(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

absl::StatusOr<std::shared_ptr<ScriptModule>> ScriptModule::Load(const std::string& path, const torch::Device& device,
                                                                 const std::string& option) {
  RETURN_IF_ERROR(CheckReadable(path, option));
  try {
    return std::make_shared<ScriptModule>(torch::jit::load(path, device));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(
        "task.options.", option, ": ", path, " is not a TorchScript file of torch.jit.save(): ", FirstLine(error)));
  }
}

ScriptModule::ScriptModule(torch::jit::Module script) : script_(std::move(script)) {
  const auto hold = [this](const std::string& name, const torch::Tensor& tensor, bool parameter) {
    held_.push_back({script_._ivalue()->type()->getAttributeSlot(name), name, tensor, parameter});
  };
  for (const auto& item : script_.named_parameters(/*recurse=*/false)) {
    register_parameter(item.name, item.value, item.value.requires_grad());
    hold(item.name, item.value, true);
  }
  for (const auto& item : script_.named_buffers(/*recurse=*/false)) {
    register_buffer(item.name, item.value);
    hold(item.name, item.value, false);
  }
  for (const auto& item : script_.named_children())
    parts_.push_back(register_module(item.name, std::make_shared<ScriptModule>(item.value)));
}

void ScriptModule::train(bool on) {
  torch::nn::Module::train(on);
  script_.train(on);
}

torch::jit::IValue ScriptModule::Run(std::vector<torch::jit::IValue> inputs,
                                     const std::map<std::string, torch::Tensor>& named) {
  torch::jit::Kwargs more;
  for (const auto& [name, tensor] : named) more.emplace(name, tensor);
  torch::jit::IValue output = script_.forward(std::move(inputs), more);
  FollowTensors();
  return output;
}

torch::jit::IValue ScriptModule::Call(const std::string& method, std::vector<torch::jit::IValue> arguments) {
  torch::jit::IValue result = script_.get_method(method)(std::move(arguments));
  FollowTensors();
  return result;
}

bool ScriptModule::Has(const std::string& method) const {
  return script_.find_method(method).has_value();
}

// The registered tensor takes over what was assigned, and goes back to where the script will look for it.
void ScriptModule::FollowTensors() {
  for (const Held& held : held_) {
    const torch::jit::IValue& present = script_._ivalue()->getSlot(held.slot);
    if (!present.isTensor() || present.toTensor().is_same(held.tensor)) continue;
    TORCH_CHECK(!held.parameter, "the script assigns its parameter '", held.name,
                "' anew, which then is no longer the one that is trained; change it in place");
    held.tensor.set_data(present.toTensor().detach());
    script_._ivalue()->setSlot(held.slot, held.tensor);
  }
  for (const auto& part : parts_) part->FollowTensors();
}

absl::Status ScriptModule::CheckInputs(const std::vector<std::string>& named) const {
  const std::vector<c10::Argument>& arguments = script_.get_method("forward").function().getSchema().arguments();
  std::vector<std::string> taken, missing;
  for (size_t i = 2; i < arguments.size(); ++i) {  // after self and the input
    const std::string& name = arguments[i].name();
    taken.push_back(name);
    const bool given = std::find(named.begin(), named.end(), name) != named.end();
    if (!given && !arguments[i].default_value().has_value()) missing.push_back(name);
  }
  const std::string all = taken.empty() ? "one input alone" : absl::StrCat("also ", absl::StrJoin(taken, ", "));
  for (const std::string& name : named) {
    if (std::find(taken.begin(), taken.end(), name) != taken.end()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("task.options.input_files.", name, ": forward of the module takes ", all));
  }
  if (arguments.size() < 2) {
    return absl::InvalidArgumentError("task.options.module: its forward takes no input");
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("task.options.input_files: forward of the module takes ", all,
                                                 "; missing: ", absl::StrJoin(missing, ", ")));
}

}  // namespace athanor
