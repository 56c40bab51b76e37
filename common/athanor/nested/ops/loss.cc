#include "athanor/nested/ops/loss.h"

#include <algorithm>

#include "athanor/nested/pack.h"

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

// The sizes of each element along its varying dims, in their order: rows of equal lists lie alike in packed values.
std::vector<int64_t> Lengths(const NestedStructure& structure) {
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < structure.batch_size(); ++b) {
    for (const int64_t d : structure.varying_dims()) lengths.push_back(structure.sizes(b)[static_cast<size_t>(d)]);
  }
  return lengths;
}

// Whether arguments may differ by a dim of classes, or are combined number by number.
enum class Classes { kNo, kYes };

Tensor PackNested(const NestedTensor& first, const NestedTensor& other, Classes classes) {
  TORCH_CHECK_VALUE(other.len() == first.len(),
                    "NestedTensor batch length mismatch between input and other: ", "input=", first.len(),
                    ", other=", other.len());
  const bool alike = classes == Classes::kYes || other.dim() == first.dim();
  TORCH_CHECK_VALUE(alike && Lengths(*other.structure()) == Lengths(*first.structure()),
                    "The elements of a loss's NestedTensors must have the same lengths: shapes ",
                    torch::IntArrayRef(first.shape()), " and ", torch::IntArrayRef(other.shape()));
  return other.values();
}

// A dense argument on the rows of the nested one.
Tensor PackDense(const NestedTensor& first, const Tensor& dense, Classes classes) {
  const std::vector<int64_t> shape = first.shape();
  const NestedStructure& structure = *first.structure();
  const auto rank = static_cast<size_t>(first.dim());
  const bool more = classes == Classes::kYes && static_cast<size_t>(dense.dim()) > rank &&
                    dense.sizes().slice(0, rank) == torch::IntArrayRef(shape);
  if (more && structure.rank() == 0) return dense;
  if (more) {
    const Tensor padded = first.batch_dim() == 1 ? dense.transpose(0, 1) : dense;
    return Unpadded(padded, *structure.WithTail(0, dense.sizes().slice(rank)));
  }
  const bool classless = classes == Classes::kYes && rank >= 3 && dense.dim() == first.dim() - 1 &&
                         structure.HasStaticTail(1) && dense.sizes() == torch::IntArrayRef(shape).slice(0, rank - 1);
  if (classless) {
    const NestedTensor rows =
        NestedTensor::FromPacked(first.values().select(-1, 0), structure.WithTail(1, {}), first.view());
    return rows.NestedLike(dense).values();
  }
  const std::optional<Tensor> aligned = AlignDense(first, dense);
  if (!aligned && dense.dim() == first.dim() && dense.size(first.batch_dim()) == first.len()) {
    for (int64_t dim = 0; dim < dense.dim(); ++dim) {
      TORCH_CHECK(dense.size(dim) >= shape[static_cast<size_t>(dim)], "A loss's dense argument of shape ",
                  dense.sizes(), " is smaller than a NestedTensor of shape ", torch::IntArrayRef(shape));
    }
    return first.NestedLike(dense, /*strict=*/false).values();  // what lies beyond an element is padding
  }
  TORCH_CHECK_VALUE(aligned && at::is_expandable_to(aligned->sizes(), first.values().sizes()),
                    "A loss's dense argument of shape ", dense.sizes(), " does not fit a NestedTensor of shape ",
                    torch::IntArrayRef(shape));
  return *aligned;
}

// Arguments on packed values; those that are absent stay so.
std::vector<std::optional<Tensor>> PackAll(const std::vector<MaybeTensor>& arguments, Classes classes = Classes::kNo) {
  std::vector<NestedValue> given;
  for (const auto& argument : arguments) {
    if (argument) given.push_back(*argument);
  }
  const NestedTensor first = FirstNested(given);
  const std::vector<NestedValue> alike = NumbersAlike(given);
  std::vector<std::optional<Tensor>> packed;
  size_t next = 0;
  for (const auto& argument : arguments) {
    if (!argument) {
      packed.emplace_back();
      continue;
    }
    const NestedValue& here = alike[next++];
    packed.emplace_back(here.is_nested() ? PackNested(first, here.nested(), classes)
                                         : PackDense(first, here.dense(), classes));
  }
  return packed;
}

Tensors PackArguments(const std::vector<NestedValue>& arguments, Classes classes = Classes::kNo) {
  Tensors packed;
  for (auto& tensor : PackAll({arguments.begin(), arguments.end()}, classes)) packed.push_back(*std::move(tensor));
  return packed;
}

