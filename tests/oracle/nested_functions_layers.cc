// Layers, activations and losses of NestedTensor for recorded expressions.
#include "athanor/nested/ops/attention.h"
#include "athanor/nested/ops/convolution.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/loss.h"
#include "tests/oracle/python_value.h"

namespace athanor::oracle {
namespace {

void DefineActivations() {
  Define("gelu", "x approximate='none'", [](const Arguments& a) { return nested::gelu(a.nested(0), a.text(1)); });
  Define("leaky_relu", "x negative_slope=0.01",
         [](const Arguments& a) { return nested::leaky_relu(a.nested(0), a.number(1)); });
  Define("elu", "x alpha=1.0", [](const Arguments& a) { return nested::elu(a.nested(0), a.number(1)); });
  Define("celu", "x alpha=1.0", [](const Arguments& a) { return nested::celu(a.nested(0), a.number(1)); });
  Define("hardtanh", "x min_val=-1.0 max_val=1.0",
         [](const Arguments& a) { return nested::hardtanh(a.nested(0), a.number(1), a.number(2)); });
  Define("hardshrink", "x lambd=0.5", [](const Arguments& a) { return nested::hardshrink(a.nested(0), a.number(1)); });
  Define("softshrink", "x lambd=0.5", [](const Arguments& a) { return nested::softshrink(a.nested(0), a.number(1)); });
  Define("softplus", "x beta=1 threshold=20",
         [](const Arguments& a) { return nested::softplus(a.nested(0), a.number(1), a.number(2)); });
  Define("threshold", "x threshold value",
         [](const Arguments& a) { return nested::threshold(a.nested(0), a.number(1), a.number(2)); });
  Define("rrelu", "x lower=0.125 upper=0.3333333333333333 training=False",
         [](const Arguments& a) { return nested::rrelu(a.nested(0), a.number(1), a.number(2), a.flag(3)); });
  Define("prelu", "x weight", [](const Arguments& a) { return nested::prelu(a.nested(0), a.tensor(1)); });
  Define("glu", "x dim=-1", [](const Arguments& a) { return nested::glu(a.nested(0), a.integer(1)); });
}

void DefineRows() {
  Define("linear", "x weight bias=None",
         [](const Arguments& a) { return nested::linear(a.nested(0), a.tensor(1), a.maybe_tensor(2)); });
  Define("bilinear", "a b weight bias=None",
         [](const Arguments& a) { return nested::bilinear(a.nested(0), a.nested(1), a.tensor(2), a.maybe_tensor(3)); });
  Define("embedding", "x weight padding_idx=None",
         [](const Arguments& a) { return nested::embedding(a.nested(0), a.tensor(1), a.maybe_integer(2)); });
  Define("one_hot", "x num_classes=-1", [](const Arguments& a) { return nested::one_hot(a.nested(0), a.integer(1)); });
  Define("layer_norm", "x normalized_shape weight=None bias=None eps=1e-5", [](const Arguments& a) {
    return nested::layer_norm(a.nested(0), a.sizes(1), a.maybe_tensor(2), a.maybe_tensor(3), a.number(4));
  });
  Define("rms_norm", "x normalized_shape weight=None eps=None", [](const Arguments& a) {
    return nested::rms_norm(a.nested(0), a.sizes(1), a.maybe_tensor(2), a.maybe_number(3));
  });
  Define("normalize", "x p=2.0 dim=1 eps=1e-12",
         [](const Arguments& a) { return nested::normalize(a.nested(0), a.number(1), a.integer(2), a.number(3)); });
  Define("group_norm", "x num_groups weight=None bias=None eps=1e-5", [](const Arguments& a) {
    return nested::group_norm(a.nested(0), a.integer(1), a.maybe_tensor(2), a.maybe_tensor(3), a.number(4));
  });
  Define("instance_norm", "x weight=None bias=None eps=1e-5", [](const Arguments& a) {
    return nested::instance_norm(a.nested(0), a.maybe_tensor(1), a.maybe_tensor(2), a.number(3));
  });
  Define("batch_norm", "x running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-5",
         [](const Arguments& a) {
           return nested::batch_norm(a.nested(0), a.maybe_tensor(1), a.maybe_tensor(2), a.maybe_tensor(3),
                                     a.maybe_tensor(4), a.flag(5), a.number(6), a.number(7));
         });
  for (const char* name : {"dropout", "dropout1d", "dropout2d", "dropout3d"}) {
    Define(name, "x p=0.5 training=True",
           [](const Arguments& a) { return nested::dropout(a.nested(0), a.number(1), a.flag(2)); });
  }
  Define("alpha_dropout", "x p=0.5 training=False",
         [](const Arguments& a) { return nested::alpha_dropout(a.nested(0), a.number(1), a.flag(2)); });
  Define("cosine_similarity", "a b dim=1 eps=1e-8", [](const Arguments& a) {
    return Value(nested::cosine_similarity(a.operand(0), a.operand(1), a.integer(2), a.number(3)));
  });
  Define("pairwise_distance", "a b p=2 eps=1e-6 keepdim=False", [](const Arguments& a) {
    return Value(nested::pairwise_distance(a.operand(0), a.operand(1), a.number(2), a.number(3), a.flag(4)));
  });
  Define("scaled_dot_product_attention", "q k v attn_mask=None dropout_p=0.0 is_causal=False scale=None",
         [](const Arguments& a) {
           nested::AttentionOptions options;
           options.mask = a.maybe_operand(3);
           options.dropout_p = a.number(4);
           options.is_causal = a.flag(5);
           options.scale = a.maybe_number(6);
           return nested::scaled_dot_product_attention(a.nested(0), a.nested(1), a.nested(2), options);
         });
}

void DefineSpatial() {
#define ATHANOR_DEFINE(name)                                                                          \
  Define(#name, "x weight bias=None stride=1 padding=0 dilation=1 groups=1", [](const Arguments& a) { \
    return nested::name(a.nested(0), a.tensor(1), a.maybe_tensor(2),                                  \
                        {a.sizes(3), a.sizes(4), a.sizes(5), a.integer(6)});                          \
  });
  ATHANOR_DEFINE(conv1d)
  ATHANOR_DEFINE(conv2d)
  ATHANOR_DEFINE(conv3d)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                                                                                           \
  Define(#name, "x weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1", [](const Arguments& a) { \
    return nested::name(a.nested(0), a.tensor(1), a.maybe_tensor(2),                                                   \
                        {a.sizes(3), a.sizes(4), a.sizes(7), a.integer(6), a.sizes(5)});                               \
  });
  ATHANOR_DEFINE(conv_transpose1d)
  ATHANOR_DEFINE(conv_transpose2d)
  ATHANOR_DEFINE(conv_transpose3d)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                                                                                          \
  Define(#name, "x kernel_size stride=None padding=0 dilation=1 ceil_mode=False", [](const Arguments& a) {            \
    return nested::name(a.nested(0), a.sizes(1),                                                                      \
                        {a.given(2) ? a.sizes(2) : std::vector<int64_t>{}, a.sizes(3), a.sizes(4), a.flag(5), true}); \
  });
  ATHANOR_DEFINE(max_pool1d)
  ATHANOR_DEFINE(max_pool2d)
  ATHANOR_DEFINE(max_pool3d)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                                                                                           \
  Define(#name, "x kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True", [](const Arguments& a) { \
    return nested::name(a.nested(0), a.sizes(1),                                                                       \
                        {a.given(2) ? a.sizes(2) : std::vector<int64_t>{}, a.sizes(3), {1}, a.flag(4), a.flag(5)});    \
  });
  ATHANOR_DEFINE(avg_pool1d)
  ATHANOR_DEFINE(avg_pool2d)
  ATHANOR_DEFINE(avg_pool3d)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name) \
  Define(#name, "x output_size", [](const Arguments& a) { return nested::name(a.nested(0), a.sizes(1)); });
  ATHANOR_DEFINE(adaptive_avg_pool2d)
  ATHANOR_DEFINE(adaptive_avg_pool3d)
  ATHANOR_DEFINE(adaptive_max_pool2d)
  ATHANOR_DEFINE(adaptive_max_pool3d)
#undef ATHANOR_DEFINE
  Define("adaptive_avg_pool1d", "x output_size",
         [](const Arguments& a) { return nested::adaptive_avg_pool1d(a.nested(0), a.sizes(1).at(0)); });
  Define("adaptive_max_pool1d", "x output_size",
         [](const Arguments& a) { return nested::adaptive_max_pool1d(a.nested(0), a.sizes(1).at(0)); });
}

