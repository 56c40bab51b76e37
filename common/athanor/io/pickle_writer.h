// The opcodes of Python's pickle (protocol 2) that tensors and descriptions of them need. Internal to the library.
//
//   PickleWriter pickle;
//   pickle.Op("}(").Text("step").Integer(7).Op("u");    // {"step": 7}
//   const std::string bytes = std::move(pickle).Finish();
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace athanor {

// A view of a storage, which is a record of the same zip.
struct PickledTensor {
  torch::ScalarType dtype = torch::kFloat;
  size_t storage = 0;            // of the record "data/<storage>"
  int64_t storage_elements = 0;  // of the storage
  int64_t offset = 0;            // elements
  torch::IntArrayRef sizes, strides;
};

class PickleWriter {
 public:
  PickleWriter() : bytes_("\x80\x02") {}
  PickleWriter& Op(std::string_view opcodes);
  PickleWriter& Text(std::string_view text);
  PickleWriter& Global(std::string_view module, std::string_view name);
  PickleWriter& Integer(int64_t value);
  PickleWriter& Integers(torch::IntArrayRef values);  // a tuple
  // A dtype that FindDtype() knows.
  PickleWriter& Tensor(const PickledTensor& tensor);
  std::string Finish() && { return std::move(bytes_) + "."; }

 private:
  void Little(uint64_t value, int count);
  std::string bytes_;
};

}  // namespace athanor
