#include "athanor/nested/ops/attention.h"

#include <algorithm>

#include <ATen/Context.h>
#include <ATen/SDPBackend.h>

#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/shape.h"

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

// Lengths of elements, the second last dim.
std::vector<int64_t> Lengths(const NestedTensor& x) {
  std::vector<int64_t> lengths;
  const int64_t rank = x.structure()->rank();
  for (int64_t b = 0; b < x.len(); ++b) lengths.push_back(x.structure()->sizes(b)[static_cast<size_t>(rank - 2)]);
  return lengths;
}

void CheckOperands(const NestedTensor& q, const NestedTensor& k, const NestedTensor& v) {
  TORCH_CHECK_VALUE(q.len() == k.len() && k.len() == v.len(), "attention: batch sizes differ: query ", q.len(),
                    ", key ", k.len(), ", value ", v.len());
  TORCH_CHECK_VALUE(q.batch_first() == k.batch_first() && k.batch_first() == v.batch_first(),
                    "attention: batch_first of query, key and value must agree");
  TORCH_CHECK_VALUE(q.structure()->rank() >= 2 && k.structure()->rank() >= 2 && v.structure()->rank() >= 2,
                    "attention needs elements L x width or heads x L x width");
  TORCH_CHECK_VALUE(Lengths(k) == Lengths(v), "attention: keys and values of an element have other lengths");
}

// The mask of one element in the form that the fused kernels take: [1, heads or 1, L, S].
Tensor MaskFor(const NestedValue& mask, int64_t element, int64_t queries, int64_t keys) {
  Tensor here = mask.is_nested() ? mask.nested().Element(element) : mask.dense();
  TORCH_CHECK_VALUE(here.dim() >= 2 && here.size(-2) >= queries && here.size(-1) >= keys, "attention: a mask of ",
                    here.sizes(), " is too small for ", queries, " queries and ", keys, " keys");
  here = here.narrow(-2, 0, queries).narrow(-1, 0, keys);
  while (here.dim() < 4) here = here.unsqueeze(0);
  return here;
}

// [L, E] or [H, L, E] -> [1, H, L, E]
Tensor AsBatch(const Tensor& t) {
  return t.dim() == 2 ? t.unsqueeze(0).unsqueeze(0) : t.unsqueeze(0);
}

NestedTensor OneByOne(const NestedTensor& q, const NestedTensor& k, const NestedTensor& v, const AttentionOptions& o) {
  const Tensors queries = q.Unbind(), keys = k.Unbind(), values = v.Unbind();
  Tensors results;
  for (size_t b = 0; b < queries.size(); ++b) {
    const Tensor one = AsBatch(queries[b]), other = AsBatch(keys[b]);
    std::optional<Tensor> mask;
    if (o.mask) mask = MaskFor(*o.mask, static_cast<int64_t>(b), one.size(-2), other.size(-2));
    if (mask && o.is_causal) {
      const Tensor causal = torch::ones({one.size(-2), other.size(-2)}, one.options().dtype(torch::kBool)).tril();
      mask = mask->scalar_type() == torch::kBool
                 ? mask->logical_and(causal)
                 : mask->masked_fill(causal.logical_not(), -std::numeric_limits<double>::infinity());
    }
    const Tensor out = at::scaled_dot_product_attention(one, other, AsBatch(values[b]), mask, o.dropout_p,
                                                        o.is_causal && !mask, o.scale, o.enable_gqa);
    results.push_back(queries[b].dim() == 2 ? out.squeeze(0).squeeze(0) : out.squeeze(0));
  }
  return Repack(results, q);
}

// Elements [heads x] L x width whose lengths alone vary, or all of one shape.
bool IsRagged(const NestedTensor& x) {
  const NestedStructure& structure = *x.structure();
  if (structure.rank() < 2 || structure.rank() > 3 || x.len() == 0) return false;
  return structure.AllSame() || structure.varying_dims() == std::vector<int64_t>{structure.rank() - 2};
}

// Such a batch with the elements' rows behind one another: rows x heads x width, a view unless all have one shape.
Tensor ByRows(const NestedTensor& x) {
  const NestedStructure& structure = *x.structure();
  if (structure.rank() == 2) return x.values().unsqueeze(1);
  if (!structure.AllSame()) return x.values();
  const auto sizes = structure.sizes(0);  // packed as B * heads rows of L x width
  return x.values().reshape({x.len(), sizes[0], sizes[1], sizes[2]}).transpose(1, 2).flatten(0, 1);
}

// The inverse, into elements like those of x.
NestedTensor FromRows(const Tensor& rows, const NestedTensor& x) {
  const NestedStructure& structure = *x.structure();
  const NestedStructure::Ptr result = structure.WithTail(1, {rows.size(2)});
  if (structure.rank() == 2) return NestedTensor::FromPacked(rows.squeeze(1), result, x.view());
  if (!structure.AllSame()) return NestedTensor::FromPacked(rows, result, x.view());
  const auto sizes = structure.sizes(0);
  return NestedTensor::FromPacked(rows.unflatten(0, {x.len(), sizes[1]}).transpose(1, 2).flatten(0, 1), result,
                                  x.view());
}

