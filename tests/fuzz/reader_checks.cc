#include "tests/fuzz/reader_checks.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/fuzz/replay.h"

namespace athanor::fuzz {
namespace {

class Folder {
 public:
  Folder() {
    // In memory: every input is a file. (The end-to-end tests look for what is left there; this test runs alone.)
    const std::filesystem::path memory = "/dev/shm";
    const auto root = access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path();
    path_ = root / absl::StrCat("athanor-fuzz-", getpid());
    std::filesystem::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

bool Accepted(const absl::Status& status, std::string_view name, Codes codes) {
  if (status.ok()) return true;
  const absl::string_view message = status.message();
  const bool named = absl::StrContains(message, absl::string_view(name.data(), name.size()));
  const bool known = std::find(codes.begin(), codes.end(), status.code()) != codes.end();
  // libFuzzer, which sees what is compared, writes the words into its inputs.
  const bool modest = kSanitized || (!absl::StrContains(message, "memory") && !absl::StrContains(message, "bad_alloc"));
  if (!named || !known || !modest) std::fprintf(stderr, "%s\n", status.ToString().substr(0, 2000).c_str());
  Promise(known, "an error has a documented code");
  Promise(named, "an error names the file");
  Promise(modest, "a promise of the input costs no memory");
  return false;
}

const std::string& ScratchFolder() {
  static const Folder folder;
  return folder.path();
}

std::string Scratch(const std::string& file, std::string_view bytes) {
  std::string path = absl::StrCat(ScratchFolder(), "/", file);
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  Promise(out.good(), "the scratch folder can be written");
  return path;
}

void CheckTensor(const torch::Tensor& tensor) {
  Promise(tensor.defined() && tensor.device().is_cpu() && tensor.is_contiguous(), "a tensor is dense, on the CPU");
  int64_t count = 1;
  for (const int64_t extent : tensor.sizes()) {
    Promise(extent >= 0, "extents are not negative");
    count *= extent;
  }
  Promise(count == tensor.numel(), "extents and elements agree");
  Promise(static_cast<size_t>(count) * tensor.element_size() <= tensor.storage().nbytes(), "the storage holds them");
  const auto* bytes = static_cast<const unsigned char*>(tensor.data_ptr());
  unsigned sum = 0;
  for (size_t i = 0; i < tensor.nbytes(); ++i) sum += bytes[i];
  [[maybe_unused]] volatile const unsigned kept = sum;  // or nothing would be read
}

void CheckSame(const torch::Tensor& a, const torch::Tensor& b) {
  Promise(a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes(), "a tensor comes back with its type and shape");
  Promise(a.nbytes() == 0 || std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0, "and with its values");
}

void CheckSame(const std::map<std::string, torch::Tensor>& a, const std::map<std::string, torch::Tensor>& b) {
  Promise(a.size() == b.size(), "as many tensors come back");
  for (const auto& [name, tensor] : a) {
    const auto found = b.find(name);
    Promise(found != b.end(), "every tensor comes back");
    CheckSame(tensor, found->second);
  }
}

}  // namespace athanor::fuzz
