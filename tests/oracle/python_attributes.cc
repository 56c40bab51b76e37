// Attributes, indexing and operators of recorded expressions.
#include <algorithm>
#include <cmath>

#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/linalg.h"
#include "athanor/nested/ops/shape.h"
#include "tests/oracle/python_value.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

using torch::indexing::Slice;
using torch::indexing::TensorIndex;

Value IntList(torch::IntArrayRef numbers) {
  List list;
  for (const int64_t number : numbers) list.emplace_back(number);
  return list;
}

Slice SliceOf(const SliceValue& slice) {
  const auto part = [](const std::optional<int64_t>& value) -> std::optional<c10::SymInt> {
    return value ? std::optional<c10::SymInt>(*value) : std::nullopt;
  };
  return {part(slice.start), part(slice.stop), part(slice.step)};
}

NestedIndex NestedIndexOf(const Value& item) {
  if (item.is<int64_t>()) return item.get<int64_t>();
  if (item.is<bool>()) return NestedIndex::Flags{item.get<bool>()};
  if (item.is<SliceValue>()) return SliceOf(item.get<SliceValue>());
  if (item.is<Dots>()) return "...";
  if (item.none()) return std::nullopt;
  if (item.is_tensor()) return item.get<torch::Tensor>();
  if (item.is_nested()) return item.get<NestedTensor>();
  if (item.is_list()) {
    NestedIndex::Flags flags;
    NestedIndex::Positions positions;
    for (const Value& one : item.list()) {
      if (one.is<bool>())
        flags.push_back(one.get<bool>());
      else if (one.is<int64_t>())
        positions.push_back(one.get<int64_t>());
      else
        throw PythonError("TypeError", "an index list holds " + KindOf(one));
    }
    if (!flags.empty()) return flags;
    return positions;
  }
  throw PythonError("TypeError", "no index: " + KindOf(item));
}

// A tuple is a list of items; a list alone selects from the batch.
std::vector<NestedIndex> NestedIndicesOf(const Value& index) {
  std::vector<NestedIndex> items;
  if (index.is_list() && index.tuple) {
    for (const Value& item : index.list()) items.push_back(NestedIndexOf(item));
  } else {
    items.push_back(NestedIndexOf(index));
  }
  return items;
}

TensorIndex DenseIndexOf(const Value& item) {
  if (item.is<int64_t>()) return item.get<int64_t>();
  if (item.is<SliceValue>()) return SliceOf(item.get<SliceValue>());
  if (item.is<Dots>()) return torch::indexing::Ellipsis;
  if (item.none()) return torch::indexing::None;
  if (item.is_tensor()) return item.get<torch::Tensor>();
  throw PythonError("TypeError", "no index: " + KindOf(item));
}

std::optional<Value> NestedAttribute(const NestedTensor& x, const std::string& name) {
  const NestedStructure& s = *x.structure();
  if (name == "tensor") return Value(x.tensor());
  if (name == "mask") return Value(x.mask());
  if (name == "tensor_mask") return Value(List{x.tensor(), x.mask()});
  if (name == "concat" || name == "_values") return Value(x.concat());
  if (name == "shape") return IntList(x.shape());
  if (name == "ndim") return Value(x.dim());
  if (name == "dtype") return Value(x.dtype());
  if (name == "occupancy") return Value(x.occupancy());
  if (name == "batch_first") return Value(x.batch_first());
  if (name == "mask_value") return Value(x.mask_value());
  if (name == "padding_value") return Value(x.padding_value());
  if (name == "requires_grad") return Value(x.requires_grad());
  if (name == "is_leaf") return Value(x.values().is_leaf());
  if (name == "device") return Value(x.device().str());
  if (name == "grad") return Value(x.grad());
  if (name == "T") return Value(nested::T(x));
  if (name == "mT") return Value(nested::mT(x));
  if (name == "_offsets") return Value(x.offsets());
  if (name == "_physical_shape") return Value(s.PhysicalShape());
  if (name == "_permutation") return IntList(s.permutation());
  if (name == "_packed_sizes") return IntList(s.packed_sizes());
  if (name == "_varying_dims") return IntList(s.varying_dims());
  if (name == "_static_dims") return IntList(s.static_dims());
  if (name == "_ragged_rank") return Value(static_cast<int64_t>(s.varying_dims().size()));
  if (name == "_hierarchical_offsets") {
    List offsets;
    for (const torch::Tensor& one : s.HierarchicalOffsets()) offsets.emplace_back(one);
    return Value(offsets);
  }
  return std::nullopt;
}

