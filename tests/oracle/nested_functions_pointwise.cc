// Constructors, conversions and pointwise functions of NestedTensor for recorded expressions.
#include <nlohmann/json.hpp>
#include <sstream>

#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/layers.h"
#include "athanor/nested/ops/shape.h"
#include "athanor/nested/pn_tensor.h"
#include "tests/oracle/python_value.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

NestedOptions OptionsOf(const Arguments& a, size_t first) {
  NestedOptions options;
  options.dtype = a.dtype(first);
  if (a.given(first + 1)) options.batch_first = a.flag(first + 1);
  if (a.given(first + 2)) options.padding_value = a.number(first + 2);
  if (a.given(first + 3)) options.mask_value = a.flag(first + 3);
  if (a.given(first + 4)) options.requires_grad = a.flag(first + 4);
  return options;
}
const char* const kOptions = " dtype=None batch_first=None padding_value=None mask_value=None requires_grad=None";

// Nested lists of numbers, as torch.tensor takes them.
torch::Tensor TensorOfList(const Value& value) {
  if (value.is_tensor()) return value.get<torch::Tensor>();
  if (value.is<bool>()) return torch::tensor(value.get<bool>()).to(Place());
  if (value.is<int64_t>()) return torch::tensor(value.get<int64_t>(), torch::kInt64).to(Place());
  if (value.is<double>()) return torch::tensor(value.get<double>(), torch::kFloat32).to(Place());
  std::vector<torch::Tensor> parts;
  for (const Value& item : value.list()) parts.push_back(TensorOfList(item));
  if (parts.empty()) return torch::empty({0}, Place());
  torch::Dtype dtype = parts[0].scalar_type();
  for (const torch::Tensor& part : parts) dtype = c10::promoteTypes(dtype, part.scalar_type());
  for (torch::Tensor& part : parts) part = part.to(dtype);
  return torch::stack(parts);
}

Value ValueOfJson(const nlohmann::json& json) {
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  List list;
  for (const nlohmann::json& item : json) list.push_back(ValueOfJson(item));
  return list;
}

Value Construct(const Arguments& a) {
  const NestedOptions options = OptionsOf(a, 1);
  const List& given = a[0].list();
  if (given.size() == 1 && given[0].is_tensor()) return NestedTensor(given[0].get<torch::Tensor>(), options);
  const bool one_list = given.size() == 1 && given[0].is_list();
  if (given.size() == 1 && given[0].is_nested()) return NestedTensor(given[0].get<NestedTensor>().Unbind(), options);
  if (given.size() == 1 && !one_list)  // the compiler says so
    throw PythonError("ValueError", "tensors must be an Iterable, got " + KindOf(given[0]));
  std::vector<torch::Tensor> elements;
  for (const Value& item : one_list ? given[0].list() : given) elements.push_back(TensorOfList(item));
  return NestedTensor(elements, options);
}

// As PyTorch's default_collate: field by field, and PNTensors as one batch.
Value Collated(const List& samples) {
  const auto all = [&](const auto& is) { return std::all_of(samples.begin(), samples.end(), is); };
  if (all([](const Value& one) { return one.pn; })) {
    std::vector<PNTensor> batch;
    for (const Value& one : samples) batch.emplace_back(one.get<torch::Tensor>());
    return CollateNested(batch);
  }
  if (all([](const Value& one) { return one.is<std::string>(); })) return samples;
  const auto column = [&](const auto& of) {
    List values;
    for (const Value& one : samples) values.push_back(of(one));
    return Collated(values);
  };
  if (all([](const Value& one) { return one.is<std::shared_ptr<Dict>>(); })) {
    auto batch = std::make_shared<Dict>();
    for (const auto& [key, first] : *samples.at(0).get<std::shared_ptr<Dict>>())
      batch->emplace_back(key, column([&key = key](const Value& one) { return Item(one, key); }));
    return batch;
  }
  if (all([](const Value& one) { return one.is_list(); })) {
    List batch;
    for (size_t i = 0; i < samples.at(0).list().size(); ++i)
      batch.push_back(column([i](const Value& one) { return one.list().at(i); }));
    return batch;
  }
  return TensorOfList(samples);
}

