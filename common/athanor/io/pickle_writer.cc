#include "athanor/io/pickle_writer.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "athanor/io/dtype_names.h"

namespace athanor {

PickleWriter& PickleWriter::Op(std::string_view opcodes) {
  bytes_ += opcodes;
  return *this;
}

void PickleWriter::Little(uint64_t value, int count) {
  for (int i = 0; i < count; ++i) bytes_ += static_cast<char>(value >> (8 * i) & 0xff);
}

PickleWriter& PickleWriter::Text(std::string_view text) {
  bytes_ += 'X';
  Little(text.size(), 4);
  return Op(text);
}

PickleWriter& PickleWriter::Global(std::string_view module, std::string_view name) {
  absl::StrAppend(&bytes_, "c", std::string(module), "\n", std::string(name), "\n");
  return *this;
}

PickleWriter& PickleWriter::Integer(int64_t value) {
  if (value <= std::numeric_limits<int32_t>::max() && value >= std::numeric_limits<int32_t>::min()) {
    bytes_ += 'J';
    Little(static_cast<uint64_t>(value), 4);
  } else {
    bytes_ += "\x8a\x08";  // eight bytes
    Little(static_cast<uint64_t>(value), 8);
  }
  return *this;
}

PickleWriter& PickleWriter::Integers(torch::IntArrayRef values) {
  Op("(");
  for (const int64_t value : values) Integer(value);
  return Op("t");
}

PickleWriter& PickleWriter::Tensor(const PickledTensor& tensor) {
  const DtypeNames& dtype = *FindDtype(tensor.dtype);
  const bool typed = dtype.storage != nullptr;
  const auto width = static_cast<int64_t>(torch::elementSize(tensor.dtype));
  Global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  Op("((").Text("storage");
  Global(typed ? "torch" : "torch.storage", absl::StrCat(typed ? dtype.storage : "Untyped", "Storage"));
  Text(absl::StrCat(tensor.storage)).Text("cpu").Integer(tensor.storage_elements * (typed ? 1 : width));
  Op("tQ");  // the tuple names a storage
  Integer(tensor.offset).Integers(tensor.sizes).Integers(tensor.strides);
  Op("\x89").Global("collections", "OrderedDict").Op(")R");  // requires no gradient, no hooks
  if (!typed) Global("torch", dtype.python);
  return Op("tR");  // the tensor
}

}  // namespace athanor