void DefineGrids() {
  Define("lp_pool1d", "x norm_type kernel_size stride=None ceil_mode=False", [](const Arguments& a) {
    return nested::lp_pool1d(a.nested(0), a.number(1), a.sizes(2).at(0),
                             {a.given(3) ? a.sizes(3) : std::vector<int64_t>{}, {0}, {1}, a.flag(4), true});
  });
  Define("pad", "x pad mode='constant' value=None", [](const Arguments& a) {
    return nested::pad(a.nested(0), a.ints(1), a.text(2), a.maybe_number(3).value_or(0));
  });
  Define("interpolate", "x size=None scale_factor=None mode='nearest' align_corners=None", [](const Arguments& a) {
    std::vector<double> factors;
    if (a.given(2) && a[2].is_list()) {
      for (const Value& one : a[2].list()) factors.push_back(Arguments("interpolate", {one}).number(0));
    } else if (a.given(2)) {
      factors.push_back(a.number(2));
    }
    return nested::interpolate(a.nested(0), a.given(1) ? a.sizes(1) : std::vector<int64_t>{}, factors, a.text(3),
                               a.given(4) ? std::optional(a.flag(4)) : std::nullopt);
  });
  Define("pixel_shuffle", "x factor",
         [](const Arguments& a) { return nested::pixel_shuffle(a.nested(0), a.integer(1)); });
  Define("pixel_unshuffle", "x factor",
         [](const Arguments& a) { return nested::pixel_unshuffle(a.nested(0), a.integer(1)); });
  Define("channel_shuffle", "x groups",
         [](const Arguments& a) { return nested::channel_shuffle(a.nested(0), a.integer(1)); });
  Define("unfold", "x kernel_size dilation=1 padding=0 stride=1", [](const Arguments& a) {
    return nested::unfold(a.nested(0), a.sizes(1), {a.sizes(4), a.sizes(3), a.sizes(2)});
  });
  Define("fold", "x output_size kernel_size dilation=1 padding=0 stride=1", [](const Arguments& a) {
    return nested::fold(a.nested(0), a.sizes(1), a.sizes(2), {a.sizes(5), a.sizes(4), a.sizes(3)});
  });
}

