// Every differentiable function of the public nested headers: first derivatives against central differences in float64,
// and second ones (of the gradient, by the inputs and by the gradient that came in) where torch has them for the dense
// operation. The last test reads the headers, so that no new function is left out.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "tests/unit/common/nested/nested_gradient_cases.h"

namespace athanor::gradient {
namespace {

// Central differences in float64 with steps of 1e-6: rounding of a loss of about 10 makes 1e-9, the third derivative
// 1e-12 times itself. A wrong formula is off by far more.
constexpr double kStep = 1e-6, kAbsolute = 1e-6, kRelative = 1e-5;

// Fixed numbers of no symmetry, in (-1, 1).
Tensor Weights(const Tensor& like, double phase) {
  return torch::arange(1, like.numel() + 1, torch::kFloat64).mul(1.7).add(phase).sin().reshape(like.sizes());
}

Tensors Leaves(const Inputs& inputs) {
  Tensors leaves;
  for (const NestedTensor& x : inputs.x) leaves.push_back(x.values());
  leaves.insert(leaves.end(), inputs.w.begin(), inputs.w.end());
  for (Tensor& leaf : leaves) leaf = leaf.detach().clone().requires_grad_();
  return leaves;
}

Tensors Outputs(const Case& one, const Tensors& leaves) {
  Inputs inputs = one.inputs;
  for (size_t i = 0; i < inputs.x.size(); ++i) inputs.x[i] = inputs.x[i].WithValues(leaves[i]);
  for (size_t i = 0; i < inputs.w.size(); ++i) inputs.w[i] = leaves[inputs.x.size() + i];
  torch::manual_seed(17);  // random functions draw the same numbers every time
  return one.run(inputs);
}

Tensor Sum(const Tensors& values, const Tensors& weights) {
  Tensor sum = torch::zeros({}, torch::kFloat64);
  for (size_t i = 0; i < values.size(); ++i) sum = sum + (values[i] * weights[i]).sum();
  return sum;
}

// By the leaves, of the outputs weighted with `incoming`.
Tensors Gradients(const Case& one, const Tensors& leaves, const Tensors& incoming, bool twice) {
  const Tensor sum = Sum(Outputs(one, leaves), incoming);
  if (!sum.requires_grad()) throw std::runtime_error("the result has no gradient");
  Tensors gradients = torch::autograd::grad({sum}, leaves, {}, twice, twice, /*allow_unused=*/true);
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!gradients[i].defined()) gradients[i] = torch::zeros_like(leaves[i]);
  }
  return gradients;
}

// `analytic` against differences of `value` by every entry of `variables`.
void ExpectDifferences(const std::string& name, const Tensors& variables, const Tensors& analytic,
                       const std::function<double()>& value) {
  for (size_t v = 0; v < variables.size(); ++v) {
    const Tensor flat = variables[v].detach().view({-1}), found = analytic[v].detach().contiguous().view({-1});
    for (int64_t i = 0; i < flat.numel(); ++i) {
      const double at = flat[i].item<double>();
      const auto moved = [&](double to) {
        flat[i] = to;
        return value();
      };
      const double difference = (moved(at + kStep) - moved(at - kStep)) / (2 * kStep);
      flat[i] = at;
      const double here = found[i].item<double>();
      const bool close = std::abs(here - difference) <= kAbsolute + kRelative * std::abs(difference);
      EXPECT_TRUE(close) << name << ", input " << v << ", entry " << i << ": " << here << ", difference " << difference;
      if (!close) return;
    }
  }
}

void Check(const Case& one) {
  const Tensors leaves = Leaves(one.inputs);
  Tensors incoming;
  for (const Tensor& output : Outputs(one, leaves)) {
    incoming.push_back(Weights(output, static_cast<double>(incoming.size())).requires_grad_());
  }
  ASSERT_FALSE(incoming.empty()) << one.name << " gave nothing to differentiate";
  ExpectDifferences(one.name, leaves, Gradients(one, leaves, incoming, false), [&] {
    const torch::NoGradGuard no_grad;
    return Sum(Outputs(one, leaves), incoming).item<double>();
  });
  if (!one.twice) {
    EXPECT_THROW(Sum(Gradients(one, leaves, incoming, true), leaves).backward(), c10::Error)
        << one.name << ": torch has a second derivative, check it";
    return;
  }
  Tensors weights;
  for (const Tensor& leaf : leaves) weights.push_back(Weights(leaf, 0.5 + static_cast<double>(weights.size())));
  const Tensor second = Sum(Gradients(one, leaves, incoming, true), weights);
  Tensors variables = leaves;
  variables.insert(variables.end(), incoming.begin(), incoming.end());
  Tensors analytic(variables.size());
  if (second.requires_grad()) analytic = torch::autograd::grad({second}, variables, {}, false, false, true);
  for (size_t i = 0; i < variables.size(); ++i) {
    if (!analytic[i].defined()) analytic[i] = torch::zeros_like(variables[i]);
  }
  ExpectDifferences(one.name + ", second", variables, analytic,
                    [&] { return Sum(Gradients(one, leaves, incoming, false), weights).item<double>(); });
}

