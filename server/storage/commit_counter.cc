#include "server/storage/commit_counter.h"

#include <fcntl.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace athanor {

CommitCounter::~CommitCounter() {
  if (file_ < 0) return;
  fsync(file_);
  close(file_);
}

bool CommitCounter::Exists() const {
  return access(path_.c_str(), F_OK) == 0;
}

absl::StatusOr<uint64_t> CommitCounter::Read() const {
  std::ifstream file(path_);
  std::string text(kBytes + 1, ' ');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  // A power cut can leave a new file without its content, as zero bytes on some file systems.
  if (text.find_first_not_of('\0') == std::string::npos) return 0;
  uint64_t commit = 0;
  const bool whole = text.size() == kBytes && text.back() == '\n';
  if (whole && absl::SimpleAtoi(text.substr(0, kBytes - 1), &commit)) return commit;
  return absl::DataLossError(absl::StrCat(path_, " holds '", absl::CHexEscape(text), "', expected a number of ",
                                          kBytes - 1, " digits and a line end; remove it to go on without this proof"));
}

void CommitCounter::Write(uint64_t commit) {
  if (file_ < 0) file_ = open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (file_ < 0) return;
  // Of one width and within one sector: needs no space, and a reader never sees half of it.
  const std::string text = absl::StrFormat("%020u\n", commit);
  if (pwrite(file_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) return;
  if (commit % kSyncEvery == 0) fsync(file_);
}

}  // namespace athanor