void DefineConstructors() {
  Define("NestedTensor", std::string("*elements") + kOptions, Construct);
  Define("NestedTensor.from_concatenated", std::string("values shapes") + kOptions, [](const Arguments& a) {
    std::vector<std::vector<int64_t>> shapes;
    for (const Value& shape : a[1].list()) shapes.push_back(Arguments("shape", {shape}).ints(0));
    return NestedTensor::FromConcatenated(a.tensor(0), shapes, OptionsOf(a, 2));
  });
  Define("NestedTensor.from_tensor_mask", std::string("tensor mask") + kOptions + " batched=False",
         [](const Arguments& a) {
           return NestedTensor::FromTensorMask(a.tensor(0), a.tensor(1), OptionsOf(a, 2), a.flag(7));
         });
  Define("default_collate", "samples", [](const Arguments& a) { return Collated(a[0].list()); });
  // torch.tensor, and the one that makes a PNTensor.
  for (const bool pn : {false, true}) {
    Define(pn ? "tensor" : "torch.tensor", "data dtype=None requires_grad=False", [pn](const Arguments& a) {
      torch::Tensor made = TensorOfList(a[0]).clone();
      if (a.given(1)) made = made.to(*a.dtype(1));
      Value value(made.requires_grad_(a.flag(2)));
      value.pn = pn;
      return value;
    });
  }
}

void DefineViews() {
  Define("concatenate", "x", [](const Arguments& a) {
    const auto [values, shapes] = a.nested(0).concatenate();
    List all;
    for (const auto& shape : shapes) {
      List one;
      for (const int64_t size : shape) one.emplace_back(size);
      all.emplace_back(one);
    }
    return List{values, all};
  });
  Define("nested_like", "x dense strict=True",
         [](const Arguments& a) { return a.nested(0).NestedLike(a.tensor(1), a.flag(2)); });
  Define("tolist", "x", [](const Arguments& a) { return ValueOfJson(ToJson(a.nested(0))); });
  Define("list", "x", [](const Arguments& a) {
    if (a[0].is_list()) return a[0];
    List elements;
    for (const torch::Tensor& element : a.nested(0).Unbind()) elements.emplace_back(element);
    return Value(elements);
  });
  Define("len", "x", [](const Arguments& a) {
    return a[0].is_list() ? static_cast<int64_t>(a[0].list().size()) : a.nested(0).len();
  });
  Define("bool", "x", [](const Arguments& a) -> Value {
    // The class has no conversion to bool: Python's error is the compiler's here.
    if (a[0].is_nested()) throw PythonError("RuntimeError", "Boolean value of NestedTensor is ambiguous");
    return a.tensor(0).item<bool>();
  });
  Define("repr", "x", [](const Arguments& a) { return ToString(a.nested(0)); });
  Define("dim", "x", [](const Arguments& a) { return a.nested(0).dim(); });
  Define("size", "x dim=None", [](const Arguments& a) -> Value {
    return a.given(1) ? Value(a.nested(0).size(a.integer(1))) : Attribute(a[0], "shape");
  });
  for (const char* name : {"nelement", "element_size", "is_floating_point"}) {
    Define(name, "x", [name = std::string(name)](const Arguments& a) -> Value {
      if (name == "nelement") return a.nested(0).numel();
      if (name == "is_floating_point") return torch::isFloatingType(a.nested(0).dtype());
      return static_cast<int64_t>(torch::elementSize(a.nested(0).dtype()));
    });
  }
  Define("numel", "x", [](const Arguments& a) -> Value {
    if (!a[0].is_list()) return a.nested(0).numel();
    int64_t product = 1;
    for (const int64_t size : a.ints(0)) product *= size;
    return product;
  });
}