// Where the rows of each element begin, int32 on the device.
Tensor CumulativeLengths(const NestedTensor& x) {
  const NestedStructure& structure = *x.structure();
  if (!structure.AllSame()) return structure.Offsets(x.device()).to(torch::kInt32);
  const int64_t length = structure.sizes(0)[static_cast<size_t>(structure.rank() - 2)];
  return torch::arange(x.len() + 1, x.values().options().dtype(torch::kInt32).requires_grad(false)) * length;
}

// The flash kernel that takes packed sequences: half precision on a GPU that ATen has it for.
bool CanUseVariableLengthFlash(const NestedTensor& q, const NestedTensor& k, const NestedTensor& v,
                               const AttentionOptions& o) {
  const bool half = q.dtype() == torch::kFloat16 || q.dtype() == torch::kBFloat16;
  if (!q.device().is_cuda() || !half || k.dtype() != q.dtype() || v.dtype() != q.dtype() || o.mask) return false;
  if (!at::globalContext().userEnabledFlashSDP()) return false;
  const Tensor query = ByRows(q), key = ByRows(k), value = ByRows(v);
  if (query.numel() == 0 || key.numel() == 0) return false;
  const int64_t width = query.size(2), heads = key.size(1);
  if (width % 8 != 0 || key.size(2) != width || value.size(2) != width || value.size(1) != heads) return false;
  if (o.enable_gqa ? query.size(1) % heads != 0 : query.size(1) != heads) return false;
  // The kernel aligns a causal mask at the ends of queries and keys, torch at their beginnings.
  if (o.is_causal && Lengths(q) != Lengths(k)) return false;
  // ATen's own choice for the same rows as one sequence knows the GPU, its build and the limits of the kernel. Where it
  // prefers cuDNN, which needs no less than flash does, flash runs too.
  const auto dense = [](const Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };
  const auto choice = static_cast<at::SDPBackend>(at::_fused_sdp_choice(
      dense(query), dense(key), dense(value), std::nullopt, o.dropout_p, o.is_causal, o.scale, o.enable_gqa));
  return choice == at::SDPBackend::flash_attention || choice == at::SDPBackend::cudnn_attention;
}

NestedTensor VariableLengthFlash(const NestedTensor& q, const NestedTensor& k, const NestedTensor& v,
                                 const AttentionOptions& o) {
  const auto packed = [](const NestedTensor& x) {
    const Tensor rows = ByRows(x);
    return rows.stride(2) == 1 ? rows : rows.contiguous();
  };
  const auto longest = [](const NestedTensor& x) {
    return x.structure()->max_sizes()[static_cast<size_t>(x.structure()->rank() - 2)];
  };
  const Tensor out = std::get<0>(at::_flash_attention_forward(packed(q), packed(k), packed(v), CumulativeLengths(q),
                                                              CumulativeLengths(k), longest(q), longest(k), o.dropout_p,
                                                              o.is_causal, /*return_debug_mask=*/false, o.scale));
  return FromRows(out, q);
}

// True while the padded batch is at most twice the real work.
bool PaddingIsCheap(const NestedTensor& q, const NestedTensor& k) {
  const std::vector<int64_t> queries = Lengths(q), keys = Lengths(k);
  int64_t real = 0, longest_query = 0, longest_key = 0;
  for (size_t b = 0; b < queries.size(); ++b) {
    real += queries[b] * keys[b];
    longest_query = std::max(longest_query, queries[b]);
    longest_key = std::max(longest_key, keys[b]);
  }
  return static_cast<int64_t>(queries.size()) * longest_query * longest_key <= 2 * real;
}

// One call on the padded views; a mask of the keys only where some are padding, since it excludes ATen's fastest
// kernels.
NestedTensor AllAtOnce(const NestedTensor& q, const NestedTensor& k, const NestedTensor& v, const AttentionOptions& o) {
  const auto padded = [](const NestedTensor& x) {
    const Tensor t = Padded(x.values(), *x.structure(), 0);
    return t.dim() == 3 ? t.unsqueeze(1) : t;
  };
  const Tensor one = padded(q), other = padded(k);
  std::optional<Tensor> mask;
  if (!k.structure()->AllSame()) {
    const Tensor lengths = k.structure()->PackedSizes(one.device());
    mask = (torch::arange(other.size(-2), lengths.options()).unsqueeze(0) < lengths.unsqueeze(1))
               .view({-1, 1, 1, other.size(-2)});
    if (o.is_causal) {
      mask = mask->logical_and(torch::ones({one.size(-2), other.size(-2)}, mask->options()).tril());
    }
  }
  Tensor out = at::scaled_dot_product_attention(one, other, padded(v), mask, o.dropout_p, o.is_causal && !mask, o.scale,
                                                o.enable_gqa);
  if (q.structure()->rank() == 2) out = out.squeeze(1);
  const NestedStructure::Ptr result = q.structure()->WithTail(1, {out.size(-1)});
  return NestedTensor::FromPacked(Unpadded(out, *result), result, q.view());
}

