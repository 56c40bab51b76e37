// oracle_replay [--device DEVICE] [--whole] FILE.json...: replays recorded cases; the last line says how many passed
// and failed, the exit code is 1 when any failed. DEVICE: where the cases' tensors lie, as "cuda"; "foreign" is a
// device of the tests that forbids what a GPU forbids (tests/support/foreign_device.h). --whole: the files hold all
// cases of their families, so an entry of deviations.json that names none of them is a failure, and so is a family
// that does not exist; without it, it is a note.
#include <cstdio>
#include <fstream>

#include "tests/oracle/replay.h"
#include "tests/support/foreign_device.h"

namespace {

using athanor::oracle::FindFamily;
using athanor::oracle::Report;

const std::string kAnswers = "_answers";  // of a family: what is answered instead

struct Totals {
  int passed = 0, failed = 0;
};

nlohmann::json Deviations() {
  std::ifstream in(ATHANOR_ORACLE_DEVIATIONS);
  return nlohmann::json::parse(in);
}

void CheckFamilies(bool whole, Totals* totals) {
  for (const auto& [family, entries] : Deviations().items()) {
    const size_t end = family.ends_with(kAnswers) ? family.size() - kAnswers.size() : family.size();
    if (FindFamily(family.substr(0, end)) != nullptr) continue;
    std::printf("%s deviations.json: no family '%s'\n", whole ? "FAILED" : "note:", family.c_str());
    totals->failed += whole ? 1 : 0;
  }
}

// False when the file cannot be read or its family is unknown.
bool ReplayFile(const char* path, bool whole, Totals* totals) {
  std::ifstream in(path);
  const nlohmann::json file = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!in || file.is_discarded() || !file.is_object() || !file.contains("family")) {
    std::fprintf(stderr, "%s: not a JSON object with a `family` field\n", path);
    return false;
  }
  const std::string name = file["family"].get<std::string>();
  const auto family = FindFamily(name);
  if (family == nullptr) {
    std::fprintf(stderr, "%s: unknown family '%s'; known:", path, name.c_str());
    for (const std::string& known : athanor::oracle::FamilyNames()) std::fprintf(stderr, " %s", known.c_str());
    std::fprintf(stderr, "\n");
    return false;
  }
  Report report(Deviations().value(name, nlohmann::json::object()), path);
  family(file, report);
  for (const std::string& list : {name, name + kAnswers}) {
    for (const std::string& entry : report.NamingNoCase(Deviations().value(list, nlohmann::json::object()))) {
      std::printf("%s deviations.json: %s: '%s' names no case\n", whole ? "FAILED" : "note:", list.c_str(),
                  entry.c_str());
      totals->failed += whole ? 1 : 0;
    }
  }
  std::printf("%s: %d passed (%d by a listed deviation), %d failed\n", name.c_str(), report.passed(),
              report.deviating(), report.failed());
  totals->passed += report.passed();
  totals->failed += report.failed();
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  bool whole = false;
  int first = 1;
  for (; first < argc && std::string(argv[first]).starts_with("--"); ++first) {
    if (std::string(argv[first]) == "--whole") {
      whole = true;
    } else if (std::string(argv[first]) == "--device" && first + 1 < argc) {
      const std::string device = argv[++first];
      athanor::oracle::Place() = device == "foreign" ? athanor::ForeignDevice() : torch::Device(device);
    }
  }
  if (argc <= first) {
    std::fprintf(stderr, "usage: oracle_replay [--device DEVICE] [--whole] FILE.json...\n");
    return 2;
  }
  torch::set_num_threads(1);
  Totals totals;
  bool readable = true;
  CheckFamilies(whole, &totals);
  for (int i = first; i < argc; ++i) readable = ReplayFile(argv[i], whole, &totals) && readable;
  std::printf("%d passed, %d failed\n", totals.passed, totals.failed);
  return totals.failed > 0 || !readable ? 1 : 0;
}
