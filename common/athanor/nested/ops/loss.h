// Losses on NestedTensors: all tensor arguments are packed and torch's loss is called once, so padding never counts and
// a mean is over real entries. Any argument may be the nested one, and it says where the others have data:
//
//   nested                    the same lengths (along the varying dims, in their order)
//   dense, padded shape       packed alike; dims of size 1 broadcast
//   dense, an element's dims  broadcast to every element, if of size 1 along varying dims
//   class weights             dense of one dim, passed on as they are
// and where one argument has a dim of classes (cross_entropy, nll_loss, multi_margin_loss, cosine_embedding_loss) also
//   dense, without that dim   packed alike: labels B x L for logits of elements L x C
//   dense, with that dim      packed alike: logits B x L x C for labels of elements L
//
//   nested::cross_entropy(logits, labels)                       // elements L x C and L -> scalar
//   nested::cross_entropy(padded_logits, labels)                // B x L x C and elements L
//   nested::mse_loss(x, y, at::Reduction::None)                 // the packed losses, flat over the batch
//
// Errors: c10::ValueError when lengths differ or a dense argument fits none of these, c10::TypeError when nothing is
// nested.
#pragma once

#include <ATen/core/Reduction.h>
#include <torch/torch.h>

#include <functional>
#include <optional>

#include "athanor/nested/tensor.h"

namespace athanor::nested {

using Reduction = at::Reduction::Reduction;  // None, Mean, Sum
using MaybeTensor = std::optional<NestedValue>;

torch::Tensor mse_loss(const NestedValue& x, const NestedValue& y, Reduction reduction = Reduction::Mean);
torch::Tensor l1_loss(const NestedValue& x, const NestedValue& y, Reduction reduction = Reduction::Mean);
torch::Tensor smooth_l1_loss(const NestedValue& x, const NestedValue& y, Reduction reduction = Reduction::Mean,
                             double beta = 1);
torch::Tensor huber_loss(const NestedValue& x, const NestedValue& y, Reduction reduction = Reduction::Mean,
                         double delta = 1);
torch::Tensor binary_cross_entropy(const NestedValue& x, const NestedValue& y, const MaybeTensor& weight = {},
                                   Reduction reduction = Reduction::Mean);
torch::Tensor binary_cross_entropy_with_logits(const NestedValue& x, const NestedValue& y,
                                               const MaybeTensor& weight = {}, const MaybeTensor& pos_weight = {},
                                               Reduction reduction = Reduction::Mean);
torch::Tensor cross_entropy(const NestedValue& x, const NestedValue& y, const MaybeTensor& weight = {},
                            Reduction reduction = Reduction::Mean, int64_t ignore_index = -100,
                            double label_smoothing = 0);
torch::Tensor nll_loss(const NestedValue& x, const NestedValue& y, const MaybeTensor& weight = {},
                       Reduction reduction = Reduction::Mean, int64_t ignore_index = -100);
// Reduction Mean is over all entries; torch's "batchmean" is Sum divided by the count of packed rows.
torch::Tensor kl_div(const NestedValue& x, const NestedValue& y, Reduction reduction = Reduction::Mean,
                     bool log_target = false);
torch::Tensor poisson_nll_loss(const NestedValue& x, const NestedValue& y, bool log_input = true, bool full = false,
                               double eps = 1e-8, Reduction reduction = Reduction::Mean);
torch::Tensor gaussian_nll_loss(const NestedValue& x, const NestedValue& y, const NestedValue& variance,
                                bool full = false, double eps = 1e-6, Reduction reduction = Reduction::Mean);
torch::Tensor hinge_embedding_loss(const NestedValue& x, const NestedValue& y, double margin = 1,
                                   Reduction reduction = Reduction::Mean);
torch::Tensor soft_margin_loss(const NestedValue& x, const NestedValue& y, Reduction reduction = Reduction::Mean);
// p 1 or 2; weight of C (torch's own errors for others).
torch::Tensor multi_margin_loss(const NestedValue& x, const NestedValue& y, Reduction reduction = Reduction::Mean,
                                const torch::Scalar& p = 1, const torch::Scalar& margin = 1,
                                const MaybeTensor& weight = {});
torch::Tensor multilabel_margin_loss(const NestedValue& x, const NestedValue& y, Reduction reduction = Reduction::Mean);
torch::Tensor multilabel_soft_margin_loss(const NestedValue& x, const NestedValue& y,
                                          Reduction reduction = Reduction::Mean, const MaybeTensor& weight = {});
torch::Tensor margin_ranking_loss(const NestedValue& a, const NestedValue& b, const NestedValue& y, double margin = 0,
                                  Reduction reduction = Reduction::Mean);
torch::Tensor cosine_embedding_loss(const NestedValue& a, const NestedValue& b, const NestedValue& y, double margin = 0,
                                    Reduction reduction = Reduction::Mean);
torch::Tensor triplet_margin_loss(const NestedValue& anchor, const NestedValue& positive, const NestedValue& negative,
                                  double margin = 1, double p = 2, double eps = 1e-6, bool swap = false,
                                  Reduction reduction = Reduction::Mean);
// `distance` of two tensors of packed rows, one number a row; absent: pairwise_distance.
using DistanceFn = std::function<torch::Tensor(const torch::Tensor&, const torch::Tensor&)>;
torch::Tensor triplet_margin_with_distance_loss(const NestedValue& anchor, const NestedValue& positive,
                                                const NestedValue& negative, const DistanceFn& distance = {},
                                                double margin = 1, bool swap = false,
                                                Reduction reduction = Reduction::Mean);
// `log_probs`: elements T x C, one for each sample; `targets`: elements S. Lengths are those of the elements.
torch::Tensor ctc_loss(const NestedTensor& log_probs, const NestedTensor& targets, int64_t blank = 0,
                       Reduction reduction = Reduction::Mean, bool zero_infinity = false);

}  // namespace athanor::nested