std::optional<Tensor> ClassWeight(const MaybeTensor& weight) {
  if (!weight) return std::nullopt;
  TORCH_CHECK_VALUE(!weight->is_nested() && weight->dense().dim() == 1,
                    "The weight of a loss over classes is a dense tensor with one number for each class");
  return weight->dense();
}

// Classes after packing: rows x C, or rows x … x C moved to rows x C x … when the elements have further static dims.
Tensor ClassesSecond(const Tensor& scores, const Tensor& target) {
  return scores.dim() > 2 && target.dim() == scores.dim() - 1 &&
                 target.sizes() == scores.sizes().slice(0, scores.dim() - 1)
             ? scores.movedim(-1, 1)
             : scores;
}

}  // namespace

Tensor mse_loss(const NestedValue& x, const NestedValue& y, Reduction reduction) {
  const Tensors t = PackArguments({x, y});
  return torch::mse_loss(t[0], t[1], reduction);
}

Tensor l1_loss(const NestedValue& x, const NestedValue& y, Reduction reduction) {
  const Tensors t = PackArguments({x, y});
  return torch::l1_loss(t[0], t[1], reduction);
}

Tensor smooth_l1_loss(const NestedValue& x, const NestedValue& y, Reduction reduction, double beta) {
  const Tensors t = PackArguments({x, y});
  return beta == 0 ? torch::l1_loss(t[0], t[1], reduction) : torch::smooth_l1_loss(t[0], t[1], reduction, beta);
}

Tensor huber_loss(const NestedValue& x, const NestedValue& y, Reduction reduction, double delta) {
  const Tensors t = PackArguments({x, y});
  return torch::huber_loss(t[0], t[1], reduction, delta);
}

Tensor binary_cross_entropy(const NestedValue& x, const NestedValue& y, const MaybeTensor& weight,
                            Reduction reduction) {
  const auto t = PackAll({x, y, weight});
  return torch::binary_cross_entropy(*t[0], *t[1], t[2], reduction);
}

Tensor binary_cross_entropy_with_logits(const NestedValue& x, const NestedValue& y, const MaybeTensor& weight,
                                        const MaybeTensor& pos_weight, Reduction reduction) {
  const auto t = PackAll({x, y, weight, pos_weight});
  return torch::binary_cross_entropy_with_logits(*t[0], *t[1], t[2], t[3], reduction);
}

Tensor cross_entropy(const NestedValue& x, const NestedValue& y, const MaybeTensor& weight, Reduction reduction,
                     int64_t ignore_index, double label_smoothing) {
  const Tensors t = PackArguments({x, y}, Classes::kYes);
  return torch::cross_entropy_loss(ClassesSecond(t[0], t[1]), t[1], ClassWeight(weight), reduction, ignore_index,
                                   label_smoothing);
}

Tensor nll_loss(const NestedValue& x, const NestedValue& y, const MaybeTensor& weight, Reduction reduction,
                int64_t ignore_index) {
  const Tensors t = PackArguments({x, y}, Classes::kYes);
  return torch::nll_loss_nd(ClassesSecond(t[0], t[1]), t[1], ClassWeight(weight), reduction, ignore_index);
}

Tensor kl_div(const NestedValue& x, const NestedValue& y, Reduction reduction, bool log_target) {
  const Tensors t = PackArguments({x, y});
  return torch::kl_div(t[0], t[1], reduction, log_target);
}

Tensor poisson_nll_loss(const NestedValue& x, const NestedValue& y, bool log_input, bool full, double eps,
                        Reduction reduction) {
  const Tensors t = PackArguments({x, y});
  return torch::poisson_nll_loss(t[0], t[1], log_input, full, eps, reduction);
}

Tensor gaussian_nll_loss(const NestedValue& x, const NestedValue& y, const NestedValue& variance, bool full, double eps,
                         Reduction reduction) {
  const Tensors t = PackArguments({x, y, variance});
  const Tensor floor = t[2].clamp_min(eps).detach() + (t[2] - t[2].detach());  // clamped, gradients as if not
  Tensor loss = 0.5 * (floor.log() + (t[0] - t[1]).square() / floor);
  if (full) loss = loss + 0.5 * std::log(2 * M_PI);
  return reduction == Reduction::None ? loss : reduction == Reduction::Sum ? loss.sum() : loss.mean();
}

