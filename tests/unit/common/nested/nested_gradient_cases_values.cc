// Pointwise functions, reductions, scans and shape operations.
#include <map>
#include <set>

#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/ops/segment.h"
#include "athanor/nested/ops/shape.h"
#include "tests/unit/common/nested/nested_gradient_cases.h"

namespace athanor::gradient {

Tensor Dense(const std::vector<int64_t>& sizes, double low, double high) {
  static int64_t count = 0;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(++count));
  return torch::rand(sizes, generator, torch::kFloat64) * (high - low) + low;
}

NestedTensor Nested(const Shapes& shapes, double low, double high) {
  Tensors elements;
  for (const auto& shape : shapes) elements.push_back(Dense(shape, low, high));
  return NestedTensor(elements);
}

namespace {

struct Domain {
  double low = -2, high = 2;
};

// Where a function is defined and smooth; the others take -2..2.
const std::map<std::string, Domain>& Domains() {
  static const std::map<std::string, Domain> domains = {
      {"acos", {-0.9, 0.9}},     {"acosh", {1.2, 3}},     {"asin", {-0.9, 0.9}},     {"atanh", {-0.9, 0.9}},
      {"digamma", {0.5, 3}},     {"erfinv", {-0.9, 0.9}}, {"lgamma", {0.5, 3}},      {"log", {0.3, 3}},
      {"log10", {0.3, 3}},       {"log1p", {-0.5, 2}},    {"log2", {0.3, 3}},        {"reciprocal", {0.4, 2}},
      {"rsqrt", {0.3, 3}},       {"sqrt", {0.3, 3}},      {"tan", {-1, 1}},          {"ceil", {0.1, 0.9}},
      {"floor", {0.1, 0.9}},     {"frac", {0.1, 0.9}},    {"trunc", {0.1, 0.9}},     {"pow", {0.4, 2}},
      {"float_power", {0.4, 2}}, {"xlogy", {0.4, 2}},     {"true_divide", {0.5, 2}}, {"fmod", {0.5, 2}},
      {"remainder", {0.5, 2}},   {"atan2", {0.4, 2}},     {"hypot", {0.4, 2}}};
  return domains;
}

Domain DomainOf(const std::string& name) {
  const auto found = Domains().find(name);
  return found == Domains().end() ? Domain{} : found->second;
}

const std::set<std::string>& Whole() {  // of whole numbers or truth values
  static const std::set<std::string> names = {"bernoulli",    "bitwise_not",
                                              "isfinite",     "isinf",
                                              "isnan",        "isneginf",
                                              "isposinf",     "isreal",
                                              "logical_not",  "signbit",
                                              "bitwise_and",  "bitwise_left_shift",
                                              "bitwise_or",   "bitwise_right_shift",
                                              "bitwise_xor",  "eq",
                                              "floor_divide", "gcd",
                                              "ge",           "gt",
                                              "heaviside",    "lcm",
                                              "le",           "logical_and",
                                              "logical_or",   "logical_xor",
                                              "lt",           "ne",
                                              "nextafter"};
  return names;
}

void AddUnary(std::vector<Case>* cases, const std::string& name, NestedTensor (*fn)(const NestedTensor&)) {
  if (Whole().count(name) == 1) return;
  const Domain d = DomainOf(name);
  cases->push_back({name, {{Nested(kRows, d.low, d.high)}, {}}, [fn](const Inputs& i) { return Of(fn(i.x[0])); }});
}

void AddBinary(std::vector<Case>* cases, const std::string& name,
               NestedTensor (*fn)(const NestedValue&, const NestedValue&)) {
  if (Whole().count(name) == 1) return;
  const Domain d = DomainOf(name);
  const auto run = [fn](const Inputs& i) { return Of(fn(i.x[0], i.x[1])); };
  cases->push_back({name, {{Nested(kRows, d.low, d.high), Nested(kRows, d.low, d.high)}, {}}, run});
  cases->push_back(
      {name + " of other shapes", {{Nested(kRows, d.low, d.high), Nested({{1, 3}, {1, 1}}, d.low, d.high)}, {}}, run});
  const auto with_dense = [fn](const Inputs& i) { return Of(fn(i.x[0], i.w[0])); };
  cases->push_back({name + " and a row", {{Nested(kRows, d.low, d.high)}, {Dense({3}, d.low, d.high)}}, with_dense});
  cases->push_back({name + " and the padded shape",
                    {{Nested(kRows, d.low, d.high)}, {Dense({2, 2, 3}, d.low, d.high)}},
                    with_dense});
}

template <class Fn>
Case InPlace(const char* name, const Fn& fn) {
  return {name, {{Nested(kRows, 0.5, 2), Nested(kRows, 0.5, 2)}, {}}, [fn](const Inputs& i) {
            NestedTensor target = i.x[0] * 1.5;
            fn(target, i.x[1]);
            return Of(target);
          }};
}

}  // namespace

