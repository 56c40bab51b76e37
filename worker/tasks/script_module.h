// A TorchScript module as the runner wants it: an ordinary module with the same tensors under the names that they have
// in Python, which stay the same tensors whatever the script does with them.
//
//   ASSIGN_OR_RETURN(std::shared_ptr<ScriptModule> module, ScriptModule::Load("net.pt", device));
//   torch::jit::IValue output = module->Run({input}, {{"mask", mask}});
//
// A buffer that forward() assigns anew (`self.mean = 0.9 * self.mean + …`) is followed: checkpoints, broadcasts and
// resumes see the new value. A parameter cannot be assigned anew: that is an exception (user_code). Numbers and lists
// that are no tensors (`self.calls += 1`) belong to the script alone: no checkpoint holds them. Not thread-safe.
#pragma once

#include <torch/script.h>
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

class ScriptModule : public torch::nn::Module {
 public:
  // NOT_FOUND or INVALID_ARGUMENT ("task.options.<option>: …") for a file that is missing or was not written by
  // torch.jit.save().
  static absl::StatusOr<std::shared_ptr<ScriptModule>> Load(const std::string& path, const torch::Device& device,
                                                            const std::string& option = "module");
  explicit ScriptModule(torch::jit::Module script);

  void train(bool on = true) override;

  // forward(inputs..., **named).
  torch::jit::IValue Run(std::vector<torch::jit::IValue> inputs, const std::map<std::string, torch::Tensor>& named);
  // A method of the script's own (@torch.jit.export).
  torch::jit::IValue Call(const std::string& method, std::vector<torch::jit::IValue> arguments);
  bool Has(const std::string& method) const;
  // INVALID_ARGUMENT when forward() does not take the batch's input and these by name, or needs others.
  absl::Status CheckInputs(const std::vector<std::string>& named) const;

 private:
  // An attribute of the script that holds a registered tensor.
  struct Held {
    size_t slot;
    std::string name;
    torch::Tensor tensor;
    bool parameter;
  };
  void FollowTensors();

  torch::jit::Module script_;
  std::vector<Held> held_;
  std::vector<std::shared_ptr<ScriptModule>> parts_;
};

// The first line of an exception's message: LibTorch adds its own stack.
std::string FirstLine(const std::exception& error);

}  // namespace athanor
