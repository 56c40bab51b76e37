// Attention over ragged batches: keys beyond an element's end never take part, queries beyond it are never computed
// or are dropped, and ATen's fused kernels do the work.
//
//   // elements of q, k, v: heads x L x width (or L x width); lengths of k and v agree, q may have its own
//   NestedTensor out = nested::scaled_dot_product_attention(q, k, v, {.is_causal = true});
//
// How it runs, without a mask of one's own:
//   all elements of one shape        one call of ATen's fused kernel on the packed values, on any device
//   a GPU, float16 or bfloat16       one call of the flash kernel for packed sequences, no padding: where ATen would
//                                    choose flash or cuDNN, widths are equal and multiples of 8, and, when is_causal,
//                                    queries and keys have equal lengths
//   a GPU, else                      one call on the padded views with a key mask while that costs at most twice the
//                                    real work, else one call for each element
//   a CPU                            one call of the fused kernel for each element
// With a mask each element is one call. multi_head_attention splits and joins heads as views of the packed rows.
#pragma once

#include <optional>

#include "athanor/nested/pack.h"

namespace athanor::nested {

struct AttentionOptions {
  // Where true (bool) attention is allowed, or numbers that are added to the scores. Nested: one for each element
  // (L x S, or heads x L x S); dense: the same for all elements, of the shape of the longest, cut to each element's.
  std::optional<NestedValue> mask;
  double dropout_p = 0;
  bool is_causal = false;       // query i sees keys 0..i
  std::optional<double> scale;  // absent: 1 / sqrt(width)
  bool enable_gqa = false;      // fewer key heads than query heads
};

// Throws c10::ValueError when batch sizes or batch_first differ, or k and v have other lengths.
NestedTensor scaled_dot_product_attention(const NestedTensor& q, const NestedTensor& k, const NestedTensor& v,
                                          const AttentionOptions& options = {});

// What torch::nn::MultiheadAttention does, with its parameters: in_weight 3E x E, in_bias 3E, out_weight E x E,
// out_bias E. Elements L x E. No attention weights are given back.
struct MultiheadParameters {
  torch::Tensor in_weight, in_bias, out_weight, out_bias;
  int64_t heads = 1;
};
NestedTensor multi_head_attention(const NestedTensor& query, const NestedTensor& key, const NestedTensor& value,
                                  const MultiheadParameters& parameters, const AttentionOptions& options = {});
// A module's parameters; they are shared, gradients reach the module. Throws c10::ValueError for a module with kdim or
// vdim of its own, or with bias_k.
MultiheadParameters ParametersOf(const torch::nn::MultiheadAttention& module);

// torch::nn::TransformerEncoderLayer (relu or gelu, norm after the residual as torch's C++ module does) on ragged
// elements L x E, with its own parameters and dropout.
NestedTensor transformer_encoder_layer(const NestedTensor& x, const torch::nn::TransformerEncoderLayer& module,
                                       const AttentionOptions& options = {});

}  // namespace athanor::nested