std::vector<Case> PointwiseCases() {
  std::vector<Case> cases;
#define ATHANOR_CASE(name) AddUnary(&cases, #name, &nested::name);
  ATHANOR_NESTED_UNARY(ATHANOR_CASE)
#undef ATHANOR_CASE
#define ATHANOR_CASE(name) AddBinary(&cases, #name, &nested::name);
  ATHANOR_NESTED_BINARY(ATHANOR_CASE)
#undef ATHANOR_CASE
  const auto x = [] { return Nested(kRows); };
  const auto above = [] { return Nested(kRows, 0.5, 2); };
  const NestedTensor mask = Nested(kRows) > 0;
  const std::vector<Case> more = {
      {"add", {{x(), x()}, {}}, [](const Inputs& i) { return Of(nested::add(i.x[0], i.x[1], 2)); }},
      {"sub", {{x(), x()}, {}}, [](const Inputs& i) { return Of(nested::sub(i.x[0], i.x[1], 2)); }},
      {"div", {{x(), above()}, {}}, [](const Inputs& i) { return Of(nested::div(i.x[0], i.x[1])); }},
      {"where", {{x(), x()}, {}}, [mask](const Inputs& i) { return Of(nested::where(mask, i.x[0], i.x[1])); }},
      {"clamp", {{x()}, {}}, [](const Inputs& i) { return Of(nested::clamp(i.x[0], -1, 1)); }},
      {"clamp between tensors",
       {{x(), Nested(kRows, -3, -1), Nested(kRows, 0, 1)}, {}},
       [](const Inputs& i) { return Of(nested::clamp(i.x[0], i.x[1], i.x[2])); }},
      {"lerp", {{x(), x(), x()}, {}}, [](const Inputs& i) { return Of(nested::lerp(i.x[0], i.x[1], i.x[2])); }},
      {"lerp by a number", {{x(), x()}, {}}, [](const Inputs& i) { return Of(nested::lerp(i.x[0], i.x[1], 0.3)); }},
      {"addcmul",
       {{x(), x(), x()}, {}},
       [](const Inputs& i) { return Of(nested::addcmul(i.x[0], i.x[1], i.x[2], 2)); }},
      {"addcdiv",
       {{x(), x(), above()}, {}},
       [](const Inputs& i) { return Of(nested::addcdiv(i.x[0], i.x[1], i.x[2], 2)); }},
      {"masked_fill", {{x()}, {}}, [mask](const Inputs& i) { return Of(nested::masked_fill(i.x[0], mask, 3)); }},
      {"masked_fill with a tensor",
       {{x()}, {Dense({})}},
       [mask](const Inputs& i) { return Of(nested::masked_fill(i.x[0], mask, i.w[0])); }},
      {"logit", {{Nested(kRows, 0.1, 0.9)}, {}}, [](const Inputs& i) { return Of(nested::logit(i.x[0])); }},
      {"nan_to_num", {{x()}, {}}, [](const Inputs& i) { return Of(nested::nan_to_num(i.x[0])); }},
      {"round", {{Nested(kRows, 0.6, 0.9)}, {}}, [](const Inputs& i) { return Of(nested::round(i.x[0])); }},
      InPlace("add_", [](NestedTensor& t, const NestedTensor& y) { nested::add_(t, y, 2); }),
      InPlace("sub_", [](NestedTensor& t, const NestedTensor& y) { nested::sub_(t, y); }),
      InPlace("mul_", [](NestedTensor& t, const NestedTensor& y) { nested::mul_(t, y); }),
      InPlace("div_", [](NestedTensor& t, const NestedTensor& y) { nested::div_(t, y); }),
      InPlace("pow_", [](NestedTensor& t, const NestedTensor& y) { nested::pow_(t, y); }),
      InPlace("remainder_", [](NestedTensor& t, const NestedTensor& y) { nested::remainder_(t, y); }),
  };
  cases.insert(cases.end(), more.begin(), more.end());
  return cases;
}

