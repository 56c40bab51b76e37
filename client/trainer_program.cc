#include "client/trainer_program.h"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "athanor/base/run_program.h"
#include "athanor/contract/exit_codes.h"

namespace athanor {
namespace {

constexpr absl::Duration kCheckLimit = absl::Minutes(1);

}  // namespace

std::string TrainerProgram() {
  std::error_code error;
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const std::filesystem::path& path : {here / "athanor-trainer", here / "../worker/trainer/athanor-trainer"}) {
    if (std::filesystem::exists(path, error)) return path.string();
  }
  return "athanor-trainer";
}

absl::Status CheckTaskOptions(const v1::JobSpec& spec, std::string& unchecked) {
  v1::JobSpec public_part = spec;
  public_part.clear_env();
  std::error_code error;
  std::string path = (std::filesystem::temp_directory_path(error) / "athanor-spec-XXXXXX").string();
  const int fd = mkstemp(path.data());
  if (fd < 0) {
    unchecked = absl::StrCat("cannot create ", path);
    return absl::OkStatus();
  }
  const absl::Cleanup remove = [&] { unlink(path.c_str()); };
  const bool written = public_part.SerializeToFileDescriptor(fd);
  close(fd);
  const absl::StatusOr<ProgramOutput> output =
      RunProgram({TrainerProgram(), "check", path}, {.limit = kCheckLimit, .errors_too = true});
  if (!written || !output.ok()) {
    unchecked = written ? std::string(output.status().message()) : absl::StrCat("cannot write ", path);
  } else if (output->exit_code == kExitInvalid) {
    return absl::InvalidArgumentError(std::string(absl::StripAsciiWhitespace(output->text)));
  } else if (output->exit_code != 0) {
    const std::string said(absl::StripAsciiWhitespace(output->text));
    unchecked = !output->complete ? absl::StrCat("no answer within ", absl::FormatDuration(kCheckLimit))
                : said.empty()    ? "athanor-trainer ended without a word"
                                  : said;
  }
  return absl::OkStatus();
}

}  // namespace athanor
