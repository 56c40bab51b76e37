// A module's tensors by name.
//
//   for (const auto& [name, tensor] : DistinctParameters(*model)) ...        // each tensor once
//   for (const auto& [name, tensor] : StateOf(*model)) ...                   // every name, as in state_dict()
//
// Ask anew each time rather than keep the answer: a module may be given other parameters, and a script module assigns
// buffers anew. Walks the tree of modules; cheap beside a step, not beside an operator.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace athanor {

// One that several names share (tied weights) comes once, under the first of them, in the order of registration.
std::vector<std::pair<std::string, torch::Tensor>> DistinctParameters(const torch::nn::Module& module);
std::vector<std::pair<std::string, torch::Tensor>> DistinctBuffers(const torch::nn::Module& module);  // defined ones
// Parameters and defined buffers under every name that they have: aliases of the module's.
std::map<std::string, torch::Tensor> StateOf(const torch::nn::Module& module);
// The names that a parameter has besides its first one, by that: {"embedding.weight": ["head.weight"]}.
std::map<std::string, std::vector<std::string>> TiedNames(const torch::nn::Module& module);

}  // namespace athanor