namespace {

// `fn(x, dim)` over rows, over a static dim, over one of two varying dims and over a varying dim behind a static one.
template <class Fn>
void AddAlong(std::vector<Case>* cases, const std::string& name, const Fn& fn, double low = -2, double high = 2) {
  const std::vector<std::tuple<std::string, Shapes, int64_t>> places = {{" over rows", kRows, 1},
                                                                        {" over a static dim", kRows, 2},
                                                                        {" over one of two", kBoth, 2},
                                                                        {" over rows behind", kLast, 2},
                                                                        {" over equal rows", kSame, 1}};
  for (const auto& [where, shapes, dim] : places) {
    const int64_t along = dim;
    cases->push_back({name + where, {{Nested(shapes, low, high)}, {}}, [fn, along](const Inputs& i) {
                        return Of(fn(i.x[0], along));
                      }});
  }
}

// `fn(x, dims)` also over the whole batch, over each element and over all dims of it.
template <class Fn>
void AddReduction(std::vector<Case>* cases, const std::string& name, const Fn& fn, bool of_batch_dim, double low = -2,
                  double high = 2) {
  AddAlong(cases, name, [fn](const NestedTensor& x, int64_t dim) { return fn(x, nested::Dims(dim)); }, low, high);
  cases->push_back({name + " of everything", {{Nested(kRows, low, high)}, {}}, [fn](const Inputs& i) {
                      return Of(fn(i.x[0], nested::Dims()));
                    }});
  if (!of_batch_dim) return;
  for (const Shapes& shapes : {kRows, kLast, kBoth}) {
    cases->push_back({name + " of each element", {{Nested(shapes, low, high)}, {}}, [fn](const Inputs& i) {
                        return Of(fn(i.x[0], nested::Dims(0)));
                      }});
  }
}

template <class Fn>
void AddDims(std::vector<Case>* cases, const std::string& name, const Fn& fn) {
  for (const Shapes& shapes : {kRows, kBoth, kLast}) {
    cases->push_back({name + " over both dims", {{Nested(shapes)}, {}}, [fn](const Inputs& i) {
                        return Of(fn(i.x[0], nested::Dims({1, 2})));
                      }});
  }
}

// Extremes, statistics and what keeps the shape.
void AddScans(std::vector<Case>* cases) {
#define ATHANOR_CASE(name) AddAlong(cases, #name, [](const NestedTensor& x, int64_t d) { return nested::name(x, d); });
  ATHANOR_CASE(max)
  ATHANOR_CASE(min)
  ATHANOR_CASE(median)
  ATHANOR_CASE(nanmedian)
  ATHANOR_CASE(mode)
  ATHANOR_CASE(logsumexp)
  ATHANOR_CASE(softmax)
  ATHANOR_CASE(log_softmax)
  ATHANOR_CASE(softmin)
  ATHANOR_CASE(cumsum)
  ATHANOR_CASE(cumprod)
  ATHANOR_CASE(logcumsumexp)
  ATHANOR_CASE(cummax)
  ATHANOR_CASE(cummin)
  ATHANOR_CASE(sort)
#undef ATHANOR_CASE
#define ATHANOR_CASE(name, call) AddAlong(cases, #name, [](const NestedTensor& x, int64_t d) { return call; });
  ATHANOR_CASE(kthvalue, nested::kthvalue(x, 1, d))
  ATHANOR_CASE(quantile, nested::quantile(x, 0.3, d))
  ATHANOR_CASE(nanquantile, nested::nanquantile(x, 0.3, d))
  ATHANOR_CASE(topk, nested::topk(x, 1, d))
  ATHANOR_CASE(aminmax, nested::aminmax(x, d))
  ATHANOR_CASE(norm, nested::norm(x, 3, d))
#undef ATHANOR_CASE
#define ATHANOR_CASE(name, call) \
  cases->push_back({name, {{Nested(kRows)}, {}}, [](const Inputs& i) { return Of(call); }});
  ATHANOR_CASE("max of everything", nested::max(i.x[0]))
  ATHANOR_CASE("min of everything", nested::min(i.x[0]))
  ATHANOR_CASE("max of each element", nested::max(i.x[0], 0, true))
  ATHANOR_CASE("min of each element", nested::min(i.x[0], 0))
  ATHANOR_CASE("median of everything", nested::median(i.x[0]))
  ATHANOR_CASE("nanmedian of everything", nested::nanmedian(i.x[0]))
  ATHANOR_CASE("norm of each element", nested::norm(i.x[0]))
  ATHANOR_CASE("quantile of everything", nested::quantile(i.x[0], 0.7))
  ATHANOR_CASE("max of segments", nested::SegmentExtreme(i.x[0], {0}, true))  // what GPUs take
  ATHANOR_CASE("min of segments", nested::SegmentExtreme(i.x[0], {0, 1}, false))
  ATHANOR_CASE("softmax of another dtype", nested::softmax(i.x[0] * 2, 1, torch::kFloat64))
#undef ATHANOR_CASE
}

}  // namespace