Tensor hinge_embedding_loss(const NestedValue& x, const NestedValue& y, double margin, Reduction reduction) {
  const Tensors t = PackArguments({x, y});
  return torch::hinge_embedding_loss(t[0], t[1], margin, reduction);
}

Tensor soft_margin_loss(const NestedValue& x, const NestedValue& y, Reduction reduction) {
  const Tensors t = PackArguments({x, y});
  return torch::soft_margin_loss(t[0], t[1], reduction);
}

Tensor multi_margin_loss(const NestedValue& x, const NestedValue& y, Reduction reduction, const torch::Scalar& p,
                         const torch::Scalar& margin, const MaybeTensor& weight) {
  const Tensors t = PackArguments({x, y}, Classes::kYes);
  return torch::multi_margin_loss(t[0], t[1], p, margin, ClassWeight(weight), reduction);
}

Tensor multilabel_margin_loss(const NestedValue& x, const NestedValue& y, Reduction reduction) {
  const Tensors t = PackArguments({x, y});
  return torch::multilabel_margin_loss(t[0], t[1], reduction);
}

Tensor multilabel_soft_margin_loss(const NestedValue& x, const NestedValue& y, Reduction reduction,
                                   const MaybeTensor& weight) {
  const Tensors t = PackArguments({x, y});
  Tensor classes = -(t[1] * torch::log_sigmoid(t[0]) + (1 - t[1]) * torch::log_sigmoid(-t[0]));
  if (const auto by = ClassWeight(weight)) classes = classes * *by;
  const Tensor loss = classes.mean(-1);
  return reduction == Reduction::None ? loss : reduction == Reduction::Sum ? loss.sum() : loss.mean();
}

Tensor margin_ranking_loss(const NestedValue& a, const NestedValue& b, const NestedValue& y, double margin,
                           Reduction reduction) {
  const Tensors t = PackArguments({a, b, y});
  return torch::margin_ranking_loss(t[0], t[1], t[2], margin, reduction);
}

Tensor cosine_embedding_loss(const NestedValue& a, const NestedValue& b, const NestedValue& y, double margin,
                             Reduction reduction) {
  const Tensors t = PackArguments({a, b, y}, Classes::kYes);
  return torch::cosine_embedding_loss(t[0], t[1], t[2], margin, reduction);
}

Tensor triplet_margin_loss(const NestedValue& anchor, const NestedValue& positive, const NestedValue& negative,
                           double margin, double p, double eps, bool swap, Reduction reduction) {
  const Tensors t = PackArguments({anchor, positive, negative});
  return torch::triplet_margin_loss(t[0], t[1], t[2], margin, p, eps, swap, reduction);
}

Tensor triplet_margin_with_distance_loss(const NestedValue& anchor, const NestedValue& positive,
                                         const NestedValue& negative, const DistanceFn& distance, double margin,
                                         bool swap, Reduction reduction) {
  const Tensors t = PackArguments({anchor, positive, negative});
  const auto between = [&](const Tensor& a, const Tensor& b) {
    return distance ? distance(a, b) : torch::pairwise_distance(a, b);
  };
  const Tensor near = between(t[0], t[1]);
  Tensor far = between(t[0], t[2]);
  if (swap) far = torch::minimum(far, between(t[1], t[2]));
  const Tensor loss = (margin + near - far).clamp_min(0);
  return reduction == Reduction::None ? loss : reduction == Reduction::Sum ? loss.sum() : loss.mean();
}

Tensor ctc_loss(const NestedTensor& log_probs, const NestedTensor& targets, int64_t blank, Reduction reduction,
                bool zero_infinity) {
  TORCH_CHECK_VALUE(log_probs.dim() == 3 && targets.dim() == 2, "ctc_loss needs elements T x C and S, got ranks ",
                    log_probs.dim() - 1, " and ", targets.dim() - 1);
  TORCH_CHECK_VALUE(log_probs.len() == targets.len(),
                    "NestedTensor batch length mismatch between input and other: ", "input=", log_probs.len(),
                    ", other=", targets.len());
  const auto lengths = [](const NestedTensor& x) {
    std::vector<int64_t> all;
    for (int64_t b = 0; b < x.len(); ++b) all.push_back(x.structure()->sizes(b)[0]);
    return all;
  };
  const Tensor padded = Padded(log_probs.values(), *log_probs.structure(), 0).transpose(0, 1);
  const Tensor labels = Padded(targets.values(), *targets.structure(), 0);
  return torch::ctc_loss(padded, labels, lengths(log_probs), lengths(targets), blank, reduction, zero_infinity);
}

}  // namespace athanor::nested
