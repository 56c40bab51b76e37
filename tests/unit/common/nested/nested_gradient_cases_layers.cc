// Activations, layers, attention, convolutions, pools and losses.
#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/attention.h"
#include "athanor/nested/ops/convolution.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/loss.h"
#include "athanor/nested/ops/reduce.h"
#include "tests/unit/common/nested/nested_gradient_cases.h"

namespace athanor::gradient {
namespace {

#define ATHANOR_ONE(name, shapes, call) {name, {{Nested(shapes)}, {}}, [=](const Inputs& i) { return Of(call); }}
#define ATHANOR_TWO(name, shapes, others, call) \
  {name, {{Nested(shapes), Nested(others)}, {}}, [=](const Inputs& i) { return Of(call); }}
// Of one nested tensor, with the dense parameters W.
#define ATHANOR_WITH(name, shapes, call, ...) \
  {name, {{Nested(shapes)}, {__VA_ARGS__}}, [=](const Inputs& i) { return Of(call); }}

void Append(std::vector<Case>* cases, std::vector<Case> more) {
  for (Case& one : more) cases->push_back(std::move(one));
}

Case Once(Case one) {
  one.twice = false;
  return one;
}

std::vector<Case> Activations() {
  std::vector<Case> cases;
#define ATHANOR_CASE(name) cases.push_back(ATHANOR_ONE(#name, kRows, nested::name(i.x[0])));
  ATHANOR_NESTED_ACTIVATIONS(ATHANOR_CASE)
  ATHANOR_CASE(hardswish)
  ATHANOR_CASE(gelu)
  ATHANOR_CASE(leaky_relu)
  ATHANOR_CASE(elu)
  ATHANOR_CASE(celu)
  ATHANOR_CASE(hardtanh)
  ATHANOR_CASE(hardshrink)
  ATHANOR_CASE(softshrink)
  ATHANOR_CASE(softplus)
  ATHANOR_CASE(dropout)
#undef ATHANOR_CASE
  const Shapes even = {{2, 4}, {1, 4}};
  Append(&cases, {Once(ATHANOR_ONE("hardsigmoid", kRows, nested::hardsigmoid(i.x[0]))),
                  ATHANOR_ONE("threshold", kRows, nested::threshold(i.x[0], 0.5, 2)),
                  ATHANOR_ONE("rrelu", kRows, nested::rrelu(i.x[0])),
                  ATHANOR_WITH("prelu", kRows, nested::prelu(i.x[0], i.w[0]), Dense({1})),
                  ATHANOR_WITH("prelu of channels", kLast, nested::prelu(i.x[0], i.w[0]), Dense({3})),
                  ATHANOR_WITH("prelu of channels, two varying dims", (Shapes{{2, 2, 3}, {2, 1, 2}}),
                               nested::prelu(i.x[0], i.w[0]), Dense({2})),
                  ATHANOR_ONE("glu", even, nested::glu(i.x[0])),
                  ATHANOR_ONE("glu over rows", (Shapes{{2, 3}, {4, 3}}), nested::glu(i.x[0], 1)),
                  ATHANOR_ONE("gumbel_softmax", kRows, nested::gumbel_softmax(i.x[0])),
                  ATHANOR_ONE("gumbel_softmax over rows", kRows, nested::gumbel_softmax(i.x[0], 0.7, false, 1)),
                  ATHANOR_ONE("alpha_dropout", kRows, nested::alpha_dropout(i.x[0], 0.5, true)),
                  ATHANOR_ONE("feature_alpha_dropout", kRows, nested::feature_alpha_dropout(i.x[0], 0.5, true)),
                  ATHANOR_ONE("feature_dropout", kRows, nested::feature_dropout(i.x[0]))});
  return cases;
}

std::vector<Case> Attention() {
  const Shapes heads = {{2, 3, 2}, {2, 1, 2}}, keys = {{2, 2, 2}, {2, 4, 2}}, same = {{2, 3, 2}, {2, 3, 2}};
  const auto attend = [](const Inputs& i, const nested::AttentionOptions& o) {
    return Of(nested::scaled_dot_product_attention(i.x[0], i.x[1], i.x[2], o));
  };
  // torch's fused kernel for CPUs has no second derivative.
  const auto sdpa = [&](const char* name, const Shapes& q, const Shapes& k, const nested::AttentionOptions& o) {
    return Once({name, {{Nested(q), Nested(k), Nested(k)}, {}}, [=](const Inputs& i) { return attend(i, o); }});
  };
  const auto parameters = [] { return Tensors{Dense({12, 4}, -1, 1), Dense({12}), Dense({4, 4}, -1, 1), Dense({4})}; };
  const auto multi = [](const Inputs& i, const nested::AttentionOptions& o) {
    return Of(nested::multi_head_attention(i.x[0], i.x.back(), i.x.back(), {i.w[0], i.w[1], i.w[2], i.w[3], 2}, o));
  };
  torch::nn::TransformerEncoderLayer layer(
      torch::nn::TransformerEncoderLayerOptions(4, 2).dim_feedforward(3).activation(torch::kGELU));
  layer->to(torch::kFloat64);
  layer->eval();
  const Shapes words = {{3, 4}, {1, 4}}, equal_words = {{2, 4}, {2, 4}};
  return {sdpa("scaled_dot_product_attention", heads, keys, {}),
          sdpa("scaled_dot_product_attention, causal", heads, heads, {.is_causal = true}),
          sdpa("scaled_dot_product_attention of one shape", same, same, {.is_causal = true}),
          sdpa("scaled_dot_product_attention, scaled", {{3, 2}, {1, 2}}, {{2, 2}, {4, 2}}, {.scale = 0.3}),
          Once({"multi_head_attention",
                {{Nested(words)}, parameters()},
                [=](const Inputs& i) { return multi(i, {.is_causal = true}); }}),
          Once({"multi_head_attention of one shape",
                {{Nested(equal_words)}, parameters()},
                [=](const Inputs& i) { return multi(i, {}); }}),
          Once({"multi_head_attention across",
                {{Nested(words), Nested({{2, 4}, {5, 4}})}, parameters()},
                [=](const Inputs& i) { return multi(i, {}); }}),
          Once(ATHANOR_ONE("transformer_encoder_layer", words, nested::transformer_encoder_layer(i.x[0], layer)))};
}

}  // namespace

std::vector<Case> LayerCases() {
  const Shapes channels = {{2, 4}, {2, 3}}, images = {{2, 2, 3}, {2, 3, 1}}, loose = {{2, 3}, {3, 2}};
  const NestedTensor tokens({torch::tensor({1, 2, 1}), torch::tensor({0})});
  std::vector<Case> cases = Activations();
  Append(&cases, Attention());
  Append(
      &cases,
      {ATHANOR_WITH("Apply", kRows, nested::Apply(i.x[0], [&](const Tensor& t) { return torch::linear(t, i.w[0]); }),
                    Dense({2, 3})),
       ATHANOR_WITH("ApplyRows", kRows,
                    nested::ApplyRows(i.x[0], [&](const Tensor& t) { return torch::linear(t, i.w[0]); }),
                    Dense({2, 3})),
       ATHANOR_WITH("linear", kRows, nested::linear(i.x[0], i.w[0], i.w[1]), Dense({2, 3}), Dense({2})),
       {"bilinear",
        {{Nested(kRows), Nested({{2, 2}, {1, 2}})}, {Dense({2, 3, 2}), Dense({2})}},
        [](const Inputs& i) { return Of(nested::bilinear(i.x[0], i.x[1], i.w[0], i.w[1])); }},
       {"embedding", {{}, {Dense({3, 2})}}, [=](const Inputs& i) { return Of(nested::embedding(tokens, i.w[0])); }},
       Once({"embedding_bag",
             {{}, {Dense({3, 2})}},
             [=](const Inputs& i) { return Of(nested::embedding_bag(tokens, i.w[0], "mean")); }}),
       Once({"embedding_bag with weights",
             {{Nested({{3}, {1}})}, {Dense({3, 2})}},
             [=](const Inputs& i) { return Of(nested::embedding_bag(tokens, i.w[0], "sum", i.x[0])); }}),
       ATHANOR_WITH("layer_norm", kRows, nested::layer_norm(i.x[0], {3}, i.w[0], i.w[1]), Dense({3}), Dense({3})),
       ATHANOR_WITH("rms_norm", kRows, nested::rms_norm(i.x[0], {3}, i.w[0]), Dense({3})),
       ATHANOR_ONE("normalize", kRows, nested::normalize(i.x[0], 2, 2)),
       ATHANOR_ONE("normalize over rows", kRows, nested::normalize(i.x[0])),
       ATHANOR_WITH("group_norm", channels, nested::group_norm(i.x[0], 1, i.w[0], i.w[1]), Dense({2}), Dense({2})),
       ATHANOR_WITH("instance_norm", channels, nested::instance_norm(i.x[0], i.w[0], i.w[1]), Dense({2}), Dense({2})),
       ATHANOR_WITH("batch_norm", images, nested::batch_norm(i.x[0], {}, {}, i.w[0], i.w[1], true), Dense({2}),
                    Dense({2})),
       ATHANOR_WITH("batch_norm of equal elements", (Shapes{{2, 3}, {2, 3}}),
                    nested::batch_norm(i.x[0], {}, {}, i.w[0], i.w[1], true), Dense({2}), Dense({2})),
       ATHANOR_ONE("local_response_norm", channels, nested::local_response_norm(i.x[0], 2, 0.5)),
       ATHANOR_TWO("cosine_similarity", kRows, kRows, nested::cosine_similarity(i.x[0], i.x[1], 2)),
       ATHANOR_TWO("pairwise_distance", kRows, kRows, nested::pairwise_distance(i.x[0], i.x[1])),
       ATHANOR_TWO("pairwise_distance of loose elements", loose, loose,
                   nested::pairwise_distance(i.x[0], i.x[1], 2, 1e-6, true))});
  return cases;
}

std::vector<Case> SpatialCases() {
  using nested::PoolOptions;
  const Shapes one = {{2, 4}, {2, 3}}, two = {{2, 3, 3}, {2, 2, 3}}, three = {{2, 2, 2, 2}, {2, 2, 3, 2}};
  const Shapes small_two = {{1, 3, 3}, {1, 2, 4}}, equal_two = {{2, 3, 3}, {2, 3, 3}};
  std::vector<Case> cases = {
      ATHANOR_WITH("conv1d", one, nested::conv1d(i.x[0], i.w[0], i.w[1], {.padding = {1}}), Dense({3, 2, 3}),
                   Dense({3})),
      ATHANOR_WITH("conv2d", two, nested::conv2d(i.x[0], i.w[0]), Dense({2, 2, 2, 2})),
      ATHANOR_WITH("conv3d", three, nested::conv3d(i.x[0], i.w[0]), Dense({2, 2, 2, 1, 1})),
      ATHANOR_WITH("conv_transpose1d", one, nested::conv_transpose1d(i.x[0], i.w[0], i.w[1]), Dense({2, 2, 2}),
                   Dense({2})),
      ATHANOR_WITH("conv_transpose2d", two, nested::conv_transpose2d(i.x[0], i.w[0]), Dense({2, 1, 2, 2})),
      ATHANOR_WITH("conv_transpose3d", three, nested::conv_transpose3d(i.x[0], i.w[0]), Dense({2, 1, 1, 1, 2})),
      ATHANOR_ONE("max_pool1d", one, nested::max_pool1d(i.x[0], {2})),
      ATHANOR_ONE("max_pool2d", two, nested::max_pool2d(i.x[0], {2})),
      ATHANOR_ONE("max_pool3d", three, nested::max_pool3d(i.x[0], {2})),
      ATHANOR_ONE("max_pool1d_with_indices", one, nested::max_pool1d_with_indices(i.x[0], {2})),
      ATHANOR_ONE("max_pool2d_with_indices", two, nested::max_pool2d_with_indices(i.x[0], {2})),
      ATHANOR_ONE("max_pool3d_with_indices", three, nested::max_pool3d_with_indices(i.x[0], {2})),
      ATHANOR_ONE("avg_pool1d", one, nested::avg_pool1d(i.x[0], {2})),
      ATHANOR_ONE("avg_pool2d", two, nested::avg_pool2d(i.x[0], {2})),
      ATHANOR_ONE("avg_pool3d", three, nested::avg_pool3d(i.x[0], {2})),
      ATHANOR_ONE("lp_pool1d", one, nested::lp_pool1d(i.x[0], 2, 2)),
      ATHANOR_ONE("lp_pool2d", two, nested::lp_pool2d(i.x[0], 2, {2})),
      ATHANOR_ONE("lp_pool3d", three, nested::lp_pool3d(i.x[0], 2, {2})),
      ATHANOR_ONE("adaptive_avg_pool1d", one, nested::adaptive_avg_pool1d(i.x[0], 2)),
      ATHANOR_ONE("adaptive_avg_pool2d", two, nested::adaptive_avg_pool2d(i.x[0], {2})),
      ATHANOR_ONE("adaptive_avg_pool3d", three, nested::adaptive_avg_pool3d(i.x[0], {2})),
      ATHANOR_ONE("adaptive_max_pool1d", one, nested::adaptive_max_pool1d(i.x[0], 2)),
      ATHANOR_ONE("adaptive_max_pool2d", two, nested::adaptive_max_pool2d(i.x[0], {2})),
      ATHANOR_ONE("adaptive_max_pool3d", three, nested::adaptive_max_pool3d(i.x[0], {2})),
      ATHANOR_ONE("adaptive_max_pool1d_with_indices", one, nested::adaptive_max_pool1d_with_indices(i.x[0], {2})),
      ATHANOR_ONE("adaptive_max_pool2d_with_indices", two, nested::adaptive_max_pool2d_with_indices(i.x[0], {2})),
      ATHANOR_ONE("adaptive_max_pool3d_with_indices", three, nested::adaptive_max_pool3d_with_indices(i.x[0], {2})),
      ATHANOR_ONE("fractional_max_pool2d", two, nested::fractional_max_pool2d(i.x[0], {2, 1}, {1, 2})),
      ATHANOR_ONE("fractional_max_pool3d", three, nested::fractional_max_pool3d(i.x[0], {1}, {1, 1, 1})),
      ATHANOR_ONE("fractional_max_pool2d_with_indices", two,
                  nested::fractional_max_pool2d_with_indices(i.x[0], {1}, {}, {0.7})),
      ATHANOR_ONE("fractional_max_pool3d_with_indices", three,
                  nested::fractional_max_pool3d_with_indices(i.x[0], {1}, {}, {0.7})),
      ATHANOR_ONE("pad", one, nested::pad(i.x[0], {1, 2})),
      ATHANOR_ONE("pad, reflected", one, nested::pad(i.x[0], {1, 2}, "reflect")),
      ATHANOR_ONE("interpolate", one, nested::interpolate(i.x[0], {}, {2})),
      ATHANOR_ONE("interpolate, bicubic", two, nested::interpolate(i.x[0], {4}, {}, "bicubic", false)),
      ATHANOR_ONE("unfold", two, nested::unfold(i.x[0], {2})),
      ATHANOR_ONE("fold", (Shapes{{4, 4}, {8, 4}}), nested::fold(i.x[0], {3}, {2})),
      ATHANOR_ONE("pixel_shuffle", (Shapes{{4, 2, 1}, {4, 1, 1}}), nested::pixel_shuffle(i.x[0], 2)),
      ATHANOR_ONE("pixel_unshuffle", (Shapes{{1, 2, 2}, {1, 4, 2}}), nested::pixel_unshuffle(i.x[0], 2)),
      ATHANOR_ONE("channel_shuffle", (Shapes{{4, 2, 1}, {4, 1, 1}}), nested::channel_shuffle(i.x[0], 2)),
      {"grid_sample",
       {{Nested(small_two), Nested({{2, 2, 2}, {1, 3, 2}}, -0.9, 0.9)}, {}},
       [](const Inputs& i) { return Of(nested::grid_sample(i.x[0], i.x[1])); }},
      {"affine_grid",
       {{Nested({{2, 3}, {2, 3}})}, {}},
       [like = Nested(small_two)](const Inputs& i) { return Of(nested::affine_grid(i.x[0], like)); }},
  };
#define ATHANOR_CASE(dims, shapes)                                                                            \
  cases.push_back({"max_unpool" #dims "d", {{Nested(shapes)}, {}}, [like = Nested(shapes)](const Inputs& i) { \
                     const auto [pooled, places] = nested::max_pool##dims##d_with_indices(i.x[0], {2});       \
                     return Of(nested::max_unpool##dims##d(pooled, places, {2}, {}, like));                   \
                   }});
  ATHANOR_CASE(1, one)
  ATHANOR_CASE(2, two)
  ATHANOR_CASE(3, three)
#undef ATHANOR_CASE
  return cases;
}

std::vector<Case> LossCases() {
  const Shapes chances = kRows;
  const auto unit = [] { return Nested(kRows, 0.1, 0.9); };
  const NestedTensor labels({torch::tensor({0, 2}), torch::tensor({1})});
  const NestedTensor signs({torch::tensor({1., -1.}, torch::kFloat64), torch::tensor({1.}, torch::kFloat64)});
  const NestedTensor sign_rows({torch::tensor({{1., -1., 1.}, {-1., 1., 1.}}, torch::kFloat64),
                                torch::tensor({{-1., -1., 1.}}, torch::kFloat64)});
  const NestedTensor kinds({torch::tensor({{0, -1, 0}, {2, 1, -1}}), torch::tensor({{1, -1, 2}})});
  const NestedTensor targets({torch::tensor({1, 2}), torch::tensor({1})});
  const auto rest = at::Reduction::None;
  const Tensor weights = Dense({3}, 0.5, 2);
  return {
      ATHANOR_TWO("mse_loss", kRows, kRows, nested::mse_loss(i.x[0], i.x[1])),
      ATHANOR_TWO("mse_loss of each", kRows, kRows, nested::mse_loss(i.x[0], i.x[1], rest)),
      {"mse_loss with a dense target",
       {{Nested(kRows)}, {Dense({2, 2, 3})}},
       [](const Inputs& i) { return Of(nested::mse_loss(i.x[0], i.w[0])); }},
      ATHANOR_TWO("l1_loss", kRows, kRows, nested::l1_loss(i.x[0], i.x[1])),
      ATHANOR_TWO("smooth_l1_loss", kRows, kRows, nested::smooth_l1_loss(i.x[0], i.x[1])),
      ATHANOR_TWO("huber_loss", kRows, kRows, nested::huber_loss(i.x[0], i.x[1])),
      {"binary_cross_entropy",
       {{unit(), unit()}, {}},
       [](const Inputs& i) { return Of(nested::binary_cross_entropy(i.x[0], i.x[1])); }},
      {"binary_cross_entropy_with_logits",
       {{Nested(kRows), unit()}, {}},
       [](const Inputs& i) { return Of(nested::binary_cross_entropy_with_logits(i.x[0], i.x[1])); }},
      ATHANOR_ONE("cross_entropy", kRows, nested::cross_entropy(i.x[0], labels)),
      ATHANOR_ONE("nll_loss", kRows, nested::nll_loss(i.x[0], labels)),
      {"kl_div", {{Nested(kRows), unit()}, {}}, [](const Inputs& i) { return Of(nested::kl_div(i.x[0], i.x[1])); }},
      {"poisson_nll_loss",
       {{Nested(kRows), unit()}, {}},
       [](const Inputs& i) { return Of(nested::poisson_nll_loss(i.x[0], i.x[1])); }},
      {"gaussian_nll_loss",
       {{Nested(kRows), Nested(kRows), unit()}, {}},
       [](const Inputs& i) { return Of(nested::gaussian_nll_loss(i.x[0], i.x[1], i.x[2])); }},
      ATHANOR_ONE("hinge_embedding_loss", kRows, nested::hinge_embedding_loss(i.x[0], sign_rows)),
      ATHANOR_ONE("soft_margin_loss", kRows, nested::soft_margin_loss(i.x[0], sign_rows)),
      Once(ATHANOR_ONE("multi_margin_loss", kRows, nested::multi_margin_loss(i.x[0], labels))),
      Once(ATHANOR_ONE("multilabel_margin_loss", kRows, nested::multilabel_margin_loss(i.x[0], kinds))),
      ATHANOR_ONE("multilabel_soft_margin_loss", kRows,
                  nested::multilabel_soft_margin_loss(i.x[0], sign_rows * 0.5 + 0.5)),
      ATHANOR_TWO("margin_ranking_loss", kFlat, kFlat,
                  nested::margin_ranking_loss(
                      i.x[0], i.x[1], NestedTensor(Tensors{torch::tensor({1, -1, 1}), torch::tensor({-1, 1})}), 0.5)),
      ATHANOR_TWO("cosine_embedding_loss", kRows, kRows, nested::cosine_embedding_loss(i.x[0], i.x[1], signs)),
      {"triplet_margin_loss",
       {{Nested(kRows), Nested(kRows), Nested(kRows)}, {}},
       [](const Inputs& i) { return Of(nested::triplet_margin_loss(i.x[0], i.x[1], i.x[2], 5)); }},
      {"triplet_margin_with_distance_loss",
       {{Nested(kRows), Nested(kRows), Nested(kRows)}, {}},
       [](const Inputs& i) {
         return Of(nested::triplet_margin_with_distance_loss(i.x[0], i.x[1], i.x[2], {}, 5, true));
       }},
      Once({"multi_margin_loss with weights",
            {{Nested(kRows)}, {}},
            [=](const Inputs& i) {
              return Of(nested::multi_margin_loss(i.x[0], labels, at::Reduction::Mean, 2, 0.5, weights));
            }}),
      ATHANOR_ONE("multilabel_soft_margin_loss with weights", kRows,
                  nested::multilabel_soft_margin_loss(i.x[0], sign_rows * 0.5 + 0.5, at::Reduction::Sum, weights)),
      Once({"ctc_loss",
            {{Nested({{4, 3}, {3, 3}})}, {}},
            [=](const Inputs& i) { return Of(nested::ctc_loss(nested::log_softmax(i.x[0], -1), targets)); }}),
  };
}

}  // namespace athanor::gradient