// L x heads * width <-> heads x L x width on packed rows, which are rows x heads * width and rows x heads x width.
NestedTensor SplitHeads(const NestedTensor& x, int64_t heads) {
  if (!IsRagged(x)) {
    return PerElement(x, [&](const Tensor& t) { return t.unflatten(-1, {heads, -1}).transpose(0, 1); });
  }
  const Tensor rows = x.values().unflatten(1, {heads, -1});
  std::vector<int64_t> sizes;
  for (const int64_t length : Lengths(x)) sizes.insert(sizes.end(), {heads, length, rows.size(2)});
  auto structure = NestedStructure::Make(x.len(), 3, std::move(sizes), x.structure().get());
  if (!structure->AllSame()) return NestedTensor::FromPacked(rows, std::move(structure), x.view());
  const Tensor by_head = rows.unflatten(0, {x.len(), Lengths(x)[0]}).transpose(1, 2).flatten(0, 1);
  return NestedTensor::FromPacked(by_head, std::move(structure), x.view());
}

NestedTensor JoinHeads(const NestedTensor& x, const NestedTensor& like) {
  if (!IsRagged(like) || !IsRagged(x)) {
    return PerElement(x, [](const Tensor& t) { return t.transpose(0, 1).flatten(1); });
  }
  return like.WithValues(ByRows(x).flatten(1));
}

}  // namespace

NestedTensor scaled_dot_product_attention(const NestedTensor& q, const NestedTensor& k, const NestedTensor& v,
                                          const AttentionOptions& options) {
  CheckOperands(q, k, v);
  if (options.mask || !IsRagged(q) || !IsRagged(k) || !IsRagged(v)) return OneByOne(q, k, v, options);
  if (q.structure()->AllSame() && k.structure()->AllSame()) return AllAtOnce(q, k, v, options);  // no padding
  if (CanUseVariableLengthFlash(q, k, v, options)) return VariableLengthFlash(q, k, v, options);
  const bool together = q.device().is_cuda() && PaddingIsCheap(q, k);
  return together ? AllAtOnce(q, k, v, options) : OneByOne(q, k, v, options);
}

NestedTensor multi_head_attention(const NestedTensor& query, const NestedTensor& key, const NestedTensor& value,
                                  const MultiheadParameters& p, const AttentionOptions& options) {
  const int64_t width = p.out_weight.size(0);
  TORCH_CHECK_VALUE(p.heads > 0 && width % p.heads == 0, "attention: width ", width, " is no multiple of ", p.heads,
                    " heads");
  const auto project = [&](const NestedTensor& x, int64_t part) {
    const Tensor weight = p.in_weight.narrow(0, part * width, width);
    const auto bias = p.in_bias.defined() ? std::optional(p.in_bias.narrow(0, part * width, width)) : std::nullopt;
    return linear(x, weight, bias);
  };
  const NestedTensor queries = project(query, 0);
  const NestedTensor mixed =
      scaled_dot_product_attention(SplitHeads(queries, p.heads), SplitHeads(project(key, 1), p.heads),
                                   SplitHeads(project(value, 2), p.heads), options);
  return linear(JoinHeads(mixed, queries), p.out_weight,
                p.out_bias.defined() ? std::optional(p.out_bias) : std::nullopt);
}

MultiheadParameters ParametersOf(const torch::nn::MultiheadAttention& module) {
  TORCH_CHECK_VALUE(module->_qkv_same_embed_dim, "attention: a module with kdim or vdim of its own is not supported");
  TORCH_CHECK_VALUE(!module->bias_k.defined(), "attention: a module with bias_k is not supported");
  return {module->in_proj_weight, module->in_proj_bias, module->out_proj->weight, module->out_proj->bias,
          module->options.num_heads()};
}

NestedTensor transformer_encoder_layer(const NestedTensor& x, const torch::nn::TransformerEncoderLayer& module,
                                       const AttentionOptions& options) {
  const auto rows = [](const NestedTensor& t, auto layer) {  // a module holder: shares the module
    return Apply(t, [&](const Tensor& v) { return layer->forward(v); });
  };
  AttentionOptions here = options;
  if (module->is_training() && here.dropout_p == 0) here.dropout_p = module->self_attn->options.dropout();
  const NestedTensor attended = multi_head_attention(x, x, x, ParametersOf(module->self_attn), here);
  const NestedTensor first = rows(add(x, rows(attended, module->dropout1)), module->norm1);
  NestedTensor hidden = rows(first, module->linear1);
  const auto& activation = module->options.activation();
  if (const auto* callable = std::get_if<std::function<Tensor(const Tensor&)>>(&activation)) {
    hidden = Packed(hidden, *callable);
  } else {
    hidden = std::holds_alternative<torch::enumtype::kGELU>(activation) ? gelu(hidden) : relu(hidden);
  }
  const NestedTensor second = rows(rows(hidden, module->dropout), module->linear2);
  return rows(add(first, rows(second, module->dropout2)), module->norm2);
}

}  // namespace athanor::nested
