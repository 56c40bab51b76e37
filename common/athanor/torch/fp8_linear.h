// Linear layers whose three matrix products run in 8 bits, within a scope.
//
//   up = register_module("up", Fp8Linear(256, 1024));                   // in a model, in place of torch::nn::Linear
//   {
//     Fp8Scope scope(Fp8Recipe::kTensorwise);                           // TorchRunner opens it for precision fp8
//     loss = Loss(net->forward(x));
//   }
//   loss.backward();                                                    // the same recipe
//
// Outside of a scope an Fp8Linear is a torch::nn::Linear: same parameters, names, initial weights and numbers.
//
// Each operand is divided by a scale that brings its largest magnitude to the format's largest number, and rounded:
//   kTensorwise  one scale per tensor; activations and weights e4m3 (largest 448), gradients e5m2 (57344)
//   kRowwise     one scale per row of what is multiplied, all e4m3; finer, and slower
// Parameters, their gradients, sums and everything else keep their types. Rounding errors are about 2^-4 of the largest
// magnitude of an operand's tensor or row. In and out features that are no multiples of 16 fall back to the ordinary
// product (the kernels' rule); the number of rows is padded.
//
// A scope belongs to its thread.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace athanor {

enum class Fp8Recipe { kTensorwise, kRowwise };
Fp8Recipe ParseFp8Recipe(const std::string& name);  // of a checked configuration

class Fp8Scope {
 public:
  explicit Fp8Scope(std::optional<Fp8Recipe> recipe);  // nullopt: does nothing
  ~Fp8Scope();
  Fp8Scope(const Fp8Scope&) = delete;
  static std::optional<Fp8Recipe> current();

 private:
  std::optional<Fp8Recipe> before_;
};

// INVALID_ARGUMENT unless the device has matrix products in 8 bits: CUDA, compute capability 8.9 (Ada, Hopper) or
// higher. The CPU has none; a scope works there, slowly, for tests.
absl::Status CheckFp8(const torch::Device& device);

// x (… x in) times weight (out x in) plus bias (out, may be undefined), always in 8 bits. Differentiable. The result
// has autocast's type, else that of x. Throws c10::Error for features that are no multiples of 16.
torch::Tensor Fp8Product(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                         Fp8Recipe recipe);

class Fp8LinearImpl : public torch::nn::LinearImpl {
 public:
  using torch::nn::LinearImpl::LinearImpl;
  torch::Tensor forward(const torch::Tensor& input);
};
TORCH_MODULE(Fp8Linear);

// How many layers of a model would run in 8 bits.
int64_t CountFp8Layers(const torch::nn::Module& model);

}  // namespace athanor
