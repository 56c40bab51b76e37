// Values of recorded Python expressions, and the functions that they may call: the replay of expressions such as
// `torch.sum(x, dim=1)` against this library.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "athanor/nested/index.h"
#include "athanor/nested/ops/reduce.h"
#include "athanor/nested/tensor.h"

namespace athanor::oracle {

// What Python would raise where C++ refuses to compile, or by its own rules.
struct PythonError : std::runtime_error {
  PythonError(std::string kind_in, const std::string& text) : std::runtime_error(text), kind(std::move(kind_in)) {}
  std::string kind;
};

struct Value;
using List = std::vector<Value>;
using Dict = std::vector<std::pair<std::string, Value>>;
struct None {};
struct Dots {};
struct SliceValue {
  std::optional<int64_t> start, stop, step;
};
struct FunctionValue {
  std::string name;             // "torch.sum", or a method's name
  std::shared_ptr<Value> self;  // of methods
};

struct Value {
  using Variant =
      std::variant<None, bool, int64_t, double, std::string, torch::Tensor, NestedTensor, std::shared_ptr<List>,
                   std::shared_ptr<Dict>, SliceValue, Dots, torch::Dtype, FunctionValue>;
  Value() : v(None{}) {}
  template <class T, class = std::enable_if_t<std::is_constructible_v<Variant, T> && !std::is_integral_v<T>>>
  Value(T value) : v(std::move(value)) {}                           // NOLINT(google-explicit-constructor)
  Value(bool value) : v(value) {}                                   // NOLINT(google-explicit-constructor)
  Value(int64_t value) : v(value) {}                                // NOLINT(google-explicit-constructor)
  Value(int value) : v(int64_t{value}) {}                           // NOLINT(google-explicit-constructor)
  Value(List list) : v(std::make_shared<List>(std::move(list))) {}  // NOLINT(google-explicit-constructor)
  Value(const NestedValue& value) {                                 // NOLINT(google-explicit-constructor)
    if (value.is_nested())
      v = value.nested();
    else
      v = value.dense();
  }
  Value(const std::pair<NestedValue, NestedValue>& both) : Value(List{both.first, both.second}) {}    // NOLINT
  Value(const std::pair<NestedTensor, NestedTensor>& both) : Value(List{both.first, both.second}) {}  // NOLINT

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(v);
  }
  template <class T>
  const T& get() const {
    return std::get<T>(v);
  }
  bool none() const { return is<None>(); }
  bool is_list() const { return is<std::shared_ptr<List>>(); }
  const List& list() const { return *get<std::shared_ptr<List>>(); }
  bool is_nested() const { return is<NestedTensor>(); }
  bool is_tensor() const { return is<torch::Tensor>(); }

  Variant v;
  bool tuple = false;  // of a list: written as a tuple, which an index tells from a list
  bool pn = false;     // of a tensor: a PNTensor
};

std::string KindOf(const Value& value);  // as Python's type names, for messages

// Arguments in the order of a signature; each accessor throws PythonError("TypeError") for another kind.
class Arguments {
 public:
  Arguments(std::string function, List values) : function_(std::move(function)), values_(std::move(values)) {}
  const Value& operator[](size_t i) const { return values_[i]; }
  bool given(size_t i) const { return !values_[i].none(); }
  const NestedTensor& nested(size_t i) const;
  NestedValue operand(size_t i) const;  // a nested tensor, a dense one or a number
  torch::Tensor tensor(size_t i) const;
  std::optional<torch::Tensor> maybe_tensor(size_t i) const;
  std::optional<NestedValue> maybe_operand(size_t i) const;
  int64_t integer(size_t i) const;
  std::optional<int64_t> maybe_integer(size_t i) const;
  double number(size_t i) const;
  std::optional<double> maybe_number(size_t i) const;
  torch::Scalar scalar(size_t i) const;
  bool flag(size_t i) const;
  std::string text(size_t i) const;
  std::vector<int64_t> ints(size_t i) const;   // a list or tuple
  std::vector<int64_t> sizes(size_t i) const;  // the same, or one number
  nested::Dims dims(size_t i) const;           // none, a number or a list
  std::optional<torch::Dtype> dtype(size_t i) const;
  std::vector<NestedValue> operands(size_t i) const;

 private:
  [[noreturn]] void Refuse(size_t i, const char* wanted) const;
  std::string function_;
  List values_;
};

// `signature`: names in order, "name" (needed), "name=default" with a literal, "*name" (the rest of the positions as
// one list). Function names: torch and torch.nn.functional share theirs with methods.
using Body = std::function<Value(const Arguments&)>;
void Define(const std::string& name, const std::string& signature, Body body);
bool IsDefined(const std::string& name);
Value Call(const std::string& name, const List& positions, const Dict& named);

// Each adds the functions of one subject; called once by the family.
void DefineNestedPointwise();
void DefineNestedReductions();
void DefineNestedShapes();
void DefineNestedLayers();
void DefineNestedLosses();
void DefineDense();
void DefinePython();  // its own functions and types, under "python."; methods that differ from functions, "method."

// Evaluates an expression, or "exec:statement; statement => expression", over these names (which statements may
// change).
Value Evaluate(const std::string& source, std::map<std::string, Value>& names);
Value Attribute(const Value& object, const std::string& name);  // tests/oracle/python_attributes.cc
Value Item(const Value& object, const Value& index);
void SetItem(Value& object, const Value& index, const Value& value);
void SetAttribute(Value& object, const std::string& name, const Value& value);
Value BinaryOperator(const std::string& symbol, const Value& left, const Value& right);
Value UnaryOperator(const std::string& symbol, const Value& operand);
Value ToList(const torch::Tensor& tensor);
bool Truth(const Value& value);
bool Same(const Value& left, const Value& right);  // of what is no tensor: equal; of tensors: one object

}  // namespace athanor::oracle