std::optional<Value> DenseAttribute(const torch::Tensor& x, const std::string& name) {
  if (name == "tensor" || name == "concat") return Value(x);
  if (name == "mask") return Value(torch::ones_like(x, torch::kBool));
  if (name == "shape") return IntList(x.sizes());
  if (name == "ndim") return Value(x.dim());
  if (name == "dtype") return Value(x.scalar_type());
  if (name == "requires_grad") return Value(x.requires_grad());
  if (name == "is_leaf") return Value(x.is_leaf());
  if (name == "device") return Value(x.device().str());
  if (name == "grad") return x.grad().defined() ? Value(x.grad()) : Value();
  if (name == "T") return Value(x.numpy_T());
  if (name == "mT") return Value(x.mT());
  return std::nullopt;
}

Value Numbers(const std::string& symbol, const Value& left, const Value& right) {
  const auto is_number = [](const Value& value) {
    return value.is<bool>() || value.is<int64_t>() || value.is<double>();
  };
  if (!is_number(left) || !is_number(right)) {
    if (symbol == "==" || symbol == "!=") return Same(left, right) == (symbol == "==");
    if (symbol == "+" && left.is_list() && right.is_list()) {
      List joined = left.list();
      joined.insert(joined.end(), right.list().begin(), right.list().end());
      Value value(std::move(joined));
      value.tuple = left.tuple;
      return value;
    }
  }
  const Arguments both(symbol, {left, right});
  const auto ints = left.is<int64_t>() && right.is<int64_t>();
  if (symbol == "==") return both.number(0) == both.number(1);
  if (symbol == "!=") return both.number(0) != both.number(1);
  if (symbol == "<") return both.number(0) < both.number(1);
  if (symbol == "<=") return both.number(0) <= both.number(1);
  if (symbol == ">") return both.number(0) > both.number(1);
  if (symbol == ">=") return both.number(0) >= both.number(1);
  if (symbol == "**" && !(ints && both.integer(1) >= 0)) return std::pow(both.number(0), both.number(1));
  if (symbol == "**") return static_cast<int64_t>(std::llround(std::pow(both.number(0), both.number(1))));
  if (symbol == "//" || symbol == "%") {
    const double quotient = std::floor(both.number(0) / both.number(1));
    const double result = symbol == "//" ? quotient : both.number(0) - quotient * both.number(1);
    return ints ? Value(static_cast<int64_t>(result)) : Value(result);
  }
  if (symbol == "-") return ints ? Value(both.integer(0) - both.integer(1)) : Value(both.number(0) - both.number(1));
  if (symbol == "+") return ints ? Value(both.integer(0) + both.integer(1)) : Value(both.number(0) + both.number(1));
  if (symbol == "*") return ints ? Value(both.integer(0) * both.integer(1)) : Value(both.number(0) * both.number(1));
  if (symbol == "/") return both.number(0) / both.number(1);
  throw std::logic_error("the replay does not know '" + symbol + "' of numbers");
}

}  // namespace

Value ToList(const torch::Tensor& tensor) {
  if (tensor.dim() == 0) {
    if (tensor.scalar_type() == torch::kBool) return tensor.item<bool>();
    if (!tensor.is_floating_point()) return tensor.item<int64_t>();
    return tensor.item<double>();
  }
  List list;
  for (int64_t i = 0; i < tensor.size(0); ++i) list.push_back(ToList(tensor[i]));
  return list;
}

bool Truth(const Value& value) {
  if (value.none()) return false;
  if (value.is<bool>()) return value.get<bool>();
  if (value.is_list()) return !value.list().empty();
  if (value.is<std::string>()) return !value.get<std::string>().empty();
  if (value.is_nested()) throw PythonError("RuntimeError", "Boolean value of NestedTensor is ambiguous");
  if (value.is<FunctionValue>() || value.is<torch::Dtype>()) return true;
  return Arguments("bool", {value}).number(0) != 0;
}

