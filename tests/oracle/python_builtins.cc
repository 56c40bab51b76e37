// Python's own functions in recorded expressions, its types, and methods whose arguments are not those of the function
// with the same name.
#include <algorithm>
#include <cmath>

#include "athanor/nested/ops/arithmetic.h"
#include "tests/oracle/python_value.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

std::string TypeName(const Value& value) {
  if (value.is_nested()) return "NestedTensor";
  if (value.is_tensor()) return value.pn ? "PNTensor" : "torch.Tensor";
  if (value.is_list()) return value.tuple ? "tuple" : "list";
  return KindOf(value);
}

bool IsInstance(const Value& value, const Value& type) {
  if (type.is_list()) {
    return std::any_of(type.list().begin(), type.list().end(),
                       [&](const Value& one) { return IsInstance(value, one); });
  }
  const std::string name = type.get<FunctionValue>().name, own = TypeName(value);
  const bool tensor = value.is_nested() || value.is_tensor();
  return own == name || (tensor && name == "torch.Tensor") || (own == "bool" && name == "int");
}

Value Listed(const Value& value, bool tuple) {
  List items;
  if (value.is_list()) items = value.list();
  if (value.is_nested() || value.is_tensor()) items = Call("list", {value}, {}).list();
  Value listed(std::move(items));
  listed.tuple = tuple;
  return listed;
}

Value Fold(const List& items, const std::function<bool(double, double)>& better) {
  const auto found = std::max_element(items.begin(), items.end(), [&](const Value& a, const Value& b) {
    return better(Arguments("max", {b}).number(0), Arguments("max", {a}).number(0));
  });
  if (found == items.end()) throw PythonError("ValueError", "max() arg is an empty sequence");
  return *found;
}

// One list, or several numbers.
List Several(const Arguments& a) {
  return a[0].is_list() && a[0].list().size() == 1 && a[0].list()[0].is_list() ? a[0].list()[0].list() : a[0].list();
}

void DefineTypes() {
  Define("python.type", "x", [](const Arguments& a) { return FunctionValue{TypeName(a[0]), nullptr}; });
  Define("python.isinstance", "x type", [](const Arguments& a) { return IsInstance(a[0], a[1]); });
  Define("python.getattr", "x name", [](const Arguments& a) { return Attribute(a[0], a.text(1)); });
  Define("python.hasattr", "x name", [](const Arguments& a) -> Value {
    try {
      Attribute(a[0], a.text(1));
      return true;
    } catch (const PythonError&) {
      return false;
    }
  });
  Define("python.str", "x", [](const Arguments& a) -> Value {
    if (a[0].is<std::string>()) return a[0];
    if (a[0].is<torch::Dtype>()) {
      static const std::map<torch::Dtype, std::string> kNames = {
          {torch::kFloat64, "torch.float64"},   {torch::kFloat32, "torch.float32"}, {torch::kFloat16, "torch.float16"},
          {torch::kBFloat16, "torch.bfloat16"}, {torch::kInt64, "torch.int64"},     {torch::kInt32, "torch.int32"},
          {torch::kBool, "torch.bool"},         {torch::kUInt8, "torch.uint8"}};
      return kNames.at(a[0].get<torch::Dtype>());
    }
    return a[0].is_nested() ? Value(ToString(a.nested(0))) : Value(std::to_string(a.integer(0)));
  });
  for (const bool whole : {false, true}) {
    Define(whole ? "python.int" : "python.float", "x", [whole](const Arguments& a) -> Value {
      if (a[0].is_nested()) throw PythonError("TypeError", "a NestedTensor is no number");
      const double number = a.number(0);
      return whole ? Value(static_cast<int64_t>(number)) : Value(number);
    });
  }
}

void DefineSequences() {
  Define("python.Size", "sizes", [](const Arguments& a) { return Listed(a[0], true); });
  Define("python.tuple", "x", [](const Arguments& a) { return Listed(a[0], true); });
  Define("python.list", "x", [](const Arguments& a) { return Listed(a[0], false); });
  Define("python.sorted", "x", [](const Arguments& a) {
    List items = a[0].list();
    std::sort(items.begin(), items.end(), [](const Value& left, const Value& right) {
      return Arguments("sorted", {left}).number(0) < Arguments("sorted", {right}).number(0);
    });
    return items;
  });
  Define("python.range", "begin end=None step=1", [](const Arguments& a) {
    List numbers;
    const int64_t begin = a.given(1) ? a.integer(0) : 0, end = a.given(1) ? a.integer(1) : a.integer(0);
    for (int64_t i = begin; i < end; i += a.integer(2)) numbers.emplace_back(i);
    return numbers;
  });
  Define("python.sum", "x", [](const Arguments& a) {
    Value total(0);
    for (const Value& item : a[0].list()) total = BinaryOperator("+", total, item);
    return total;
  });
  Define("python.max", "*x", [](const Arguments& a) { return Fold(Several(a), std::greater<>()); });
  Define("python.min", "*x", [](const Arguments& a) { return Fold(Several(a), std::less<>()); });
  Define("python.all", "x",
         [](const Arguments& a) { return std::all_of(a[0].list().begin(), a[0].list().end(), Truth); });
  Define("python.any", "x",
         [](const Arguments& a) { return std::any_of(a[0].list().begin(), a[0].list().end(), Truth); });
  Define("python.abs", "x", [](const Arguments& a) -> Value {
    return a[0].is<int64_t>() ? Value(std::abs(a.integer(0))) : Value(std::abs(a.number(0)));
  });
  Define("python.round", "x digits=0", [](const Arguments& a) {
    const double scale = std::pow(10.0, a.number(1));
    return std::nearbyint(a.number(0) * scale) / scale;
  });
}

void DefineMethods() {
  Define("method.where", "x condition other", [](const Arguments& a) -> Value {
    if (!a[0].is_nested() && !a[1].is_nested() && !a[2].is_nested())
      return torch::where(a.tensor(1), a.tensor(0), a.operand(2).dense());
    return nested::where(a.operand(1), a.operand(0), a.operand(2));
  });
  Define("autograd.grad", "of inputs", [](const Arguments& a) {
    List gradients;
    std::vector<torch::Tensor> inputs;
    for (const Value& input : a[1].is_list() ? a[1].list() : List{a[1]}) inputs.push_back(input.get<torch::Tensor>());
    for (const torch::Tensor& gradient : torch::autograd::grad({a.tensor(0)}, inputs)) gradients.emplace_back(gradient);
    return gradients;
  });
}

}  // namespace

void DefinePython() {
  DefineTypes();
  DefineSequences();
  DefineMethods();
}

}  // namespace athanor::oracle
