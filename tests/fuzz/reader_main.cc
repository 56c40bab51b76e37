// libFuzzer's entry: the target of the library that the build named.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/fuzz/reader_targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const auto& target : athanor::fuzz::kReaderTargets) {
    if (std::strcmp(target.name, ATHANOR_FUZZ_TARGET) == 0) target.run({reinterpret_cast<const char*>(data), size});
  }
  return 0;
}