bool Same(const Value& left, const Value& right) {
  if (left.is_list() && right.is_list()) {
    return std::equal(left.list().begin(), left.list().end(), right.list().begin(), right.list().end(), Same);
  }
  if (left.is_nested() && right.is_nested())
    return left.get<NestedTensor>().values().is_same(right.get<NestedTensor>().values());
  if (left.is_tensor() && right.is_tensor()) return left.get<torch::Tensor>().is_same(right.get<torch::Tensor>());
  if (left.is<std::string>() && right.is<std::string>()) return left.get<std::string>() == right.get<std::string>();
  if (left.is<torch::Dtype>() && right.is<torch::Dtype>()) return left.get<torch::Dtype>() == right.get<torch::Dtype>();
  if (left.is<FunctionValue>() && right.is<FunctionValue>())
    return left.get<FunctionValue>().name == right.get<FunctionValue>().name;
  if (left.none() || right.none()) return left.none() && right.none();
  const auto is_number = [](const Value& value) {
    return value.is<bool>() || value.is<int64_t>() || value.is<double>();
  };
  return is_number(left) && is_number(right) && Arguments("==", {left}).number(0) == Arguments("==", {right}).number(0);
}

Value Attribute(const Value& object, const std::string& name) {
  if (object.is<std::string>() && name == "type") {  // of a device
    const std::string& text = object.get<std::string>();
    return text.substr(0, text.find(':'));
  }
  if (object.is<FunctionValue>()) {
    const std::string& module = object.get<FunctionValue>().name;
    if (name == "__name__") return module.substr(module.rfind('.') + 1);
    if (module == "torch" && (name == "tensor" || name == "Tensor")) return FunctionValue{"torch." + name, nullptr};
    static const std::map<std::string, torch::Dtype> kDtypes = {
        {"float64", torch::kFloat64},   {"double", torch::kFloat64},  {"float32", torch::kFloat32},
        {"float", torch::kFloat32},     {"float16", torch::kFloat16}, {"half", torch::kFloat16},
        {"bfloat16", torch::kBFloat16}, {"int64", torch::kInt64},     {"long", torch::kInt64},
        {"int32", torch::kInt32},       {"int", torch::kInt32},       {"bool", torch::kBool},
        {"uint8", torch::kUInt8},       {"int16", torch::kInt16},     {"int8", torch::kInt8}};
    if (module == "torch" && kDtypes.contains(name)) return kDtypes.at(name);
    const bool plain = module == "torch" || module == "nnf" || module == "nn" || module == "functional" ||
                       module == "utils" || module == "data" || module == "F";
    return FunctionValue{plain ? name : module + "." + name, nullptr};
  }
  std::optional<Value> found;
  if (object.is_nested()) found = NestedAttribute(object.get<NestedTensor>(), name);
  if (object.is_tensor()) found = DenseAttribute(object.get<torch::Tensor>(), name);
  if (found) return *found;
  if (object.is_list() && (name == "values" || name == "indices") && object.list().size() == 2)
    return object.list()[name == "values" ? 0 : 1];
  if ((object.is_nested() || object.is_tensor()) && !IsDefined(name) && !IsDefined("dense." + name) &&
      !IsDefined("method." + name))
    throw PythonError("AttributeError", KindOf(object) + " has no attribute '" + name + "'");
  return FunctionValue{name, std::make_shared<Value>(object)};
}

void SetAttribute(Value& object, const std::string& name, const Value& value) {
  const Arguments given("setattr", {value});
  if (name == "requires_grad") {
    object = Call("requires_grad_", {object, value}, {});
    return;
  }
  NestedTensor x = Arguments("setattr", {object}).nested(0);
  if (name == "padding_value")
    x.set_padding_value(given.number(0));
  else if (name == "mask_value")
    x.set_mask_value(given.flag(0));
  else if (name == "batch_first")
    x.set_batch_first(given.flag(0));
  else
    throw PythonError("AttributeError", "cannot set " + name);
  object = x;
}