nested::Reduction ReductionOf(const std::string& text) {
  if (text == "none") return nested::Reduction::None;
  if (text == "sum") return nested::Reduction::Sum;
  if (text == "mean") return nested::Reduction::Mean;
  throw PythonError("ValueError", text + " is not a valid value for reduction");
}

void DefinePairLosses() {
#define ATHANOR_DEFINE(name)            \
  Define(#name, "x y reduction='mean'", \
         [](const Arguments& a) { return nested::name(a.operand(0), a.operand(1), ReductionOf(a.text(2))); });
  ATHANOR_DEFINE(mse_loss)
  ATHANOR_DEFINE(l1_loss)
  ATHANOR_DEFINE(soft_margin_loss)
  ATHANOR_DEFINE(multi_margin_loss)
  ATHANOR_DEFINE(multilabel_margin_loss)
  ATHANOR_DEFINE(multilabel_soft_margin_loss)
#undef ATHANOR_DEFINE
  Define("smooth_l1_loss", "x y reduction='mean' beta=1.0", [](const Arguments& a) {
    return nested::smooth_l1_loss(a.operand(0), a.operand(1), ReductionOf(a.text(2)), a.number(3));
  });
  Define("huber_loss", "x y reduction='mean' delta=1.0", [](const Arguments& a) {
    return nested::huber_loss(a.operand(0), a.operand(1), ReductionOf(a.text(2)), a.number(3));
  });
  Define("kl_div", "x y reduction='mean' log_target=False", [](const Arguments& a) {
    return nested::kl_div(a.operand(0), a.operand(1), ReductionOf(a.text(2)), a.flag(3));
  });
  Define("hinge_embedding_loss", "x y margin=1.0 reduction='mean'", [](const Arguments& a) {
    return nested::hinge_embedding_loss(a.operand(0), a.operand(1), a.number(2), ReductionOf(a.text(3)));
  });
  Define("poisson_nll_loss", "x y log_input=True full=False eps=1e-8 reduction='mean'", [](const Arguments& a) {
    return nested::poisson_nll_loss(a.operand(0), a.operand(1), a.flag(2), a.flag(3), a.number(4),
                                    ReductionOf(a.text(5)));
  });
  Define("gaussian_nll_loss", "x y var full=False eps=1e-6 reduction='mean'", [](const Arguments& a) {
    return nested::gaussian_nll_loss(a.operand(0), a.operand(1), a.operand(2), a.flag(3), a.number(4),
                                     ReductionOf(a.text(5)));
  });
}

