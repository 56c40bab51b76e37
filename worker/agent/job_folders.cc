#include "worker/agent/job_folders.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace athanor::agent {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kYoung = absl::Hours(1);

// Cuts its logs on the way; files that vanish meanwhile count nothing.
JobFolder Measure(const LogFiles& logs, const fs::path& path) {
  JobFolder folder{.job = path.filename().string(), .written = absl::InfinitePast()};
  std::error_code error;
  for (fs::recursive_directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".log") logs.EnforceCap(it->path().string()).IgnoreError();
    struct stat info = {};
    if (lstat(it->path().c_str(), &info) != 0) continue;
    folder.bytes += info.st_blocks * 512;
    folder.written = std::max(folder.written, absl::TimeFromTimespec(info.st_mtim));
  }
  return folder;
}

}  // namespace

std::vector<std::string> FoldersToRemove(std::vector<JobFolder> folders, const std::set<std::string>& live,
                                         const LogRetention& retention, absl::Time now) {
  std::sort(folders.begin(), folders.end(),
            [](const JobFolder& a, const JobFolder& b) { return a.written < b.written; });
  int64_t bytes = 0;
  auto jobs = static_cast<int64_t>(folders.size());
  for (const JobFolder& folder : folders) bytes += folder.bytes;
  std::vector<std::string> removed;
  for (const JobFolder& folder : folders) {
    const absl::Duration age = now - folder.written;
    if (live.contains(folder.job) || age < kYoung) continue;
    if (age <= retention.age && jobs <= retention.jobs && bytes <= retention.bytes) continue;
    removed.push_back(folder.job);
    bytes -= folder.bytes;
    --jobs;
  }
  return removed;
}

SweepResult RemoveOldJobFolders(const LogFiles& logs, const std::set<std::string>& live,
                                const LogRetention& retention) {
  SweepResult result;
  const fs::path root = fs::path(logs.work_dir()) / "jobs";
  std::vector<JobFolder> folders;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (it->is_directory(error) && !it->is_symlink(error)) folders.push_back(Measure(logs, it->path()));
  }
  for (const std::string& job : FoldersToRemove(std::move(folders), live, retention, absl::Now())) {
    std::error_code failed;
    fs::remove_all(root / job, failed);
    if (failed) {
      result.errors.push_back(absl::StrCat(job, ": ", failed.message()));
    } else {
      result.removed.push_back(job);
    }
  }
  return result;
}

}  // namespace athanor::agent
