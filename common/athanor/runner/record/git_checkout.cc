#include "athanor/runner/record/git_checkout.h"

#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "athanor/base/file_system.h"
#include "athanor/base/fingerprint.h"
#include "athanor/base/run_program.h"

namespace athanor {
namespace {

constexpr size_t kGitFileLimit = 4 << 20;
constexpr size_t kDiffLimit = 16 << 20;
constexpr size_t kCommitDigits = 8;

std::string FirstLine(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kGitFileLimit);
  return text.ok() ? std::string(absl::StripAsciiWhitespace(text->substr(0, text->find('\n')))) : "";
}

std::string PackedCommit(const std::string& git, const std::string& ref) {
  const absl::StatusOr<std::string> packed = ReadFile(git + "/packed-refs", kGitFileLimit);
  if (!packed.ok()) return "";
  const size_t at = packed->find(" " + ref + "\n");
  return at == std::string::npos || at < 40 ? "" : packed->substr(at - 40, 40);
}

std::string HeadCommit(const std::string& folder) {
  std::error_code error;
  for (std::filesystem::path at = std::filesystem::absolute(folder, error); !error; at = at.parent_path()) {
    std::string git = (at / ".git").string();
    const std::string link = FirstLine(git);  // a worktree's .git is a file: "gitdir: <path>"
    if (absl::StartsWith(link, "gitdir: ")) git = link.substr(8);
    const std::string head = FirstLine(git + "/HEAD");
    if (absl::StartsWith(head, "ref: ")) {
      const std::string ref = head.substr(5);
      const std::string common = FirstLine(git + "/commondir");  // where a worktree keeps its branches
      if (!common.empty()) git = (std::filesystem::path(git) / common).string();
      const std::string commit = FirstLine(git + "/" + ref);
      return commit.empty() ? PackedCommit(git, ref) : commit;
    }
    if (!head.empty()) return head;
    if (at == at.root_path()) break;
  }
  return "";
}

// Nothing of the user's settings may run another program or change the text.
std::string Diff(const std::string& folder) {
  const auto output = RunProgram(
      {"git", "-C", folder, "-c", "core.fsmonitor=false", "diff", "HEAD", "--no-ext-diff", "--no-textconv",
       "--no-color", "--src-prefix=a/", "--dst-prefix=b/"},
      {.limit = absl::Seconds(5), .max_bytes = kDiffLimit, .environment = {"GIT_OPTIONAL_LOCKS=0", "LC_ALL=C"}});
  if (!output.ok()) return "";
  if (output->complete) return output->exit_code == 0 ? output->text : "";
  return output->text.size() < kDiffLimit ? "" : output->text.substr(0, kDiffLimit);
}

}  // namespace

std::string GitCheckout::code_id() const {
  if (diff.empty()) return commit.substr(0, kCommitDigits);
  const uint64_t hash = Fingerprint(diff);
  return absl::StrCat(commit.substr(0, kCommitDigits), "-d",
                      absl::StrFormat("%010x", (hash ^ (hash >> 40)) & 0xffffffffffull));
}

GitCheckout ReadGitCheckout(const std::string& folder) {
  GitCheckout checkout{.commit = HeadCommit(folder), .diff = {}};
  if (!checkout.commit.empty()) checkout.diff = Diff(folder);
  return checkout;
}

}  // namespace athanor
