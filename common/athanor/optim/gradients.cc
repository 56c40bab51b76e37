#include "athanor/optim/gradients.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

namespace athanor {
namespace {

std::vector<torch::Tensor> GradsOf(const std::vector<torch::Tensor>& parameters) {
  std::vector<torch::Tensor> grads;
  grads.reserve(parameters.size());
  for (const torch::Tensor& parameter : parameters) {
    // Parts of a parameter may be empty; the largest element of nothing is an error.
    if (parameter.grad().defined() && parameter.numel() > 0) grads.push_back(parameter.grad());
  }
  return grads;
}

using Place = std::pair<c10::Device, c10::ScalarType>;
struct PlaceOrder {
  bool operator()(const Place& a, const Place& b) const {
    return std::make_tuple(a.first.type(), a.first.index(), a.second) <
           std::make_tuple(b.first.type(), b.first.index(), b.second);
  }
};

std::map<Place, std::vector<torch::Tensor>, PlaceOrder> ByPlace(const std::vector<torch::Tensor>& tensors) {
  std::map<Place, std::vector<torch::Tensor>, PlaceOrder> places;
  for (const torch::Tensor& tensor : tensors) places[{tensor.device(), tensor.scalar_type()}].push_back(tensor);
  return places;
}

// One norm of all elements: of the tensors' norms. Tensors of other devices come to that of the first.
torch::Tensor NormOfAll(const std::vector<torch::Tensor>& grads, double order) {
  const auto places = ByPlace(grads);
  const bool wide = std::any_of(places.begin(), places.end(),
                                [](const auto& place) { return place.first.second == torch::kFloat64; });
  const c10::Device device = grads.front().device();
  std::vector<torch::Tensor> norms;
  for (const auto& [place, tensors] : places) {
    // Half precision overflows in sums of squares: reduce in float32, wider types in their own.
    const auto type = place.second == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
    for (torch::Tensor& norm : at::_foreach_norm(tensors, order, type)) {
      norms.push_back(norm.to(device, wide ? torch::kFloat64 : torch::kFloat32));
    }
  }
  return at::linalg_vector_norm(at::stack(norms), order);
}

}  // namespace

torch::Tensor GradNorm(const std::vector<torch::Tensor>& parameters) {
  const torch::NoGradGuard no_grad;
  const auto grads = GradsOf(parameters);
  return grads.empty() ? torch::zeros({}) : NormOfAll(grads, 2);
}

torch::Tensor ClipGradNorm(const std::vector<torch::Tensor>& parameters, double max_norm) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor norm = GradNorm(parameters);
  ClipGradNorm(parameters, norm, max_norm);
  return norm;
}

void ClipGradNorm(const std::vector<torch::Tensor>& parameters, const torch::Tensor& norm, double max_norm) {
  const torch::NoGradGuard no_grad;
  ScaleGradients(parameters, (max_norm / (norm + 1e-6)).clamp_max(1.0));
}

void ClipGradValue(const std::vector<torch::Tensor>& parameters, double max_value) {
  const torch::NoGradGuard no_grad;
  const auto grads = GradsOf(parameters);
  if (grads.empty()) return;
  at::_foreach_clamp_min_(grads, -max_value);
  at::_foreach_clamp_max_(grads, max_value);
}

torch::Tensor NonFiniteGradients(const std::vector<torch::Tensor>& parameters) {
  const torch::NoGradGuard no_grad;
  const auto grads = GradsOf(parameters);
  if (grads.empty()) return torch::zeros({});
  // The largest magnitude: a sum of squares of finite numbers may overflow.
  return NormOfAll(grads, std::numeric_limits<double>::infinity()).isfinite().logical_not().to(torch::kFloat32);
}

void ScaleGradients(const std::vector<torch::Tensor>& parameters, double factor) {
  const torch::NoGradGuard no_grad;
  const auto grads = GradsOf(parameters);
  if (!grads.empty()) at::_foreach_mul_(grads, factor);
}

void ScaleGradients(const std::vector<torch::Tensor>& parameters, const torch::Tensor& factor) {
  const torch::NoGradGuard no_grad;
  for (const auto& [place, grads] : ByPlace(GradsOf(parameters))) {
    // One launch for all of them needs a factor of their type; in half precision it would lose its digits.
    const bool wide = place.second == torch::kFloat32 || place.second == torch::kFloat64;
    at::_foreach_mul_(grads, factor.to(place.first, wide ? place.second : factor.scalar_type()));
  }
}

void ZeroGradients(const std::vector<torch::Tensor>& parameters) {
  const torch::NoGradGuard no_grad;
  const auto grads = GradsOf(parameters);
  if (!grads.empty()) at::_foreach_zero_(grads);
}

}  // namespace athanor