void DefineClassLosses() {
  Define("binary_cross_entropy", "x y weight=None reduction='mean'", [](const Arguments& a) {
    return nested::binary_cross_entropy(a.operand(0), a.operand(1), a.maybe_operand(2), ReductionOf(a.text(3)));
  });
  Define("binary_cross_entropy_with_logits", "x y weight=None reduction='mean' pos_weight=None",
         [](const Arguments& a) {
           return nested::binary_cross_entropy_with_logits(a.operand(0), a.operand(1), a.maybe_operand(2),
                                                           a.maybe_operand(4), ReductionOf(a.text(3)));
         });
  Define("cross_entropy", "x y weight=None ignore_index=-100 reduction='mean' label_smoothing=0.0",
         [](const Arguments& a) {
           return nested::cross_entropy(a.operand(0), a.operand(1), a.maybe_operand(2), ReductionOf(a.text(4)),
                                        a.integer(3), a.number(5));
         });
  Define("nll_loss", "x y weight=None ignore_index=-100 reduction='mean'", [](const Arguments& a) {
    return nested::nll_loss(a.operand(0), a.operand(1), a.maybe_operand(2), ReductionOf(a.text(4)), a.integer(3));
  });
  Define("margin_ranking_loss", "a b y margin=0 reduction='mean'", [](const Arguments& a) {
    return nested::margin_ranking_loss(a.operand(0), a.operand(1), a.operand(2), a.number(3), ReductionOf(a.text(4)));
  });
  Define("cosine_embedding_loss", "a b y margin=0 reduction='mean'", [](const Arguments& a) {
    return nested::cosine_embedding_loss(a.operand(0), a.operand(1), a.operand(2), a.number(3), ReductionOf(a.text(4)));
  });
  Define("triplet_margin_loss", "anchor positive negative margin=1.0 p=2 eps=1e-6 swap=False reduction='mean'",
         [](const Arguments& a) {
           return nested::triplet_margin_loss(a.operand(0), a.operand(1), a.operand(2), a.number(3), a.number(4),
                                              a.number(5), a.flag(6), ReductionOf(a.text(7)));
         });
}

}  // namespace

void DefineNestedLayers() {
  DefineActivations();
  DefineRows();
  DefineSpatial();
  DefineGrids();
}

void DefineNestedLosses() {
  DefinePairLosses();
  DefineClassLosses();
}

}  // namespace athanor::oracle