void DefineConversions() {
  Define("to", "x dtype", [](const Arguments& a) { return a.nested(0).to(*a.dtype(1)); });
  const std::vector<std::pair<const char*, torch::Dtype>> kCasts = {
      {"long", torch::kInt64},     {"int", torch::kInt32},    {"float", torch::kFloat32},
      {"double", torch::kFloat64}, {"half", torch::kFloat16}, {"bfloat16", torch::kBFloat16}};
  for (const auto& [name, dtype] : kCasts)
    Define(name, "x", [dtype = dtype](const Arguments& a) { return a.nested(0).to(dtype); });
  Define("clone", "x", [](const Arguments& a) { return a.nested(0).clone(); });
  Define("detach", "x", [](const Arguments& a) { return a.nested(0).detach(); });
  for (const char* name : {"copy.copy", "copy.deepcopy"})
    Define(name, "x", [](const Arguments& a) { return a.nested(0).clone(); });
  Define("pickle.dumps", "x", [](const Arguments& a) { return a[0]; });
  Define("pickle.loads", "x", [](const Arguments& a) { return NestedTensor::FromState(a.nested(0).State()); });
  Define("contiguous", "x", [](const Arguments& a) { return a.nested(0).contiguous(); });
  Define("requires_grad_", "x on=True", [](const Arguments& a) {
    NestedTensor x = a.nested(0);
    return x.requires_grad_(a.flag(1));
  });
  Define("backward", "x", [](const Arguments& a) {
    a.tensor(0).backward();
    return Value();
  });
}

void DefineUnary() {
#define ATHANOR_DEFINE(name) Define(#name, "x", [](const Arguments& a) { return nested::name(a.nested(0)); });
  ATHANOR_NESTED_UNARY(ATHANOR_DEFINE)
  ATHANOR_NESTED_ACTIVATIONS(ATHANOR_DEFINE)
  ATHANOR_DEFINE(zeros_like)
  ATHANOR_DEFINE(ones_like)
  ATHANOR_DEFINE(empty_like)
  ATHANOR_DEFINE(hardswish)
  ATHANOR_DEFINE(hardsigmoid)
#undef ATHANOR_DEFINE
  Define("full_like", "x value", [](const Arguments& a) { return nested::full_like(a.nested(0), a.scalar(1)); });
  Define("round", "x decimals=0", [](const Arguments& a) { return nested::round(a.nested(0), a.integer(1)); });
  Define("logit", "x eps=None", [](const Arguments& a) { return nested::logit(a.nested(0), a.maybe_number(1)); });
  Define("nan_to_num", "x nan=None posinf=None neginf=None", [](const Arguments& a) {
    return nested::nan_to_num(a.nested(0), a.maybe_number(1), a.maybe_number(2), a.maybe_number(3));
  });
  Define("isin", "x elements", [](const Arguments& a) { return nested::isin(a.nested(0), a.tensor(1)); });
}

void DefineBinary() {
#define ATHANOR_DEFINE(name) \
  Define(#name, "x y", [](const Arguments& a) { return nested::name(a.operand(0), a.operand(1)); });
  ATHANOR_NESTED_BINARY(ATHANOR_DEFINE)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                    \
  Define(#name, "x y", [](const Arguments& a) { \
    NestedTensor x = a.nested(0);               \
    return nested::name(x, a.operand(1));       \
  });
  ATHANOR_DEFINE(mul_)
  ATHANOR_DEFINE(div_)
  ATHANOR_DEFINE(floor_divide_)
  ATHANOR_DEFINE(remainder_)
  ATHANOR_DEFINE(pow_)
#undef ATHANOR_DEFINE
  Define("add", "x y alpha=1", [](const Arguments& a) { return nested::add(a.operand(0), a.operand(1), a.scalar(2)); });
  Define("sub", "x y alpha=1", [](const Arguments& a) { return nested::sub(a.operand(0), a.operand(1), a.scalar(2)); });
  Define("add_", "x y alpha=1", [](const Arguments& a) {
    NestedTensor x = a.nested(0);
    return nested::add_(x, a.operand(1), a.scalar(2));
  });
  Define("sub_", "x y alpha=1", [](const Arguments& a) {
    NestedTensor x = a.nested(0);
    return nested::sub_(x, a.operand(1), a.scalar(2));
  });
  Define("fill_", "x value", [](const Arguments& a) {
    NestedTensor x = a.nested(0);
    return nested::fill_(x, a.scalar(1));
  });
  Define("zero_", "x", [](const Arguments& a) {
    NestedTensor x = a.nested(0);
    return nested::zero_(x);
  });
  Define("div", "x y rounding_mode=None", [](const Arguments& a) {
    return nested::div(a.operand(0), a.operand(1), a.given(2) ? std::optional(a.text(2)) : std::nullopt);
  });
}

