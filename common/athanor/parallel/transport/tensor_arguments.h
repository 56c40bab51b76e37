// Tensors as a collective takes them: checked, dense, as addresses and counts. Used by HostBackend.
//
// Errors are c10::ValueError or c10::TypeError with the call's name in front.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace athanor {

void CheckTensor(const at::Tensor& tensor, const char* call);  // dense and on the CPU
void CheckTypes(const std::vector<at::Tensor>& tensors, c10::ScalarType type, const char* call);
// Checks that there is one tensor, and gives it.
at::Tensor& Only(std::vector<at::Tensor>& tensors, const char* call);
// Checks that there is one list with a tensor for each of `ranks`, and gives it.
std::vector<at::Tensor>& OnlyList(std::vector<std::vector<at::Tensor>>& lists, int ranks, const char* call);
// Views of a contiguous tensor, one a rank. ValueError when its elements do not divide.
std::vector<at::Tensor> EvenParts(const at::Tensor& tensor, int parts, const char* call);

// A tensor that is written: its own memory, or a contiguous copy that Finish() copies back.
class Written {
 public:
  explicit Written(at::Tensor tensor) : tensor_(std::move(tensor)), dense_(tensor_.contiguous()) {}
  void* data() const { return dense_.data_ptr(); }
  void Finish() const {
    if (!dense_.is_same(tensor_)) tensor_.copy_(dense_);
  }

 private:
  at::Tensor tensor_, dense_;
};

struct WrittenList {
  explicit WrittenList(const std::vector<at::Tensor>& list);
  void Finish() const {
    for (const Written& tensor : tensors) tensor.Finish();
  }
  std::vector<Written> tensors;
  std::vector<void*> data;
  std::vector<int64_t> counts;
};

struct ReadList {
  explicit ReadList(const std::vector<at::Tensor>& list);
  std::vector<at::Tensor> tensors;
  std::vector<const void*> data;
  std::vector<int64_t> counts;
};

}  // namespace athanor
