// Operations on NestedTensors stay on their device: on "meta", where nothing can be read, and on the foreign device
// (tests/support), which refuses what a GPU refuses and computes what the CPU computes.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "athanor/nested/index.h"
#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/attention.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/linalg.h"
#include "athanor/nested/ops/loss.h"
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/ops/shape.h"
#include "tests/support/foreign_device.h"

namespace athanor {
namespace {

using torch::Tensor;
using torch::indexing::Slice;

// What the operations work on: elements (2, 3) and (1, 3) of floats in 0.1 to 0.9, integers, flags, and dense tensors.
struct Operands {
  NestedTensor x, y, column, whole, flags, labels;
  Tensor row, padded, number, weight;
};

Operands On(const torch::Device& device) {
  torch::manual_seed(1);
  const auto elements = [&](int64_t width) {
    return std::vector<Tensor>{torch::rand({2, width}) * 0.8 + 0.1, torch::rand({1, width}) * 0.8 + 0.1};
  };
  Operands o{NestedTensor(elements(3)), NestedTensor(elements(3)), NestedTensor(elements(1))};
  o.whole = nested::floor(o.x * 4 + 1).to(torch::kInt64);
  o.flags = o.x > 0.5;
  o.labels = NestedTensor({torch::tensor({0, 2}), torch::tensor({1})});
  o.row = torch::rand({3});
  o.padded = torch::rand({2, 2, 3});
  o.number = torch::tensor(0.5F);  // stays on the CPU
  o.weight = torch::rand({4, 3});
  for (NestedTensor* nested : {&o.x, &o.y, &o.column, &o.whole, &o.flags, &o.labels}) *nested = nested->to(device);
  for (Tensor* dense : {&o.row, &o.padded, &o.weight}) *dense = dense->to(device);
  return o;
}

enum Reads { kNothing, kValues };  // kValues: the shape of the result, or its meaning, depends on them

struct Operation {
  std::string name;
  std::function<NestedValue(const Operands&)> run;
  Reads reads = kNothing;
};

void AddPointwise(std::vector<Operation>* all) {
#define ATHANOR_ADD(name)                                                                           \
  if (std::string(#name) != "bernoulli" && std::string(#name).find("bitwise") == std::string::npos) \
    all->push_back({#name, [](const Operands& o) { return nested::name(o.x); }});
  ATHANOR_NESTED_UNARY(ATHANOR_ADD)
  ATHANOR_NESTED_ACTIVATIONS(ATHANOR_ADD)
#undef ATHANOR_ADD
#define ATHANOR_ADD(name)                                                                                          \
  {                                                                                                                \
    const std::string text = #name;                                                                                \
    const bool integers = text.find("bitwise") == 0 || text == "gcd" || text == "lcm";                             \
    if (integers) {                                                                                                \
      all->push_back({text, [](const Operands& o) { return nested::name(o.whole, o.whole); }});                    \
      all->push_back({text + " number", [](const Operands& o) { return nested::name(o.whole, 2); }});              \
    } else {                                                                                                       \
      all->push_back({text, [](const Operands& o) { return nested::name(o.x, o.y); }});                            \
      all->push_back({text + " number", [](const Operands& o) { return nested::name(o.x, 2.); }});                 \
      all->push_back({text + " number first", [](const Operands& o) { return nested::name(2., o.x); }});           \
      all->push_back({text + " 0-dim on the CPU", [](const Operands& o) { return nested::name(o.x, o.number); }}); \
      all->push_back({text + " row", [](const Operands& o) { return nested::name(o.x, o.row); }});                 \
      all->push_back({text + " padded", [](const Operands& o) { return nested::name(o.x, o.padded); }});           \
      all->push_back({text + " column", [](const Operands& o) { return nested::name(o.x, o.column); }});           \
    }                                                                                                              \
  }
  ATHANOR_NESTED_BINARY(ATHANOR_ADD)
  ATHANOR_ADD(add)
  ATHANOR_ADD(sub)
  ATHANOR_ADD(div)
  ATHANOR_ADD(isclose)
#undef ATHANOR_ADD
}

void AddSeveralOperands(std::vector<Operation>* all) {
  const auto add = [&](std::string name, std::function<NestedValue(const Operands&)> run, Reads reads = kNothing) {
    all->push_back({std::move(name), std::move(run), reads});
  };
  add("clamp numbers", [](const Operands& o) { return nested::clamp(o.x, 0.2, 0.5); });
  add("clamp number and nested", [](const Operands& o) { return nested::clamp(o.x, 0.2, o.y); });
  add("clamp 0-dim", [](const Operands& o) { return nested::clamp(o.x, o.number, 0.7); });
  add("clamp min", [](const Operands& o) { return nested::clamp(o.x, 0.2); });
  add("clamp max column", [](const Operands& o) { return nested::clamp(o.x, {}, o.column); });
  add("where numbers", [](const Operands& o) { return nested::where(o.flags, 1., 0.); });
  add("where padded", [](const Operands& o) { return nested::where(o.flags, o.x, o.padded); });
  add("where number", [](const Operands& o) { return nested::where(o.flags, o.x, 0.); });
  add("where 0-dim", [](const Operands& o) { return nested::where(o.flags, o.x, o.number); });
  add("addcmul numbers", [](const Operands& o) { return nested::addcmul(o.x, 1., 2.); });
  add("addcmul column", [](const Operands& o) { return nested::addcmul(o.x, o.column, 2.); });
  add("addcdiv number", [](const Operands& o) { return nested::addcdiv(o.x, o.y, 2.); });
  add("lerp numbers", [](const Operands& o) { return nested::lerp(o.x, 1., 0.5); });
  add("lerp padded", [](const Operands& o) { return nested::lerp(o.x, o.padded, o.y); });
  add("masked_fill", [](const Operands& o) { return nested::masked_fill(o.x, o.flags, 0.); });
  add("masked_fill 0-dim", [](const Operands& o) { return nested::masked_fill(o.x, o.flags, o.number); });
  add("masked_fill nested", [](const Operands& o) { return nested::masked_fill(o.x, o.flags, o.y); });
  add("isin", [](const Operands& o) { return nested::isin(o.x, o.row); });
  add("logit", [](const Operands& o) { return nested::logit(o.x, 0.1); });
  add("nan_to_num", [](const Operands& o) { return nested::nan_to_num(o.x, 1.); });
  add("round", [](const Operands& o) { return nested::round(o.x, 1); });
  add("full_like", [](const Operands& o) { return nested::full_like(o.x, 3); });
  add("add_", [](const Operands& o) {
    NestedTensor x = o.x.clone();
    x += 1.5;
    x *= o.y;
    x -= o.row;
    x /= o.padded;
    return nested::fill_(x, 2);
  });
  add("index", [](const Operands& o) { return o.x.Index({Slice(), 0}); });
  add("index of a batch", [](const Operands& o) { return o.x.Index({std::vector<int64_t>{1, 0}}); });
  add("index by a mask", [](const Operands& o) { return o.x.Index({o.flags}); }, kValues);
  add("assign", [](const Operands& o) {
    NestedTensor x = o.x.clone();
    x.Assign({o.flags}, 5.);
    x.Assign({0}, torch::ones({1, 3}));
    return x;
  });
  add("index_put",
      [](const Operands& o) { return nested::index_put(o.x, {torch::zeros({1}, o.whole.values().options())}, 5.); });
  add("gather", [](const Operands& o) { return nested::gather(o.x, 2, o.whole % 3); });
  add("masked_scatter", [](const Operands& o) { return nested::masked_scatter(o.x, o.flags, o.padded); }, kValues);
  add("cosine_similarity", [](const Operands& o) { return nested::cosine_similarity(o.x, o.padded, 2); });
}

void AddLayersAndLosses(std::vector<Operation>* all) {
  const auto add = [&](std::string name, std::function<NestedValue(const Operands&)> run, Reads reads = kNothing) {
    all->push_back({std::move(name), std::move(run), reads});
  };
  add("padded view", [](const Operands& o) { return o.x.tensor(); });
  add("mask", [](const Operands& o) { return o.x.mask(); });
  add("nested_like", [](const Operands& o) { return o.x.NestedLike(o.padded); });
  add("no elements", [](const Operands& o) { return o.x.Index({Slice(0, 0)}); });
  add("cat", [](const Operands& o) { return nested::cat({o.x, o.y}); });
  add("sum", [](const Operands& o) { return nested::sum(o.x); });
  add("sum of rows", [](const Operands& o) { return nested::sum(o.x, 1); });
  add("mean", [](const Operands& o) { return nested::mean(o.x, 2); });
  add("softmax", [](const Operands& o) { return nested::softmax(o.x, 1); });
  add("linear", [](const Operands& o) { return nested::linear(o.x, o.weight); });
  add("matmul", [](const Operands& o) { return nested::matmul(o.x, o.weight.t()); });
  add("layer_norm", [](const Operands& o) { return nested::layer_norm(o.x, {3}, o.row); });
  add("embedding", [](const Operands& o) { return nested::embedding(o.labels, o.weight); });
  add("apply", [](const Operands& o) { return nested::Apply(o.x, [](const Tensor& t) { return t.softmax(-1); }); });
  add("apply rows", [](const Operands& o) { return nested::ApplyRows(o.x, [](const Tensor& t) { return t + 1; }); });
  add("attention", [](const Operands& o) { return nested::scaled_dot_product_attention(o.x, o.y, o.y); });
  add("mse_loss", [](const Operands& o) { return nested::mse_loss(o.x, o.padded); });
  add("mse_loss number", [](const Operands& o) { return nested::mse_loss(o.x, 1.); });
  add("cross_entropy", [](const Operands& o) { return nested::cross_entropy(o.x, o.labels, NestedValue(o.row)); });
  add("cross_entropy padded", [](const Operands& o) { return nested::cross_entropy(o.padded, o.labels); });
  add("binary_cross_entropy", [](const Operands& o) {
    return nested::binary_cross_entropy_with_logits(o.x, o.y, NestedValue(o.y), NestedValue(o.row));
  });
}

const std::vector<Operation>& Operations() {
  static const std::vector<Operation> all = [] {
    std::vector<Operation> made;
    AddPointwise(&made);
    AddSeveralOperands(&made);
    AddLayersAndLosses(&made);
    return made;
  }();
  return all;
}

Tensor ValuesOf(const NestedValue& value) {
  return value.is_nested() ? value.nested().values() : value.dense();
}

// "" when `run` gives what it gives on the CPU, on `device`.
std::string Difference(const Operation& operation, const torch::Device& device, bool compare) {
  const NestedValue expected = operation.run(On(torch::kCPU));
  try {
    const NestedValue found = operation.run(On(device));
    const Tensor values = ValuesOf(found), wanted = ValuesOf(expected);
    if (found.is_nested() != expected.is_nested()) return "another kind of result";
    if (values.device() != device) return "the result is on " + values.device().str();
    if (values.scalar_type() != wanted.scalar_type() || values.sizes() != wanted.sizes())
      return "another dtype or shape";
    if (found.is_nested() && !found.nested().structure()->SameAs(*expected.nested().structure()))
      return "another structure";
    return !compare || torch::allclose(values.cpu(), wanted, 1e-6, 1e-6, /*equal_nan=*/true) ? "" : "other numbers";
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
}

TEST(Devices, EveryOperationStaysOnTheMetaDevice) {
  size_t ran = 0;
  for (const Operation& operation : Operations()) {
    if (operation.reads == kValues) continue;
    const std::string found = Difference(operation, torch::kMeta, false);
    // LibTorch has kernels of the meta device for most operators only; the foreign device has all.
    if (found.find("no fake impl or Meta kernel registered") != std::string::npos) continue;
    EXPECT_EQ(found, "") << operation.name;
    ++ran;
  }
  EXPECT_GT(ran, Operations().size() * 7 / 10);
}

TEST(Devices, EveryOperationStaysOnADeviceAndComputesTheSame) {
  for (const Operation& operation : Operations()) {
    EXPECT_EQ(Difference(operation, ForeignDevice(), true), "") << operation.name;
  }
}

TEST(Devices, NumbersDoNotMakeTheHostWait) {
  const Operands o = On(ForeignDevice());
  const int64_t before = ForeignWaits();
  nested::clamp(o.x, 0.2, 0.5);
  nested::addcmul(o.x, 1., 2.);
  nested::lerp(o.x, 1., 0.5);
  nested::where(o.flags, o.x, 0.);
  nested::masked_fill(o.x, o.flags, 0.);
  nested::isclose(o.x, 1.);
  EXPECT_EQ(ForeignWaits(), before);
}

TEST(Devices, ListsCanBeMadeOfWhatLiesOnADevice) {
  EXPECT_EQ(ToJson(On(ForeignDevice()).labels), nlohmann::json::parse("[[0, 2], [1]]"));
}

}  // namespace
}  // namespace athanor