void CheckAll(const std::vector<Case>& cases) {
  torch::set_num_threads(1);  // the tensors are small
  ASSERT_FALSE(cases.empty());
  for (const Case& one : cases) {
    try {
      Check(one);
    } catch (const c10::Error& error) {
      ADD_FAILURE() << one.name << ": " << error.what_without_backtrace();
    } catch (const std::exception& error) {
      ADD_FAILURE() << one.name << ": " << error.what();
    }
  }
}

TEST(Gradients, OfPointwiseFunctions) {
  CheckAll(PointwiseCases());
}
TEST(Gradients, OfReductionsAndScans) {
  CheckAll(ReductionCases());
}
TEST(Gradients, OfShapeOperations) {
  CheckAll(ShapeCases());
}
TEST(Gradients, OfMatrixFunctions) {
  CheckAll(MatrixCases());
}
TEST(Gradients, OfLayersAndAttention) {
  CheckAll(LayerCases());
}
TEST(Gradients, OfConvolutionsAndPools) {
  CheckAll(SpatialCases());
}
TEST(Gradients, OfLosses) {
  CheckAll(LossCases());
}

// Results that are no numbers, whole numbers or new values.
const std::set<std::string> kNotDifferentiable = {"all",
                                                  "allclose",
                                                  "any",
                                                  "argmax",
                                                  "argmin",
                                                  "argsort",
                                                  "bernoulli",
                                                  "bitwise_and",
                                                  "bitwise_left_shift",
                                                  "bitwise_not",
                                                  "bitwise_or",
                                                  "bitwise_right_shift",
                                                  "bitwise_xor",
                                                  "count_nonzero",
                                                  "empty_like",
                                                  "eq",
                                                  "equal",
                                                  "fill_",
                                                  "floor_divide",
                                                  "floor_divide_",
                                                  "full_like",
                                                  "gcd",
                                                  "ge",
                                                  "gt",
                                                  "heaviside",
                                                  "isclose",
                                                  "isfinite",
                                                  "isin",
                                                  "isinf",
                                                  "isnan",
                                                  "isneginf",
                                                  "isposinf",
                                                  "isreal",
                                                  "lcm",
                                                  "le",
                                                  "logical_and",
                                                  "logical_not",
                                                  "logical_or",
                                                  "logical_xor",
                                                  "lt",
                                                  "ne",
                                                  "nextafter",
                                                  "nonzero",
                                                  "one_hot",
                                                  "ones_like",
                                                  "rand_like",
                                                  "randn_like",
                                                  "scaled_mm",
                                                  "searchsorted",
                                                  "signbit",
                                                  "zero_",
                                                  "zeros_like",
                                                  "ParametersOf",
                                                  "V"};

TEST(Gradients, AreCheckedForEveryFunctionOfTheHeaders) {
  std::set<std::string> checked;
  for (const auto& cases :
       {PointwiseCases(), ReductionCases(), ShapeCases(), MatrixCases(), LayerCases(), SpatialCases(), LossCases()}) {
    for (const Case& one : cases) checked.insert(one.name.substr(0, one.name.find(' ')));
  }
  size_t found = 0;
  for (const char* header : {"arithmetic", "reduce", "shape", "linalg", "layers", "convolution", "attention", "loss"}) {
    std::ifstream file(std::string(ATHANOR_SOURCE_DIR) + "/common/athanor/nested/ops/" + header + ".h");
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    ASSERT_FALSE(text.empty()) << header;
    const std::regex declared(R"((?:^|\n)(?:inline )?(?:[A-Za-z_:]+(?:<[^\n;()]*>)?&?) ([A-Za-z_0-9]+)\()");
    const std::regex listed(R"(V\(([a-z_0-9]+)\))");
    for (const std::regex& pattern : {declared, listed}) {
      for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) {
        const std::string name = (*at)[1];
        ++found;
        if (kNotDifferentiable.count(name) == 0) {
          EXPECT_TRUE(checked.count(name) == 1) << "nested/ops/" << header << ".h: " << name << " is in no table of "
                                                << "nested_gradient_cases, nor in the list of what has no gradient";
        }
      }
    }
  }
  EXPECT_GT(found, 300U) << "the headers were not understood";
}

}  // namespace
}  // namespace athanor::gradient
