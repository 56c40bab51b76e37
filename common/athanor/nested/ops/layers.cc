#include "athanor/nested/ops/layers.h"

#include <algorithm>

#include "athanor/nested/ops/reduce.h"

namespace F = torch::nn::functional;

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

Tensor OrNone(const std::optional<Tensor>& tensor) {
  return tensor.value_or(Tensor());
}

// fn(rows x channels x …) on the packed values of a static channel dim 0, else nullopt.
template <class Fn>
std::optional<NestedTensor> OnChannels(const NestedTensor& x, const Fn& fn) {
  if (x.len() == 0 || x.structure()->rank() == 0) return std::nullopt;
  const auto channels = PackedDim(*x.structure(), 0);
  if (!channels) return std::nullopt;
  return x.WithValues(fn(x.values().movedim(*channels, 1)).movedim(1, *channels));
}

// fn on each element as a batch of one, as layers that know a channel dim want it.
NestedTensor AsBatchOfOne(const NestedTensor& x, const TensorFn& fn) {
  return PerElement(x, [&](const Tensor& t) { return fn(t.unsqueeze(0)).squeeze(0); });
}

}  // namespace

NestedTensor Apply(const NestedTensor& x, const TensorFn& module) {
  const NestedStructure& structure = *x.structure();
  if (structure.rank() > 0 && structure.HasStaticTail(1)) return OnTail(x, 1, module);
  if (structure.rank() == 0 || !structure.AllSame() || x.len() == 0) return PerElement(x, module);
  // Vectors of one length: a matrix, whose rows they are.
  const Tensor results = module(x.values().reshape({x.len(), structure.max_sizes()[0]}));
  return Repack(results.unbind(0), x);
}

NestedTensor ApplyRows(const NestedTensor& x, const TensorFn& module) {
  return OnTail(x, static_cast<int64_t>(x.structure()->static_dims().size()), module);
}

#define ATHANOR_NESTED_DEFINE(name)                               \
  NestedTensor name(const NestedTensor& x) {                      \
    return Packed(x, [](const Tensor& t) { return F::name(t); }); \
  }
ATHANOR_NESTED_ACTIVATIONS(ATHANOR_NESTED_DEFINE)
#undef ATHANOR_NESTED_DEFINE

NestedTensor hardswish(const NestedTensor& x) {
  return Packed(x, [](const Tensor& t) { return torch::hardswish(t); });
}

NestedTensor hardsigmoid(const NestedTensor& x) {
  return Packed(x, [](const Tensor& t) { return torch::hardsigmoid(t); });
}

NestedTensor gelu(const NestedTensor& x, const std::string& approximate) {
  return Packed(x, [&](const Tensor& t) { return torch::gelu(t, approximate); });
}

NestedTensor leaky_relu(const NestedTensor& x, double negative_slope) {
  return Packed(x, [&](const Tensor& t) { return torch::leaky_relu(t, negative_slope); });
}

NestedTensor elu(const NestedTensor& x, double alpha) {
  return Packed(x, [&](const Tensor& t) { return torch::elu(t, alpha); });
}

NestedTensor celu(const NestedTensor& x, double alpha) {
  return Packed(x, [&](const Tensor& t) { return torch::celu(t, alpha); });
}

NestedTensor hardtanh(const NestedTensor& x, double min_val, double max_val) {
  return Packed(x, [&](const Tensor& t) { return torch::hardtanh(t, min_val, max_val); });
}

NestedTensor hardshrink(const NestedTensor& x, double lambda) {
  return Packed(x, [&](const Tensor& t) { return torch::hardshrink(t, lambda); });
}

NestedTensor softshrink(const NestedTensor& x, double lambda) {
  return Packed(x, [&](const Tensor& t) { return torch::softshrink(t, lambda); });
}

NestedTensor softplus(const NestedTensor& x, double beta, double threshold) {
  return Packed(x, [&](const Tensor& t) { return torch::softplus(t, beta, threshold); });
}

NestedTensor threshold(const NestedTensor& x, double threshold, double value) {
  return Packed(x, [&](const Tensor& t) { return torch::threshold(t, threshold, value); });
}

NestedTensor rrelu(const NestedTensor& x, double lower, double upper, bool training) {
  return Packed(x, [&](const Tensor& t) { return torch::rrelu(t, lower, upper, training); });
}

NestedTensor prelu(const NestedTensor& x, const torch::Tensor& weight) {
  if (weight.numel() == 1) return Packed(x, [&](const Tensor& t) { return torch::prelu(t, weight.reshape({1})); });
  const auto prelu = [&](const Tensor& t) { return torch::prelu(t, weight); };
  if (const auto packed = OnChannels(x, prelu)) return *packed;
  return AsBatchOfOne(x, prelu);
}