void DefineTernary() {
  Define("where", "condition x y",
         [](const Arguments& a) { return nested::where(a.operand(0), a.operand(1), a.operand(2)); });
  Define("clamp", "x min=None max=None",
         [](const Arguments& a) { return nested::clamp(a.nested(0), a.maybe_operand(1), a.maybe_operand(2)); });
  Define("masked_fill", "x mask value",
         [](const Arguments& a) { return nested::masked_fill(a.operand(0), a.operand(1), a.operand(2)); });
  Define("lerp", "x end weight",
         [](const Arguments& a) { return nested::lerp(a.operand(0), a.operand(1), a.operand(2)); });
  Define("addcmul", "x a b value=1",
         [](const Arguments& a) { return nested::addcmul(a.operand(0), a.operand(1), a.operand(2), a.scalar(3)); });
  Define("addcdiv", "x a b value=1",
         [](const Arguments& a) { return nested::addcdiv(a.operand(0), a.operand(1), a.operand(2), a.scalar(3)); });
  Define("isclose", "x y rtol=1e-5 atol=1e-8 equal_nan=False", [](const Arguments& a) {
    return nested::isclose(a.operand(0), a.operand(1), a.number(2), a.number(3), a.flag(4));
  });
  Define("equal", "x y", [](const Arguments& a) { return nested::equal(a.nested(0), a.nested(1)); });
  Define("allclose", "x y rtol=1e-5 atol=1e-8 equal_nan=False", [](const Arguments& a) {
    return nested::allclose(a.nested(0), a.nested(1), a.number(2), a.number(3), a.flag(4));
  });
}

void DefineDenseShapes() {
  Define("dense.expand", "x *sizes", [](const Arguments& a) { return a.tensor(0).expand(a.ints(1)); });
  Define("dense.expand_as", "x y", [](const Arguments& a) { return a.tensor(0).expand_as(a.tensor(1)); });
  Define("dense.view", "x *sizes", [](const Arguments& a) { return a.tensor(0).view(a.ints(1)); });
  Define("dense.permute", "x *dims", [](const Arguments& a) { return a.tensor(0).permute(a.ints(1)); });
  Define("dense.squeeze", "x dim", [](const Arguments& a) { return a.tensor(0).squeeze(a.integer(1)); });
  Define("dense.pow", "x exponent", [](const Arguments& a) { return a.tensor(0).pow(a.scalar(1)); });
  Define("dense.where", "condition x y",
         [](const Arguments& a) { return torch::where(a.tensor(0), a.operand(1).dense(), a.operand(2).dense()); });
  Define("dense.sum", "x dim=None keepdim=False",
         [](const Arguments& a) { return a.given(1) ? a.tensor(0).sum(a.sizes(1), a.flag(2)) : a.tensor(0).sum(); });
  Define("dense.mean", "x dim=None keepdim=False",
         [](const Arguments& a) { return a.given(1) ? a.tensor(0).mean(a.sizes(1), a.flag(2)) : a.tensor(0).mean(); });
  Define("dense.requires_grad_", "x on=True", [](const Arguments& a) { return a.tensor(0).requires_grad_(a.flag(1)); });
  Define("dense.detach", "x", [](const Arguments& a) { return a.tensor(0).detach(); });
}

}  // namespace

void DefineNestedPointwise() {
  DefineConstructors();
  DefineViews();
  DefineConversions();
  DefineUnary();
  DefineBinary();
  DefineTernary();
}

