#include "athanor/checkpoint/format/layout.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace athanor {

std::string CheckpointDirName(int64_t step) {
  return absl::StrFormat("step-%012d", step);
}

std::optional<int64_t> StepOfDirName(const std::string& name) {
  int64_t step = -1;
  if (name.size() != 17 || name.compare(0, 5, "step-") != 0 ||
      name.find_first_not_of("0123456789", 5) != std::string::npos)
    return std::nullopt;
  if (!absl::SimpleAtoi(name.substr(5), &step)) return std::nullopt;
  return step;
}

std::string ShardFileName(int rank, int world_size, const std::string& attempt) {
  return absl::StrFormat("shard-%05d-of-%05d-%s.safetensors", rank, world_size, attempt);
}

bool IsPlainFileName(const std::string& name) {
  if (name.empty() || name.size() > 255 || name[0] == '.') return false;
  for (const unsigned char c : name) {
    if (c == '/' || c == '\\' || c < 0x20 || c == 0x7f) return false;
  }
  return true;
}

}  // namespace athanor
