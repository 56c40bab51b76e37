#include "common/service/disk_space.h"

#include <prometheus/gauge.h>
#include <pthread.h>
#include <sys/statvfs.h>

#include <chrono>
#include <thread>

namespace athanor {
namespace {

constexpr std::chrono::seconds kPace{15}, kPaceWhileMissing{1};

class DiskSpace {
 public:
  explicit DiskSpace(std::shared_ptr<prometheus::Registry> registry)
      : registry_(std::move(registry)),
        free_(prometheus::BuildGauge()
                  .Name("athanor_disk_free_bytes")
                  .Help("Bytes that may still be written to the file system of a folder")
                  .Register(*registry_)),
        size_(prometheus::BuildGauge()
                  .Name("athanor_disk_size_bytes")
                  .Help("Size of the file system of a folder")
                  .Register(*registry_)) {}

  // False where there is nothing yet.
  bool Sample(const std::string& folder, const std::string& path) {
    struct statvfs disk{};
    if (statvfs(path.c_str(), &disk) != 0) return false;
    const auto block = static_cast<double>(disk.f_frsize);
    free_.Add({{"folder", folder}}).Set(static_cast<double>(disk.f_bavail) * block);
    size_.Add({{"folder", folder}}).Set(static_cast<double>(disk.f_blocks) * block);
    return true;
  }

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Gauge>&free_, &size_;
};

}  // namespace

void WatchDiskSpace(const std::shared_ptr<prometheus::Registry>& registry, std::map<std::string, std::string> folders) {
  // Detached: it may never come back from a dead file system.
  std::thread([space = DiskSpace(registry), folders = std::move(folders)]() mutable {
    pthread_setname_np(pthread_self(), "athanor-disks");
    while (true) {
      bool all = true;
      for (const auto& [folder, path] : folders) all = space.Sample(folder, path) && all;
      std::this_thread::sleep_for(all ? kPace : kPaceWhileMissing);
    }
  }).detach();
}

}  // namespace athanor
