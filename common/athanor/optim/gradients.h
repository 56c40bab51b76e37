// Foreach operations on the gradients of a list of parameters. Undefined gradients are skipped. Nothing here waits for
// the device: results are 0-dim tensors on the gradients' device, float32 or wider; read them when the log wants them.
#pragma once

#include <torch/torch.h>

#include <vector>

namespace athanor {

// 2-norm over all gradients together; 0 when there are none.
torch::Tensor GradNorm(const std::vector<torch::Tensor>& parameters);
// Scales all gradients by min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_. Returns the norm before.
torch::Tensor ClipGradNorm(const std::vector<torch::Tensor>& parameters, double max_norm);
// The same with a norm that is known: a 0-dim tensor.
void ClipGradNorm(const std::vector<torch::Tensor>& parameters, const torch::Tensor& norm, double max_norm);
// Clamps every element into [-max_value, max_value].
void ClipGradValue(const std::vector<torch::Tensor>& parameters, double max_value);
// 1 when any element is NaN or infinite, else 0 (float32): all-reduce it with MAX, then .item() once.
torch::Tensor NonFiniteGradients(const std::vector<torch::Tensor>& parameters);
// In place. The tensor form takes a 0-dim tensor on the gradients' device.
void ScaleGradients(const std::vector<torch::Tensor>& parameters, double factor);
void ScaleGradients(const std::vector<torch::Tensor>& parameters, const torch::Tensor& factor);
// In place: gradients may be views.
void ZeroGradients(const std::vector<torch::Tensor>& parameters);

}  // namespace athanor
