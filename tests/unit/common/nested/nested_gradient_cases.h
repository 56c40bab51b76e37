// The differentiable functions of the nested headers, each with inputs at which its gradient is checked.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "athanor/nested/tensor.h"

namespace athanor::gradient {

using torch::Tensor;
using Tensors = std::vector<Tensor>;
using Shapes = std::vector<std::vector<int64_t>>;

struct Inputs {
  std::vector<NestedTensor> x;  // differentiated through their packed values
  Tensors w;                    // dense, differentiated too
};

struct Case {
  std::string name;  // the function's, and after a blank what is special
  Inputs inputs;
  std::function<Tensors(const Inputs&)> run;
  bool twice = true;  // false: torch has no second derivative for the same dense operation
};

// Float64 in [low, high), other numbers in each call, the same in each run of the program.
Tensor Dense(const std::vector<int64_t>& sizes, double low = -2, double high = 2);
NestedTensor Nested(const Shapes& shapes, double low = -2, double high = 2);

inline const Shapes kRows = {{2, 3}, {1, 3}};  // one varying dim in front
inline const Shapes kBoth = {{2, 2}, {1, 3}};  // two varying dims
inline const Shapes kLast = {{3, 2}, {3, 1}};  // the varying dim behind
inline const Shapes kFlat = {{3}, {2}};
inline const Shapes kSame = {{2, 3}, {2, 3}};

// What a function gave, the floating part of it.
inline Tensors Of(const Tensor& result) {
  return torch::isFloatingType(result.scalar_type()) ? Tensors{result} : Tensors{};
}
inline Tensors Of(const NestedTensor& result) {
  return Of(result.values());
}
inline Tensors Of(const NestedValue& result) {
  return result.is_nested() ? Of(result.nested()) : Of(result.dense());
}
template <class T>
Tensors Of(const std::vector<T>& results) {
  Tensors all;
  for (const T& result : results) {
    for (const Tensor& part : Of(result)) all.push_back(part);
  }
  return all;
}
template <class A, class B>
Tensors Of(const std::pair<A, B>& results) {
  Tensors all = Of(results.first);
  for (const Tensor& part : Of(results.second)) all.push_back(part);
  return all;
}

std::vector<Case> PointwiseCases();
std::vector<Case> ReductionCases();
std::vector<Case> ShapeCases();
std::vector<Case> MatrixCases();
std::vector<Case> LayerCases();
std::vector<Case> SpatialCases();
std::vector<Case> LossCases();

}  // namespace athanor::gradient
