// Recorded operations on nested tensors: each case's expression is evaluated against this library and everything that
// can be seen of the result is compared: elements, both views, packed values, options.
#include "tests/oracle/python_value.h"
#include "tests/oracle/replay.h"

namespace athanor::oracle {
namespace {

torch::Tensor ElementOf(const nlohmann::json& raw, torch::Dtype dtype, const nlohmann::json* shape) {
  if (IsTensor(raw)) return TensorOf(raw);
  const bool number = !raw.is_array();
  std::vector<int64_t> sizes;
  if (shape != nullptr)
    sizes = shape->get<std::vector<int64_t>>();
  else if (!number)
    sizes = {static_cast<int64_t>(raw.size())};
  const char* const name = torch::isFloatingType(dtype) ? "f64" : "i64";
  return TensorOf({{"dtype", name}, {"shape", sizes}, {"data", number ? nlohmann::json::array({raw}) : raw}}).to(dtype);
}

NestedTensor NestedOf(const nlohmann::json& value) {
  const torch::Dtype dtype = DtypeOf(value.at("dtype").get<std::string>());
  NestedOptions options;
  options.dtype = dtype;
  const nlohmann::json given = value.value("kwargs", value);
  options.batch_first = given.value("batch_first", true);
  options.mask_value = given.value("mask_value", false);
  if (given.contains("padding_value")) options.padding_value = Number(given["padding_value"]);
  std::vector<torch::Tensor> elements;
  for (size_t i = 0; i < value.at("elements").size(); ++i) {
    const bool shaped = value.contains("shapes") && value["shapes"].is_array();
    elements.push_back(ElementOf(value["elements"][i], dtype, shaped ? &value["shapes"][i] : nullptr));
  }
  return NestedTensor(elements, options);
}

bool IsNested(const nlohmann::json& value) {
  return value.is_object() && value.contains("elements");
}

std::string CompareNested(const nlohmann::json& expected, const Value& found, const std::string& what) {
  if (!found.is_nested()) return what + ": expected a NestedTensor, found " + KindOf(found);
  const NestedTensor& x = found.get<NestedTensor>();
  const auto elements = x.Unbind();
  if (expected["elements"].size() != elements.size()) return what + ": another number of elements";
  const torch::Dtype dtype = DtypeOf(expected.at("dtype").get<std::string>());
  if (x.dtype() != dtype) return what + ": dtype is " + std::string(torch::toString(x.dtype()));
  for (size_t i = 0; i < elements.size(); ++i) {
    const torch::Tensor want = ElementOf(expected["elements"][i], dtype, nullptr);
    if (std::string text = Compare(want, elements[i], 0, what + " element " + std::to_string(i)); !text.empty())
      return text;
  }
  if (expected.contains("shape") && expected["shape"].get<std::vector<int64_t>>() != x.shape())
    return what + ": another shape";
  if (expected.value("batch_first", x.batch_first()) != x.batch_first()) return what + ": batch_first differs";
  if (expected.value("mask_value", x.mask_value()) != x.mask_value()) return what + ": mask_value differs";
  if (expected.contains("padding_value") && Number(expected["padding_value"]) != x.padding_value())
    return what + ": padding_value differs";
  if (expected.value("numel", x.numel()) != x.numel()) return what + ": numel is " + std::to_string(x.numel());
  const auto view = [&](const char* name, const torch::Tensor& tensor) -> std::string {
    if (!expected.contains(name) || expected[name].is_null()) return "";
    return Compare(TensorOf(expected[name]), tensor, 0, what + "." + name);
  };
  return FirstOf({view("tensor", x.tensor()), view("mask", x.mask()), view("concat", x.concat())});
}

std::string CompareValue(const nlohmann::json& expected, const Value& found, const std::string& what) {
  if (IsNested(expected)) return CompareNested(expected, found, what);
  if (IsTensor(expected)) {
    if (!found.is_tensor()) return what + ": expected a Tensor, found " + KindOf(found);
    return Compare(TensorOf(expected), found.get<torch::Tensor>(), 0, what);
  }
  if (expected.is_array()) {
    if (!found.is_list() || found.list().size() != expected.size())
      return what + ": another list (" + KindOf(found) + ")";
    for (size_t i = 0; i < expected.size(); ++i) {
      const std::string place = what + "[" + std::to_string(i) + "]";
      if (std::string text = CompareValue(expected[i], found.list()[i], place); !text.empty()) return text;
    }
    return "";
  }
  if (expected.is_object()) {
    if (!found.is<std::shared_ptr<Dict>>()) return what + ": expected a dict, found " + KindOf(found);
    for (const auto& [key, value] : *found.get<std::shared_ptr<Dict>>()) {
      if (std::string text = CompareValue(expected.at(key), value, what + "." + key); !text.empty()) return text;
    }
    return "";
  }
  if (expected.is_null()) return found.none() ? "" : what + ": expected nothing, found " + KindOf(found);
  if (expected.is_boolean())
    return found.is<bool>() && found.get<bool>() == expected.get<bool>() ? "" : what + ": expected another truth";
  if (found.is<std::string>()) {
    return expected.is_string() && expected.get<std::string>() == found.get<std::string>()
               ? ""
               : what + ": expected " + expected.dump() + ", found \"" + found.get<std::string>() + "\"";
  }
  return Compare(Number(expected), Arguments("result", {found}).number(0), 1e-12, what);
}

std::string ErrorKindOf(const std::function<void()>& run) {
  try {
    run();
  } catch (const PythonError& error) {
    return error.kind;
  } catch (const c10::ValueError&) {
    return "ValueError";
  } catch (const c10::TypeError&) {
    return "TypeError";
  } catch (const c10::IndexError&) {
    return "IndexError";
  } catch (const c10::NotImplementedError&) {
    return "NotImplementedError";
  } catch (const c10::Error&) {
    return "RuntimeError";
  }
  return "";
}

std::string DefectOf(const nlohmann::json& test) {
  return "peer_defect: " + test.value("peer_defect", "");
}

// A recorded failure of the recorder that is listed as a deviation: this library must give the answer that is stored
// with it instead (cases of other files that record the same failure: any result).
std::string CheckCase(const nlohmann::json& test, const Report& report) {
  std::map<std::string, Value> names;
  const nlohmann::json inputs = test.value("inputs", nlohmann::json::object());
  for (const auto& [name, value] : inputs.items()) {
    if (IsNested(value))
      names[name] = NestedOf(value);
    else if (IsTensor(value))
      names[name] = TensorOf(value);
    else if (value.is_boolean())
      names[name] = value.get<bool>();
    else if (value.is_number_integer())
      names[name] = value.get<int64_t>();
    else
      names[name] = Number(value);
  }
  const std::string expression = test.at("expr").get<std::string>();
  const nlohmann::json& expected = test.at("expected");
  const std::string id = test["id"].get<std::string>();
  const std::string deviation = report.deviation(id).empty() ? DefectOf(test) : id;
  if (!report.deviation(deviation).empty()) {
    const Value found = Evaluate(expression, names);
    const nlohmann::json answer = report.answer(deviation, id);
    return answer.is_null() ? "" : CompareValue(answer, found, expression);
  }
  if (expected.is_object() && expected.contains("error")) {
    const std::string kind = ErrorKindOf([&] { Evaluate(expression, names); });
    const std::string wanted = expected["error"].get<std::string>();
    return kind == wanted ? "" : "expected " + wanted + ", found " + (kind.empty() ? "no error" : kind);
  }
  return CompareValue(expected, Evaluate(expression, names), expression);
}

void Replay(const nlohmann::json& file, Report& report) {
  if (!IsDefined("NestedTensor")) {
    DefineNestedPointwise();
    DefineNestedReductions();
    DefineNestedShapes();
    DefineNestedLayers();
    DefineNestedLosses();
    DefineDense();
    DefinePython();
  }
  for (const auto& test : file.at("cases")) {
    report.Case(test.at("id").get<std::string>(), [&] { return CheckCase(test, report); }, DefectOf(test));
  }
}

}  // namespace

ATHANOR_ORACLE_FAMILY(nested_tensor, Replay);

}  // namespace athanor::oracle
