// libFuzzer's entry: the target that the build named.
#include <google/protobuf/stubs/logging.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/fuzz/fuzz_targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  [[maybe_unused]] static const auto silenced = google::protobuf::SetLogHandler(nullptr);
  for (const auto& target : athanor::fuzz::kTargets) {
    if (std::strcmp(target.name, ATHANOR_FUZZ_TARGET) == 0) target.run({reinterpret_cast<const char*>(data), size});
  }
  return 0;
}
