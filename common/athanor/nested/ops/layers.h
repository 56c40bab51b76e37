// Layers and activations on NestedTensors: linear, embedding, norms, dropout, distances. One call on the packed values
// wherever the dims that a layer mixes are static.
//
//   NestedTensor h = nested::gelu(nested::linear(x, weight, bias));           // elements L x in -> L x out
//   h = nested::layer_norm(h, {out}, gamma, beta);
//
// A torch::nn module works through Apply(x, [&](auto v) { return linear->forward(v); }) if it acts on the last dim only
// (Linear, LayerNorm, Softmax(-1)), or through ApplyRows if it acts on every number by itself (Embedding, activations,
// Dropout), which needs one call whatever varies.
//
// Results have the input's dtype and, where no other is given, its shapes. A dim counts the batch dim; the batch dim
// itself is a c10::ValueError, one out of range a c10::IndexError. Sizes that do not fit a weight are torch's own
// c10::Error. dtypes are floating but for indices (int32, int64).
//
// Convolutions and pools: nested/ops/convolution.h. Attention: nested/ops/attention.h. Losses: nested/ops/loss.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "athanor/nested/pack.h"

namespace athanor::nested {

// `module` acts on the last dim of its input, whatever dims lie before it, and may change its size or add dims behind
// it. One call on the packed values where the last dim is static or all elements are vectors of one length, else one
// for each element.
NestedTensor Apply(const NestedTensor& x, const TensorFn& module);
// `module` gets the packed values, rows x static sizes, and treats every row by itself: elements L x C come as all
// their vectors of C, elements L and L x M as all their numbers. It may change the sizes of a row, or add dims to it.
// One call, except where static dims lie before varying ones: then one for each element, with its own sizes.
NestedTensor ApplyRows(const NestedTensor& x, const TensorFn& module);

// ---- activations: torch::nn::functional's, with its defaults ----
// clang-format off
#define ATHANOR_NESTED_ACTIVATIONS(V) \
  V(relu6) V(silu) V(mish) V(selu) V(logsigmoid) V(softsign) V(tanhshrink)
// clang-format on
#define ATHANOR_NESTED_DECLARE(name) NestedTensor name(const NestedTensor& x);
ATHANOR_NESTED_ACTIVATIONS(ATHANOR_NESTED_DECLARE)
#undef ATHANOR_NESTED_DECLARE
NestedTensor hardswish(const NestedTensor& x);
NestedTensor hardsigmoid(const NestedTensor& x);
NestedTensor gelu(const NestedTensor& x, const std::string& approximate = "none");  // or "tanh"
NestedTensor leaky_relu(const NestedTensor& x, double negative_slope = 0.01);
NestedTensor elu(const NestedTensor& x, double alpha = 1);
NestedTensor celu(const NestedTensor& x, double alpha = 1);
NestedTensor hardtanh(const NestedTensor& x, double min_val = -1, double max_val = 1);
NestedTensor hardshrink(const NestedTensor& x, double lambda = 0.5);
NestedTensor softshrink(const NestedTensor& x, double lambda = 0.5);
NestedTensor softplus(const NestedTensor& x, double beta = 1, double threshold = 20);
NestedTensor threshold(const NestedTensor& x, double threshold, double value);
NestedTensor rrelu(const NestedTensor& x, double lower = 1.0 / 8, double upper = 1.0 / 3, bool training = false);
// One weight, or one for each size of element dim 0.
NestedTensor prelu(const NestedTensor& x, const torch::Tensor& weight);
NestedTensor glu(const NestedTensor& x, int64_t dim = -1);  // halves the dim, whose size must be even (c10::Error)
NestedTensor gumbel_softmax(const NestedTensor& logits, double tau = 1, bool hard = false, int64_t dim = -1);

// ---- rows ----
// Elements … x in, weight out x in, bias out -> … x out.
NestedTensor linear(const NestedTensor& x, const torch::Tensor& weight, const std::optional<torch::Tensor>& bias = {});
// Elements … x in1 and … x in2 of equal leading sizes, weight out x in1 x in2 -> … x out.
NestedTensor bilinear(const NestedTensor& a, const NestedTensor& b, const torch::Tensor& weight,
                      const std::optional<torch::Tensor>& bias = {});
// Elements of indices … -> … x width of `weight` (count x width). Rows of `padding_index` get no gradient. An index out
// of range is a c10::IndexError on a CPU.
NestedTensor embedding(const NestedTensor& indices, const torch::Tensor& weight,
                       std::optional<int64_t> padding_index = {});
// Elements of indices L -> the sum, mean or maximum of their rows of `weight`: dense B x width, zeros for an empty
// element. Indices equal to `padding_index` do not count. per_sample_weights (mode sum only) multiply the rows.
// c10::ValueError: another mode, elements of another rank, weights of other shapes.
torch::Tensor embedding_bag(const NestedTensor& indices, const torch::Tensor& weight, const std::string& mode = "mean",
                            const std::optional<NestedTensor>& per_sample_weights = {},
                            std::optional<int64_t> padding_index = {});
// int64 indices … -> … x num_classes, int64. Without classes: the greatest index of the whole batch + 1, for which a
// GPU is waited for.
NestedTensor one_hot(const NestedTensor& x, int64_t num_classes = -1);

// ---- norms ----
// Over the last dims, of these sizes; weight and bias have them too.
NestedTensor layer_norm(const NestedTensor& x, const std::vector<int64_t>& normalized_shape,
                        const std::optional<torch::Tensor>& weight = {}, const std::optional<torch::Tensor>& bias = {},
                        double eps = 1e-5);
NestedTensor rms_norm(const NestedTensor& x, const std::vector<int64_t>& normalized_shape,
                      const std::optional<torch::Tensor>& weight = {}, std::optional<double> eps = {});
// x / max(p-norm along `dim`, eps).
NestedTensor normalize(const NestedTensor& x, double p = 2, int64_t dim = 1, double eps = 1e-12);
// Elements C x …, each alone; weight and bias of C; C a multiple of `groups` (c10::Error).
NestedTensor group_norm(const NestedTensor& x, int64_t groups, const std::optional<torch::Tensor>& weight = {},
                        const std::optional<torch::Tensor>& bias = {}, double eps = 1e-5);
NestedTensor instance_norm(const NestedTensor& x, const std::optional<torch::Tensor>& weight = {},
                           const std::optional<torch::Tensor>& bias = {}, double eps = 1e-5);
// Elements C x …; statistics over all real positions of the batch. Running statistics are updated when training.
NestedTensor batch_norm(const NestedTensor& x, const std::optional<torch::Tensor>& running_mean,
                        const std::optional<torch::Tensor>& running_var,
                        const std::optional<torch::Tensor>& weight = {}, const std::optional<torch::Tensor>& bias = {},
                        bool training = false, double momentum = 0.1, double eps = 1e-5);
// Elements C x …, over `size` neighbouring channels.
NestedTensor local_response_norm(const NestedTensor& x, int64_t size, double alpha = 1e-4, double beta = 0.75,
                                 double k = 1);

// ---- dropout ----
NestedTensor dropout(const NestedTensor& x, double p = 0.5, bool training = true);
NestedTensor alpha_dropout(const NestedTensor& x, double p = 0.5, bool training = false);
NestedTensor feature_alpha_dropout(const NestedTensor& x, double p = 0.5, bool training = false);
// Whole channels (dim 0 of the elements) are dropped.
NestedTensor feature_dropout(const NestedTensor& x, double p = 0.5, bool training = true);

// ---- distances: dense B x … when all elements' results have one shape, else nested ----
// Both operands nested, or one dense for all elements; pairwise_distance is along the last dim.
NestedValue cosine_similarity(const NestedValue& a, const NestedValue& b, int64_t dim = 1, double eps = 1e-8);
NestedValue pairwise_distance(const NestedValue& a, const NestedValue& b, double p = 2, double eps = 1e-6,
                              bool keepdim = false);

}  // namespace athanor::nested
