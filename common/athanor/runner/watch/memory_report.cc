#include "athanor/runner/watch/memory_report.h"

#include <ATen/DeviceAccelerator.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "athanor/base/file_system.h"
#include "athanor/torch/host_memory.h"

namespace athanor {
namespace {

std::string SizeText(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, value, kUnits[unit]);
}

// "VmRSS:   1234 kB" and "VmHWM:" of /proc/self/status; 0 where they are not told.
MemoryUse ProcessMemory() {
  MemoryUse use;
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    int64_t* field = absl::StartsWith(line, "VmRSS:")   ? &use.resident
                     : absl::StartsWith(line, "VmHWM:") ? &use.resident_peak
                                                        : nullptr;
    if (field == nullptr) continue;
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t kilobytes = 0;
    if (words.size() >= 2 && absl::SimpleAtoi(words[1], &kilobytes)) *field = kilobytes * 1024;
  }
  return use;
}

// What the control group allows; "max" and the huge number of version 1 mean no limit.
std::optional<int64_t> GroupLimit() {
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const absl::StatusOr<std::string> text = ReadFile(path, 64);
    int64_t limit = 0;
    if (text.ok() && absl::SimpleAtoi(*text, &limit) && limit < (int64_t{1} << 60)) return limit;
  }
  return std::nullopt;
}

std::string DeviceText(const torch::Device& device) {
  if (device.is_cpu()) return "";
  const auto stats = at::accelerator::getDeviceStats(device.index());
  const auto [free, total] = at::accelerator::getMemoryInfo(device.index());
  const auto& allocated = stats.allocated_bytes[0];
  const auto& reserved = stats.reserved_bytes[0];
  return absl::StrCat("; ", device.str(), " allocated ", SizeText(allocated.current), " (peak ",
                      SizeText(allocated.peak), "), reserved ", SizeText(reserved.current), ", free ",
                      SizeText(static_cast<int64_t>(free)), " of ", SizeText(static_cast<int64_t>(total)));
}

}  // namespace

int64_t BytesOf(const std::vector<torch::Tensor>& tensors) {
  std::set<const void*> seen;
  int64_t bytes = 0;
  for (const torch::Tensor& tensor : tensors) {
    if (!tensor.defined() || !tensor.has_storage() || !seen.insert(tensor.storage().unsafeGetStorageImpl()).second)
      continue;
    bytes += static_cast<int64_t>(tensor.storage().nbytes());
  }
  return bytes;
}

std::string MemoryText(std::vector<std::pair<std::string, int64_t>> parts, const torch::Device& device) {
  try {
    const MemoryUse process = ProcessMemory();
    std::string text =
        absl::StrCat("process ", SizeText(process.resident), " (peak ", SizeText(process.resident_peak), ")");
    if (const auto limit = GroupLimit()) absl::StrAppend(&text, ", cgroup limit ", SizeText(*limit));
    absl::StrAppend(&text, DeviceText(device));
    std::stable_sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    for (size_t i = 0; i < parts.size(); ++i)
      absl::StrAppend(&text, i == 0 ? "; " : ", ", parts[i].first, " ", SizeText(parts[i].second));
    return text;
  } catch (const std::exception& error) {
    return absl::StrCat("no memory report: ", error.what());
  }
}

MemoryUse ReadMemoryUse(const torch::Device& device) {
  MemoryUse use = ProcessMemory();
  if (device.is_cpu()) return use;
  const auto stats = at::accelerator::getDeviceStats(device.index());
  use.allocated = stats.allocated_bytes[0].current;
  use.allocated_peak = stats.allocated_bytes[0].peak;
  use.reserved_peak = stats.reserved_bytes[0].peak;
  return use;
}

void ReturnFreedMemory(const torch::Device& device) {
  ReleaseKeptHostMemory();
  if (!device.is_cpu()) at::accelerator::emptyCache();
}

}  // namespace athanor