void DefineDense() {
  DefineDenseShapes();
  Define("dense.arange", "end", [](const Arguments& a) {
    return a[0].is<int64_t>() ? torch::arange(a.integer(0), torch::TensorOptions(Place()).dtype(torch::kInt64))
                              : torch::arange(a.number(0), torch::TensorOptions(Place()).dtype(torch::kFloat32));
  });
  for (const bool one : {false, true}) {
    Define(one ? "dense.ones" : "dense.zeros", "*sizes dtype=None", [one](const Arguments& a) {
      const auto options = torch::TensorOptions(Place()).dtype(a.dtype(1).value_or(torch::kFloat32));
      return one ? torch::ones(a.ints(0), options) : torch::zeros(a.ints(0), options);
    });
  }
  Define("dense.full", "size value", [](const Arguments& a) { return torch::full(a.ints(0), a.scalar(1), Place()); });
  Define("dense.eye", "n", [](const Arguments& a) { return torch::eye(a.integer(0), Place()); });
  Define("dense.reshape", "x *sizes", [](const Arguments& a) { return a.tensor(0).reshape(a.ints(1)); });
  Define("dense.float", "x", [](const Arguments& a) -> Value {
    return a[0].is_tensor() ? Value(a.tensor(0).to(torch::kFloat32)) : Value(a.number(0));
  });
  Define("dense.double", "x", [](const Arguments& a) { return a.tensor(0).to(torch::kFloat64); });
  Define("dense.long", "x", [](const Arguments& a) { return a.tensor(0).to(torch::kInt64); });
  Define("dense.to", "x dtype", [](const Arguments& a) { return a.tensor(0).to(*a.dtype(1)); });
  Define("dense.clone", "x", [](const Arguments& a) { return a.tensor(0).clone(); });
  Define("dense.numel", "x", [](const Arguments& a) -> Value {
    if (a[0].is_tensor()) return a.tensor(0).numel();
    int64_t product = 1;
    for (const int64_t size : a.ints(0)) product *= size;
    return product;
  });
  Define("dense.size", "x dim", [](const Arguments& a) { return a.tensor(0).size(a.integer(1)); });
  Define("dense.dim", "x", [](const Arguments& a) { return a.tensor(0).dim(); });
  Define("dense.item", "x", [](const Arguments& a) { return ToList(a.tensor(0)); });
  Define("dense.tolist", "x", [](const Arguments& a) { return ToList(a.tensor(0)); });
#define ATHANOR_DEFINE(name) Define("dense." #name, "x", [](const Arguments& a) { return a.tensor(0).name(); });
  ATHANOR_DEFINE(neg)
  ATHANOR_DEFINE(bitwise_not)
  ATHANOR_DEFINE(abs)
  ATHANOR_DEFINE(exp)
  ATHANOR_DEFINE(t)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)    \
  Define("dense." #name, "x y", \
         [](const Arguments& a) { return torch::name(a.operand(0).dense(), a.operand(1).dense()); });
  ATHANOR_DEFINE(add)
  ATHANOR_DEFINE(sub)
  ATHANOR_DEFINE(mul)
  ATHANOR_DEFINE(div)
  ATHANOR_DEFINE(matmul)
  ATHANOR_DEFINE(eq)
  ATHANOR_DEFINE(gt)
  ATHANOR_DEFINE(lt)
  ATHANOR_DEFINE(ne)
  ATHANOR_DEFINE(ge)
  ATHANOR_DEFINE(le)
#undef ATHANOR_DEFINE
  Define("dense.unsqueeze", "x dim", [](const Arguments& a) { return a.tensor(0).unsqueeze(a.integer(1)); });
  Define("dense.transpose", "x a b",
         [](const Arguments& a) { return a.tensor(0).transpose(a.integer(1), a.integer(2)); });
  Define("dense.allclose", "x y", [](const Arguments& a) { return torch::allclose(a.tensor(0), a.tensor(1)); });
  Define("dense.equal", "x y", [](const Arguments& a) { return torch::equal(a.tensor(0), a.tensor(1)); });
}

}  // namespace athanor::oracle