std::vector<Case> ReductionCases() {
  using nested::Dims;
  std::vector<Case> cases;
#define ATHANOR_CASE(name, of_batch_dim) \
  AddReduction(&cases, #name, [](const NestedTensor& x, const Dims& d) { return nested::name(x, d); }, of_batch_dim);
  ATHANOR_CASE(sum, true)
  ATHANOR_CASE(mean, true)
  ATHANOR_CASE(prod, true)
  ATHANOR_CASE(nansum, false)
  ATHANOR_CASE(nanmean, false)
  ATHANOR_CASE(amax, false)
  ATHANOR_CASE(amin, false)
#undef ATHANOR_CASE
#define ATHANOR_CASE(name, call) AddDims(&cases, #name, [](const NestedTensor& x, const Dims& d) { return call; });
  ATHANOR_CASE(sum, nested::sum(x, d, true))
  ATHANOR_CASE(mean, nested::mean(x, d, true))
  ATHANOR_CASE(amax, nested::amax(x, d, true))
  ATHANOR_CASE(amin, nested::amin(x, d))
  ATHANOR_CASE(var, nested::var(x, d))
  ATHANOR_CASE(std, nested::std(x, d, 0, true))
  ATHANOR_CASE(logsumexp, nested::logsumexp(x, d))
#undef ATHANOR_CASE
  cases.push_back({"sum across the samples", {{Nested(kRows)}, {}}, [](const Inputs& i) {
                     return Of(nested::sum(i.x[0], {0, 1}));
                   }});
  // Correction 0, as an element of one row has no variance with 1.
  AddReduction(&cases, "var", [](const NestedTensor& x, const Dims& d) { return nested::var(x, d, 0); }, false);
  AddReduction(
      &cases, "var_mean", [](const NestedTensor& x, const Dims& d) { return nested::var_mean(x, d, 0); }, false);
  const Shapes rows = {{3, 2}, {2, 2}};  // the root has no derivative at 0
#define ATHANOR_CASE(name)                                                                                      \
  cases.push_back(                                                                                              \
      {#name " over rows", {{Nested(rows)}, {}}, [](const Inputs& i) { return Of(nested::name(i.x[0], 1)); }}); \
  cases.push_back(                                                                                              \
      {#name " of everything", {{Nested(rows)}, {}}, [](const Inputs& i) { return Of(nested::name(i.x[0])); }});
  ATHANOR_CASE(std)
  ATHANOR_CASE(std_mean)
#undef ATHANOR_CASE
  AddScans(&cases);
  return cases;
}

}  // namespace athanor::gradient
