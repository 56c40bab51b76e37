// oracle_replay [--device DEVICE] FILE.json...: replays recorded cases; the last line is "N passed, N failed", the exit
// code 1 when any failed. DEVICE: where the cases' tensors lie, as "cuda"; "foreign" is a device of the tests that
// forbids what a GPU forbids (tests/support/foreign_device.h).
#include <cstdio>
#include <fstream>

#include "tests/oracle/replay.h"
#include "tests/support/foreign_device.h"

namespace {

using athanor::oracle::FindFamily;
using athanor::oracle::Report;

nlohmann::json Deviations(const std::string& family) {
  std::ifstream in(ATHANOR_ORACLE_DEVIATIONS);
  const nlohmann::json all = nlohmann::json::parse(in);
  return all.value(family, nlohmann::json::object());
}

// False when the file cannot be read or its family is unknown.
bool ReplayFile(const char* path, int* passed, int* failed) {
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
  Report report(Deviations(name), path);
  family(file, report);
  std::printf("%s: %d passed (%d by a listed deviation), %d failed\n", name.c_str(), report.passed(),
              report.deviating(), report.failed());
  *passed += report.passed();
  *failed += report.failed();
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool placed = argc > 2 && std::string(argv[1]) == "--device";
  if (placed) {
    const std::string device = argv[2];
    athanor::oracle::Place() = device == "foreign" ? athanor::ForeignDevice() : torch::Device(device);
  }
  const int first = placed ? 3 : 1;
  if (argc <= first) {
    std::fprintf(stderr, "usage: oracle_replay [--device DEVICE] FILE.json...\n");
    return 2;
  }
  torch::set_num_threads(1);
  int passed = 0;
  int failed = 0;
  bool readable = true;
  for (int i = first; i < argc; ++i) readable = ReplayFile(argv[i], &passed, &failed) && readable;
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || !readable ? 1 : 0;
}
