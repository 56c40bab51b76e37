// What torch.save wrote (a zip with a pickle), read tensor by tensor: the pickle says what there is, and a tensor's
// bytes are read when they are asked for. Nothing is executed. Internal to the library.
//
//   ASSIGN_OR_RETURN(const std::unique_ptr<StateDictArchive> archive, StateDictArchive::Open("weights.pt"));
//   for (const ArchiveTensor& one : archive->tensors()) { ASSIGN_OR_RETURN(torch::Tensor tensor, archive->Read(one)); }
//
// Errors as of ReadStateDictFile(). Not thread-safe.
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "athanor/io/pickle_reader.h"

namespace athanor {

struct ArchiveTensor {
  std::string name;     // keys of nested dictionaries, joined by dots
  std::string section;  // the outermost key, where the tensor lies in a nested dictionary; else ""
  torch::ScalarType dtype = torch::kFloat;
  std::vector<int64_t> sizes, strides;
  std::string storage;  // record of the zip
  int64_t offset = 0;   // elements
  bool conj = false, neg = false;
  // Equal for one and the same tensor (tied weights).
  auto Key() const { return std::tie(storage, offset, sizes, strides, dtype, conj, neg); }
};

class StateDictArchive {
 public:
  // The root is a dictionary; its tensors are in tensors().
  static absl::StatusOr<std::unique_ptr<StateDictArchive>> Open(const std::string& path);
  // A zip that lies within a file, whose root is one tensor: tensors() has it, without a name.
  static absl::StatusOr<std::unique_ptr<StateDictArchive>> OpenTensor(const std::string& path, int64_t offset,
                                                                      int64_t length);
  virtual ~StateDictArchive() = default;

  const std::vector<ArchiveTensor>& tensors() const { return tensors_; }
  // "epoch: an integer": what stands beside the tensors.
  const std::vector<std::string>& skipped() const { return skipped_; }
  const PickleValue& root() const { return *document_.root; }

  // The tensor that a value of the pickle describes; nothing where it describes something else.
  virtual absl::StatusOr<std::optional<ArchiveTensor>> Describe(const std::string& name, const PickleValue& value) = 0;
  // On the CPU, contiguous, memory of its own. The storage that was read last is kept, for its next tensor.
  virtual absl::StatusOr<torch::Tensor> Read(const ArchiveTensor& tensor) = 0;
  // All of tensors(). Names of one and the same tensor come back as one tensor.
  virtual absl::Status ReadAll(std::map<std::string, torch::Tensor>* out) = 0;

 protected:
  PickleDocument document_;
  std::vector<ArchiveTensor> tensors_;
  std::vector<std::string> skipped_;
};

}  // namespace athanor