NestedTensor glu(const NestedTensor& x, int64_t dim) {
  const int64_t at = ElementDim(x, dim);
  if (at == x.structure()->rank() - 1) return OnTail(x, 1, [](const Tensor& t) { return torch::glu(t, -1); });
  return PerElement(x, [&](const Tensor& t) { return torch::glu(t, at); });
}

NestedTensor gumbel_softmax(const NestedTensor& logits, double tau, bool hard, int64_t dim) {
  const int64_t at = ElementDim(logits, dim);
  const auto options = F::GumbelSoftmaxFuncOptions().tau(tau).hard(hard);
  if (at == logits.structure()->rank() - 1) {
    return OnTail(logits, 1, [&](const Tensor& t) { return F::gumbel_softmax(t, options); });
  }
  auto here = options;
  here.dim(static_cast<int>(at));
  return PerElement(logits, [&](const Tensor& t) { return F::gumbel_softmax(t, here); });
}

NestedTensor linear(const NestedTensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  return OnTail(x, 1, [&](const Tensor& t) { return torch::linear(t, weight, OrNone(bias)); });
}

NestedTensor bilinear(const NestedTensor& a, const NestedTensor& b, const Tensor& weight,
                      const std::optional<Tensor>& bias) {
  const bool rows = a.structure()->HasStaticTail(1) && b.structure()->HasStaticTail(1);
  const auto outer_sizes = [](const NestedTensor& x) {
    auto shapes = x.structure()->Shapes();
    for (auto& shape : shapes) shape.pop_back();
    return shapes;
  };
  if (rows && outer_sizes(a) == outer_sizes(b)) {
    return OnTail(a, 1, [&](const Tensor& t) { return torch::bilinear(t, b.values(), weight, OrNone(bias)); });
  }
  return PerElement({a, b}, [&](const Tensors& t) { return torch::bilinear(t[0], t[1], weight, OrNone(bias)); });
}

NestedTensor embedding(const NestedTensor& indices, const Tensor& weight, std::optional<int64_t> padding_index) {
  const int64_t padding = padding_index.value_or(-1);
  const int64_t row = padding_index && padding < 0 ? padding + weight.size(0) : padding;
  return OnTail(indices, 0, [&](const Tensor& t) { return torch::embedding(weight, t, row); });
}

Tensor embedding_bag(const NestedTensor& indices, const Tensor& weight, const std::string& mode,
                     const std::optional<NestedTensor>& per_sample_weights, std::optional<int64_t> padding_index) {
  static const std::vector<std::string> kModes = {"sum", "mean", "max"};
  const auto found = std::find(kModes.begin(), kModes.end(), mode);
  TORCH_CHECK_VALUE(found != kModes.end(), "embedding_bag: unknown mode '", mode, "', use sum, mean or max");
  TORCH_CHECK_VALUE(indices.structure()->rank() == 1, "embedding_bag needs elements of rank 1, got ",
                    indices.structure()->rank());
  std::optional<Tensor> weights;
  if (per_sample_weights) {
    TORCH_CHECK_VALUE(*found == "sum", "embedding_bag: per_sample_weights need mode sum, got ", mode);
    TORCH_CHECK_VALUE(per_sample_weights->structure()->SameAs(*indices.structure()),
                      "embedding_bag: per_sample_weights of shape ", torch::IntArrayRef(per_sample_weights->shape()),
                      " for indices of shape ", torch::IntArrayRef(indices.shape()));
    weights = per_sample_weights->values();
  }
  const Tensor offsets = indices.structure()->Offsets(indices.device()).to(indices.dtype());
  return std::get<0>(torch::embedding_bag(weight, indices.values(), offsets, /*scale_grad_by_freq=*/false,
                                          found - kModes.begin(), /*sparse=*/false, weights,
                                          /*include_last_offset=*/true, padding_index));
}

NestedTensor one_hot(const NestedTensor& x, int64_t num_classes) {
  return OnTail(x, 0, [&](const Tensor& t) { return torch::one_hot(t, num_classes); });
}

NestedTensor layer_norm(const NestedTensor& x, const std::vector<int64_t>& normalized_shape,
                        const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, double eps) {
  return OnTail(x, static_cast<int64_t>(normalized_shape.size()), [&](const Tensor& t) {
    return torch::layer_norm(t, normalized_shape, OrNone(weight), OrNone(bias), eps);
  });
}

NestedTensor rms_norm(const NestedTensor& x, const std::vector<int64_t>& normalized_shape,
                      const std::optional<Tensor>& weight, std::optional<double> eps) {
  return OnTail(x, static_cast<int64_t>(normalized_shape.size()),
                [&](const Tensor& t) { return at::rms_norm(t, normalized_shape, weight, eps); });
}

