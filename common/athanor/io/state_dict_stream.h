// Writes what torch.load takes, one tensor after the other, so that no more than one has to be in memory. Internal to
// the library.
//
//   StateDictStream out([&](const void* data, size_t size) { return file.Append(data, size); });
//   RETURN_IF_ERROR(out.BeginDictionary(entries));
//   RETURN_IF_ERROR(out.Add(0, tensor));          // of each entry that has bytes of its own
//   RETURN_IF_ERROR(out.Finish());
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace athanor {

struct StateDictEntry {
  std::string name;
  torch::ScalarType dtype = torch::kFloat;
  std::vector<int64_t> shape;
  size_t same_as = 0;  // the first entry that is the same tensor (tied weights): its own index where there is none
};

class StateDictStream {
 public:
  using Append = std::function<absl::Status(const void* data, size_t size)>;
  explicit StateDictStream(Append append);
  StateDictStream(const StateDictStream&) = delete;
  ~StateDictStream();
  // {name: tensor …}
  absl::Status BeginDictionary(const std::vector<StateDictEntry>& entries);
  // One tensor, as torch.save(tensor, file) writes it.
  absl::Status BeginTensor(const StateDictEntry& entry);
  // The entry's values, contiguous on the CPU.
  absl::Status Add(size_t index, const torch::Tensor& tensor);
  absl::Status Finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace athanor
