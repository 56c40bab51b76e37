// Names that mean one and the same tensor (tied weights): the same view of the same memory.
//
//   for (const auto& [name, first] : FirstNames(state)) ...      // {"embedding": "embedding", "head": "embedding"}
//   CastFloats(&weights, torch::kBFloat16);                      // and they still share their memory
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>

namespace athanor {

// Of every name the first one, in the map's order, that means the same tensor. A tensor without elements or memory of
// its own has a name to itself.
std::map<std::string, std::string> FirstNames(const std::map<std::string, torch::Tensor>& tensors);

// Floating-point tensors become copies of `dtype`; those that have it stay. What was one tensor is one afterwards.
void CastFloats(std::map<std::string, torch::Tensor>* tensors, torch::ScalarType dtype);

}  // namespace athanor