NestedTensor normalize(const NestedTensor& x, double p, int64_t dim, double eps) {
  const int64_t at = ElementDim(x, dim);
  const auto scale = [&](const Tensor& t, int64_t d) { return t / t.norm(p, {d}, true).clamp_min(eps); };
  if (const auto packed = PackedDim(*x.structure(), at)) return x.WithValues(scale(x.values(), *packed));
  return PerElement(x, [&](const Tensor& t) { return scale(t, at); });
}

NestedTensor group_norm(const NestedTensor& x, int64_t groups, const std::optional<Tensor>& weight,
                        const std::optional<Tensor>& bias, double eps) {
  return AsBatchOfOne(x,
                      [&](const Tensor& t) { return torch::group_norm(t, groups, OrNone(weight), OrNone(bias), eps); });
}

NestedTensor instance_norm(const NestedTensor& x, const std::optional<Tensor>& weight,
                           const std::optional<Tensor>& bias, double eps) {
  return AsBatchOfOne(x, [&](const Tensor& t) {
    return torch::instance_norm(t, OrNone(weight), OrNone(bias), {}, {}, true, 0, eps, false);
  });
}

NestedTensor batch_norm(const NestedTensor& x, const std::optional<Tensor>& running_mean,
                        const std::optional<Tensor>& running_var, const std::optional<Tensor>& weight,
                        const std::optional<Tensor>& bias, bool training, double momentum, double eps) {
  if (x.len() == 0) return x;
  const auto normalise = [&](const Tensor& t) {
    return torch::batch_norm(t, OrNone(weight), OrNone(bias), OrNone(running_mean), OrNone(running_var), training,
                             momentum, eps, false);
  };
  if (const auto packed = OnChannels(x, normalise)) return *packed;
  const Tensors elements = x.Unbind();
  Tensors rows;
  for (const Tensor& t : elements) {
    TORCH_CHECK_VALUE(t.dim() >= 1, "batch_norm needs elements with a channel dim");
    rows.push_back(t.reshape({t.size(0), -1}).t());
  }
  const Tensor all = normalise(torch::cat(rows));
  Tensors results;
  int64_t at = 0;
  for (size_t i = 0; i < elements.size(); ++i) {
    results.push_back(all.narrow(0, at, rows[i].size(0)).t().reshape(elements[i].sizes()));
    at += rows[i].size(0);
  }
  return Repack(results, x);
}

NestedTensor local_response_norm(const NestedTensor& x, int64_t size, double alpha, double beta, double k) {
  const auto options = F::LocalResponseNormFuncOptions(size).alpha(alpha).beta(beta).k(k);
  return AsBatchOfOne(x, [&](const Tensor& t) { return F::local_response_norm(t, options); });
}

NestedTensor dropout(const NestedTensor& x, double p, bool training) {
  return Packed(x, [&](const Tensor& t) { return torch::dropout(t, p, training); });
}

NestedTensor alpha_dropout(const NestedTensor& x, double p, bool training) {
  return Packed(x, [&](const Tensor& t) { return torch::alpha_dropout(t, p, training); });
}

NestedTensor feature_alpha_dropout(const NestedTensor& x, double p, bool training) {
  return AsBatchOfOne(x, [&](const Tensor& t) { return torch::feature_alpha_dropout(t, p, training); });
}

NestedTensor feature_dropout(const NestedTensor& x, double p, bool training) {
  return AsBatchOfOne(x, [&](const Tensor& t) { return torch::feature_dropout(t, p, training); });
}

NestedValue cosine_similarity(const NestedValue& a, const NestedValue& b, int64_t dim, double eps) {
  const NestedTensor first = FirstNested({a, b});
  const int64_t at = ElementDim(first, dim);
  return DenseIfSame(
      PerElement({a, b}, [&](const Tensors& t) { return torch::cosine_similarity(t[0], t[1], at, eps); }));
}

NestedValue pairwise_distance(const NestedValue& a, const NestedValue& b, double p, double eps, bool keepdim) {
  const bool rows = a.is_nested() && b.is_nested() && a.nested().structure()->SameAs(*b.nested().structure()) &&
                    a.nested().structure()->HasStaticTail(1);
  if (rows) {
    const Tensor distances = torch::pairwise_distance(a.nested().values(), b.nested().values(), p, eps, keepdim);
    const auto structure =
        a.nested().structure()->WithTail(1, keepdim ? std::vector<int64_t>{1} : std::vector<int64_t>());
    return DenseIfSame(NestedTensor::FromPacked(distances, structure, a.nested().view()));
  }
  return DenseIfSame(
      PerElement({a, b}, [&](const Tensors& t) { return torch::pairwise_distance(t[0], t[1], p, eps, keepdim); }));
}

}  // namespace athanor::nested
