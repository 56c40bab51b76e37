#include "athanor/torch/host_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

namespace athanor {
namespace {

constexpr size_t kLargeBytes = size_t{32} << 20;  // the C library maps blocks from here on, whatever it is told
constexpr size_t kCacheBytes = size_t{256} << 20;
constexpr int kTrimBytes = 1 << 30;
constexpr size_t kHugePage = size_t{2} << 20;

struct Block {
  void* data;
  size_t bytes;
};

// Blocks that start at a huge page, for systems that give those unasked. Asking for them costs more than it brings on a
// virtual machine: its host has taken large free blocks back, and hands them out page by page (0.5 s for the first
// update of 20 M parameters, for 2 % of speed). nullptr when there is no memory.
void* Map(size_t bytes) {
  void* whole = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(whole);
  const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) munmap(whole, aligned - begin);
  const uintptr_t end = begin + bytes + kHugePage;
  if (end > aligned + bytes) munmap(reinterpret_cast<void*>(aligned + bytes), end - aligned - bytes);
  void* data = reinterpret_cast<void*>(aligned);
  return data;
}

// In front of LibTorch's own allocator. Never destroyed: tensors may outlive everything.
class KeepingAllocator final : public c10::Allocator {
 public:
  explicit KeepingAllocator(c10::Allocator* base) : base_(base) {}

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kLargeBytes) return base_->allocate(bytes);
    void* data = Take(bytes);
    c10::profiledCPUMemoryReporter().New(data, bytes);
    return {data, data, &Delete, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Delete; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }

  void Release() {
    std::lock_guard lock(mutex_);
    while (!cache_.empty()) DropOldest();
  }
  int64_t kept() {
    std::lock_guard lock(mutex_);
    return static_cast<int64_t>(kept_);
  }

 private:
  static void Delete(void* data);

  void* Take(size_t bytes) {
    bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    std::lock_guard lock(mutex_);
    // Newest first: its pages are warm. A much larger one would waste what another wants.
    const auto fits = [bytes](const Block& one) { return one.bytes >= bytes && one.bytes <= bytes + bytes / 8; };
    const auto found = std::find_if(cache_.begin(), cache_.end(), fits);
    Block block = {nullptr, bytes};
    if (found != cache_.end()) {
      block = *found;
      kept_ -= block.bytes;
      cache_.erase(found);
    } else {
      block.data = Map(bytes);
      while (block.data == nullptr && !cache_.empty()) {
        DropOldest();
        block.data = Map(bytes);
      }
      TORCH_CHECK_WITH(OutOfMemoryError, block.data != nullptr, "not enough memory: you tried to allocate ", bytes,
                       " bytes on the host");
    }
    used_[block.data] = block.bytes;
    return block.data;
  }

  // False: not from here.
  bool Return(void* data) {
    std::lock_guard lock(mutex_);
    const auto found = used_.find(data);
    if (found == used_.end()) return false;
    const Block block = {data, found->second};
    used_.erase(found);
    if (block.bytes > kCacheBytes) {
      munmap(block.data, block.bytes);
      return true;
    }
    cache_.push_front(block);
    kept_ += block.bytes;
    while (kept_ > kCacheBytes) DropOldest();
    return true;
  }

  void DropOldest() {
    munmap(cache_.back().data, cache_.back().bytes);
    kept_ -= cache_.back().bytes;
    cache_.pop_back();
  }

  c10::Allocator* const base_;
  std::mutex mutex_;
  std::list<Block> cache_;  // newest first
  std::unordered_map<void*, size_t> used_;
  size_t kept_ = 0;
};

KeepingAllocator* allocator = nullptr;

void KeepingAllocator::Delete(void* data) {
  if (data == nullptr) return;
  if (!allocator->Return(data)) {
    allocator->base_->raw_deleter()(data);
    return;
  }
  c10::profiledCPUMemoryReporter().Delete(data);
}

bool ChosenByTheEnvironment() {
  for (const char* name : {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  const char* tunables = std::getenv("GLIBC_TUNABLES");
  return tunables != nullptr && std::strstr(tunables, "glibc.malloc") != nullptr;
}

}  // namespace

bool KeepHostMemory() {
  static const bool kept = [] {
    if (ChosenByTheEnvironment()) return false;
    mallopt(M_MMAP_THRESHOLD, static_cast<int>(kLargeBytes));
    mallopt(M_TRIM_THRESHOLD, kTrimBytes);
    allocator = new KeepingAllocator(c10::GetCPUAllocator());
    c10::SetCPUAllocator(allocator, /*priority=*/1);
    return true;
  }();
  return kept;
}

void ReleaseKeptHostMemory() {
  if (allocator != nullptr) allocator->Release();
  malloc_trim(0);
}

int64_t KeptHostBlocksBytes() {
  return allocator == nullptr ? 0 : allocator->kept();
}

bool ForgetStartupCode() {
  // Each mapping of /proc/self/smaps is a line with its range, then lines of counts.
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  uintptr_t begin = 0, end = 0;
  bool code = false, forgotten = false;
  while (std::getline(maps, line)) {
    char access[5] = {};
    uintptr_t from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &from, &to, access) == 3) {
      code = std::strcmp(access, "r-xp") == 0 && line.find("/libtorch_cpu.so") != std::string::npos;
      begin = from;
      end = to;
      continue;
    }
    uint64_t written = 0;  // kilobytes that are not the file's any more
    if (!code || std::sscanf(line.c_str(), "Anonymous: %lu kB", &written) != 1) continue;
    if (written != 0) return false;
    forgotten |= madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED) == 0;
  }
  return forgotten;
}

}  // namespace athanor
