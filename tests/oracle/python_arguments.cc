// Binding of arguments to signatures, and the table of functions.
#include <algorithm>
#include <sstream>

#include "tests/oracle/python_value.h"

namespace athanor::oracle {
namespace {

struct Parameter {
  std::string name;
  bool needed = true;
  bool rest = false;
  Value fallback;
};
struct Function {
  std::vector<Parameter> parameters;
  Body body;
};

std::map<std::string, Function>& Functions() {
  static std::map<std::string, Function> functions;
  return functions;
}

Value Literal(const std::string& text) {
  if (text == "None") return {};
  if (text == "True" || text == "False") return text == "True";
  if (text[0] == '\'') return text.substr(1, text.size() - 2);
  if (text.find_first_of(".e") != std::string::npos) return std::stod(text);
  return int64_t{std::stoll(text)};
}

std::vector<Parameter> ParseSignature(const std::string& signature) {
  std::vector<Parameter> parameters;
  std::istringstream words(signature);
  for (std::string word; words >> word;) {
    Parameter parameter;
    const size_t equals = word.find('=');
    parameter.rest = word[0] == '*';
    parameter.name = word.substr(parameter.rest ? 1 : 0, equals);
    if (equals != std::string::npos) {
      parameter.needed = false;
      parameter.fallback = Literal(word.substr(equals + 1));
    }
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

bool AnyNested(const List& values) {
  return std::any_of(values.begin(), values.end(), [](const Value& value) {
    return value.is_nested() || (value.is_list() && AnyNested(value.list()));
  });
}

}  // namespace

std::string KindOf(const Value& value) {
  static const char* const kNames[] = {"NoneType", "bool", "int",   "float",    "str",   "Tensor",  "NestedTensor",
                                       "list",     "dict", "slice", "ellipsis", "dtype", "function"};
  return kNames[value.v.index()];
}

void Define(const std::string& name, const std::string& signature, Body body) {
  Functions()[name] = {ParseSignature(signature), std::move(body)};
}

bool IsDefined(const std::string& name) {
  return Functions().contains(name);
}

Value Call(const std::string& name, const List& positions, const Dict& named) {
  auto found = Functions().find(name);
  const bool nested = AnyNested(positions) || std::any_of(named.begin(), named.end(), [](const auto& argument) {
                        return AnyNested({argument.second});
                      });
  if (const auto dense = Functions().find("dense." + name); dense != Functions().end() && !nested) found = dense;
  if (found == Functions().end()) throw std::logic_error("the replay does not know the function '" + name + "'");
  const std::vector<Parameter>& parameters = found->second.parameters;
  List bound(parameters.size());
  std::vector<bool> set(parameters.size(), false);
  for (size_t i = 0; i < positions.size(); ++i) {
    if (i < parameters.size() && parameters[i].rest) {
      const bool one_list = positions.size() == i + 1 && positions[i].is_list();
      bound[i] = one_list ? positions[i] : Value(List(positions.begin() + static_cast<ptrdiff_t>(i), positions.end()));
      set[i] = true;
      break;
    }
    if (i >= parameters.size()) throw PythonError("TypeError", name + "() takes fewer arguments");
    bound[i] = positions[i];
    set[i] = true;
  }
  for (const auto& [key, value] : named) {
    size_t at = 0;
    while (at < parameters.size() && parameters[at].name != key) ++at;
    if (at == parameters.size() || set[at]) throw PythonError("TypeError", name + "() does not take '" + key + "'");
    bound[at] = value;
    set[at] = true;
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!set[i] && parameters[i].needed && !parameters[i].rest)
      throw PythonError("TypeError", name + "() needs '" + parameters[i].name + "'");
    if (!set[i]) bound[i] = parameters[i].rest ? Value(List{}) : parameters[i].fallback;
  }
  Value result = found->second.body(Arguments(name, std::move(bound)));
  result.pn = result.pn || (result.is_tensor() && std::any_of(positions.begin(), positions.end(),
                                                              [](const Value& value) { return value.pn; }));
  return result;
}

void Arguments::Refuse(size_t i, const char* wanted) const {
  throw PythonError("TypeError", function_ + "(): argument " + std::to_string(i) + " must be " + wanted + ", not " +
                                     KindOf(values_[i]));
}

const NestedTensor& Arguments::nested(size_t i) const {
  if (!values_[i].is_nested()) Refuse(i, "NestedTensor");
  return values_[i].get<NestedTensor>();
}

NestedValue Arguments::operand(size_t i) const {
  const Value& value = values_[i];
  if (value.is_nested()) return value.get<NestedTensor>();
  if (value.is_tensor()) return value.get<torch::Tensor>();
  if (value.is<bool>()) return value.get<bool>();
  if (value.is<int64_t>()) return value.get<int64_t>();
  if (value.is<double>()) return value.get<double>();
  Refuse(i, "a tensor or a number");
}

torch::Tensor Arguments::tensor(size_t i) const {
  if (!values_[i].is_tensor()) Refuse(i, "Tensor");
  return values_[i].get<torch::Tensor>();
}

std::optional<torch::Tensor> Arguments::maybe_tensor(size_t i) const {
  return given(i) ? std::optional(tensor(i)) : std::nullopt;
}

std::optional<NestedValue> Arguments::maybe_operand(size_t i) const {
  return given(i) ? std::optional(operand(i)) : std::nullopt;
}

int64_t Arguments::integer(size_t i) const {
  if (values_[i].is<bool>()) return values_[i].get<bool>() ? 1 : 0;
  if (values_[i].is_tensor() && values_[i].get<torch::Tensor>().dim() == 0)
    return values_[i].get<torch::Tensor>().item<int64_t>();
  if (!values_[i].is<int64_t>()) Refuse(i, "int");
  return values_[i].get<int64_t>();
}

std::optional<int64_t> Arguments::maybe_integer(size_t i) const {
  return given(i) ? std::optional(integer(i)) : std::nullopt;
}

double Arguments::number(size_t i) const {
  if (values_[i].is<double>()) return values_[i].get<double>();
  if (values_[i].is_tensor() && values_[i].get<torch::Tensor>().dim() == 0)
    return values_[i].get<torch::Tensor>().item<double>();
  return static_cast<double>(integer(i));
}

std::optional<double> Arguments::maybe_number(size_t i) const {
  return given(i) ? std::optional(number(i)) : std::nullopt;
}

torch::Scalar Arguments::scalar(size_t i) const {
  if (values_[i].is<int64_t>()) return values_[i].get<int64_t>();
  if (values_[i].is<bool>()) return values_[i].get<bool>();
  return number(i);
}

bool Arguments::flag(size_t i) const {
  if (!values_[i].is<bool>()) Refuse(i, "bool");
  return values_[i].get<bool>();
}

std::string Arguments::text(size_t i) const {
  if (!values_[i].is<std::string>()) Refuse(i, "str");
  return values_[i].get<std::string>();
}

std::vector<int64_t> Arguments::ints(size_t i) const {
  if (!values_[i].is_list()) Refuse(i, "tuple of ints");
  std::vector<int64_t> numbers;
  for (const Value& item : values_[i].list()) {
    if (!item.is<int64_t>()) Refuse(i, "tuple of ints");
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

std::vector<int64_t> Arguments::sizes(size_t i) const {
  return values_[i].is_list() ? ints(i) : std::vector<int64_t>{integer(i)};
}

nested::Dims Arguments::dims(size_t i) const {
  if (!given(i)) return {};
  if (values_[i].is_list()) return ints(i);
  return integer(i);
}

std::optional<torch::Dtype> Arguments::dtype(size_t i) const {
  if (!given(i)) return std::nullopt;
  if (!values_[i].is<torch::Dtype>()) Refuse(i, "dtype");
  return values_[i].get<torch::Dtype>();
}

std::vector<NestedValue> Arguments::operands(size_t i) const {
  if (!values_[i].is_list()) Refuse(i, "tuple of Tensors");
  std::vector<NestedValue> found;
  for (const Value& item : values_[i].list()) found.push_back(Arguments(function_, {item}).operand(0));
  return found;
}

}  // namespace athanor::oracle