Value Item(const Value& object, const Value& index) {
  if (object.is<std::shared_ptr<Dict>>()) {
    for (const auto& [key, value] : *object.get<std::shared_ptr<Dict>>()) {
      if (key == index.get<std::string>()) return value;
    }
    throw PythonError("KeyError", index.get<std::string>());
  }
  if (object.is_list() && index.is<SliceValue>()) {
    const auto& slice = index.get<SliceValue>();
    const auto size = static_cast<int64_t>(object.list().size());
    const auto at = [size](int64_t position) {
      return std::clamp<int64_t>(position < 0 ? position + size : position, 0, size);
    };
    List part;
    for (int64_t i = at(slice.start.value_or(0)); i < at(slice.stop.value_or(size)); i += slice.step.value_or(1))
      part.push_back(object.list()[static_cast<size_t>(i)]);
    return part;
  }
  if (object.is_list()) {
    const auto size = static_cast<int64_t>(object.list().size());
    const int64_t at = index.get<int64_t>();
    return object.list().at(static_cast<size_t>(at < 0 ? at + size : at));
  }
  if (object.is_tensor()) {
    std::vector<TensorIndex> items;
    if (index.is_list()) {
      for (const Value& item : index.list()) items.push_back(DenseIndexOf(item));
    } else {
      items.push_back(DenseIndexOf(index));
    }
    return object.get<torch::Tensor>().index(items);
  }
  const NestedTensor x = Arguments("getitem", {object}).nested(0);
  return x.Index(NestedIndicesOf(index));
}

void SetItem(Value& object, const Value& index, const Value& value) {
  if (object.is_tensor()) {
    std::vector<TensorIndex> items;
    for (const Value& item : index.is_list() && index.tuple ? index.list() : List{index})
      items.push_back(DenseIndexOf(item));
    torch::Tensor(object.get<torch::Tensor>()).index_put_(items, Arguments("setitem", {value}).operand(0).dense());
    return;
  }
  NestedTensor x = Arguments("setitem", {object}).nested(0);
  const bool numbers = value.is_list() && !value.list().empty() && !value.list()[0].is_tensor();
  if (numbers) return SetItem(object, index, Call("torch.tensor", {value}, {}));
  if (value.is_list()) {
    std::vector<torch::Tensor> elements;
    for (size_t i = 0; i < value.list().size(); ++i) elements.push_back(Arguments("setitem", value.list()).tensor(i));
    x.Assign(NestedIndicesOf(index), NestedTensor(elements));
  } else {
    x.Assign(NestedIndicesOf(index), Arguments("setitem", {value}).operand(0));
  }
  object = x;
}

Value BinaryOperator(const std::string& symbol, const Value& left, const Value& right) {
  static const std::map<std::string, std::string> kNames = {{"+", "add"},
                                                            {"-", "sub"},
                                                            {"*", "mul"},
                                                            {"/", "div"},
                                                            {"//", "floor_divide"},
                                                            {"%", "remainder"},
                                                            {"**", "pow"},
                                                            {"@", "matmul"},
                                                            {"&", "bitwise_and"},
                                                            {"|", "bitwise_or"},
                                                            {"^", "bitwise_xor"},
                                                            {"==", "eq"},
                                                            {"!=", "ne"},
                                                            {"<", "lt"},
                                                            {"<=", "le"},
                                                            {">", "gt"},
                                                            {">=", "ge"},
                                                            {"+=", "add_"},
                                                            {"-=", "sub_"},
                                                            {"*=", "mul_"},
                                                            {"/=", "div_"},
                                                            {"//=", "floor_divide_"},
                                                            {"%=", "remainder_"},
                                                            {"**=", "pow_"},
                                                            {"<<", "bitwise_left_shift"},
                                                            {">>", "bitwise_right_shift"}};
  if (symbol == "and" || symbol == "or") return Truth(left) == (symbol == "or") ? left : right;
  if (symbol == "is" || symbol == "is not") return Same(left, right) == (symbol == "is");
  if (symbol == "in" || symbol == "not in") {
    const List& list = right.list();
    const bool found = std::any_of(list.begin(), list.end(), [&](const Value& one) { return Same(one, left); });
    return found == (symbol == "in");
  }
  const bool tensors = left.is_nested() || right.is_nested() || left.is_tensor() || right.is_tensor();
  if (!tensors) return Numbers(symbol, left, right);
  return Call(kNames.at(symbol), {left, right}, {});
}

Value UnaryOperator(const std::string& symbol, const Value& operand) {
  if (symbol == "not") return !Truth(operand);
  if (operand.is<int64_t>()) return symbol == "-" ? Value(-operand.get<int64_t>()) : operand;
  if (operand.is<double>()) return symbol == "-" ? Value(-operand.get<double>()) : operand;
  if (symbol == "+") return operand;
  return Call(symbol == "-" ? "neg" : "bitwise_not", {operand}, {});
}

}  // namespace athanor::oracle
