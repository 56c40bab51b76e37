// Replays recorded numeric cases (JSON files with a `family` field) against this library.
//
// A family is one function in one file of this folder, `<family>_family.cc`, registered with ATHANOR_ORACLE_FAMILY. It
// walks over the file's cases, computes each with the library's public API and reports it. A case whose recorded answer
// is a defect of the recorder is named in deviations.json with the reason; the family then checks what this library
// promises instead.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace athanor::oracle {

// Collects the verdicts of one file.
class Report {
 public:
  Report(nlohmann::json deviations, std::string path) : deviations_(std::move(deviations)), path_(std::move(path)) {}
  // The file, for families that must know the order of keys in it.
  const std::string& path() const { return path_; }

  // Runs one case. `check` returns an empty text when the case holds, else what was expected and what was found;
  // anything that it throws is a failure of that case. A case listed as a deviation still runs, with deviates() true
  // for its name.
  // `alias`: another name under which its deviation may be listed, such as the defect that it records.
  void Case(const std::string& name, const std::function<std::string()>& check, const std::string& alias = "");
  // The reason why this library answers otherwise than the recorded case, or "" when it does not.
  std::string deviation(const std::string& name) const;
  // What it answers to the case `id` instead, in the form of a recorded answer; null where the deviation has none
  // stored.
  nlohmann::json answer(const std::string& name, const std::string& id) const;
  // Those of `entries` that name none of the cases so far. "rule: …" and "peer_defect: …" name kinds of cases, which
  // other files may hold.
  std::vector<std::string> NamingNoCase(const nlohmann::json& entries) const;

  int passed() const { return passed_; }
  int failed() const { return failed_; }
  int deviating() const { return deviating_; }

 private:
  nlohmann::json deviations_;  // {"case": "reason"} of this family, or {"reason": …, "answers": {"id": …}}
  std::set<std::string> cases_;
  std::string path_;
  int passed_ = 0;
  int failed_ = 0;
  int deviating_ = 0;
};

using Family = void (*)(const nlohmann::json& file, Report& report);
bool RegisterFamily(std::string name, Family family);
Family FindFamily(const std::string& name);  // nullptr when unknown
std::vector<std::string> FamilyNames();

#define ATHANOR_ORACLE_FAMILY(name, function) \
  static const bool registered_##name = ::athanor::oracle::RegisterFamily(#name, function)

// A recorded number: a JSON number, or "nan", "inf", "-inf"; null is NaN too (absent).
double Number(const nlohmann::json& value);
// Where the cases' tensors lie: the CPU, or what oracle_replay was told by --device.
torch::Device& Place();
// {"dtype", "shape", "data"} -> tensor at Place(). Throws std::invalid_argument that names what is wrong.
torch::Tensor TensorOf(const nlohmann::json& value);
torch::Dtype DtypeOf(const std::string& name);  // f64 f32 f16 bf16 i64 i32 u8 bool
bool IsTensor(const nlohmann::json& value);     // an object with dtype, shape and data

// "" when equal within `relative` * max(1, |expected|) (NaN equals NaN, infinities must match), else a text with both.
std::string Compare(double expected, double found, double relative, std::string_view what);
// The same element by element; dtype and shape must be equal. Tolerance by dtype when `relative` is 0: f64 1e-12, f32
// 1e-5, f16 and bf16 1e-2, integers and bool exactly.
std::string Compare(const torch::Tensor& expected, const torch::Tensor& found, double relative, std::string_view what);
// The first text that is not empty.
std::string FirstOf(std::initializer_list<std::string> texts);

}  // namespace athanor::oracle
