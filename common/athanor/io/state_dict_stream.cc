#include "athanor/io/state_dict_stream.h"

#include <caffe2/serialize/inline_container.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/pickle_writer.h"
#include "athanor/torch/status.h"

namespace athanor {

class StateDictStream::Impl {
 public:
  explicit Impl(Append append) : append_(std::move(append)) {}

  absl::Status Begin(const std::string& pickle) {
    return Run([&] {
      archive_ = std::make_unique<caffe2::serialize::PyTorchStreamWriter>([this](const void* data, size_t size) {
        if (status_.ok()) status_ = append_(data, size);
        return status_.ok() ? size : 0;
      });
      archive_->writeRecord("data.pkl", pickle.data(), pickle.size());
      archive_->writeRecord("byteorder", "little", 6);
    });
  }
  absl::Status Add(size_t index, const torch::Tensor& tensor) {
    return Run([&] { archive_->writeRecord(absl::StrCat("data/", index), tensor.const_data_ptr(), tensor.nbytes()); });
  }
  absl::Status Finish() {
    return Run([&] { archive_->writeEndOfFile(); });
  }

 private:
  absl::Status Run(const std::function<void()>& body) {
    const absl::Status thrown = RunTorch("writing tensors", body);
    return status_.ok() ? thrown : status_;  // what the file said is the cause of what was thrown
  }

  Append append_;
  absl::Status status_;
  std::unique_ptr<caffe2::serialize::PyTorchStreamWriter> archive_;
};

namespace {

absl::Status CheckEntry(const StateDictEntry& entry) {
  if (FindDtype(entry.dtype) != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tensor '", entry.name, "' is of ", c10::toString(entry.dtype),
                                                 "; allowed: dense tensors of the usual dtypes"));
}

void Write(const StateDictEntry& entry, PickleWriter* pickle) {
  std::vector<int64_t> strides(entry.shape.size());
  int64_t elements = 1;
  for (size_t i = entry.shape.size(); i-- > 0;) {
    strides[i] = elements;
    elements *= entry.shape[i];
  }
  pickle->Tensor({.dtype = entry.dtype,
                  .storage = entry.same_as,
                  .storage_elements = elements,
                  .sizes = entry.shape,
                  .strides = strides});
}

}  // namespace

StateDictStream::StateDictStream(Append append) : impl_(std::make_unique<Impl>(std::move(append))) {}
StateDictStream::~StateDictStream() = default;

absl::Status StateDictStream::BeginDictionary(const std::vector<StateDictEntry>& entries) {
  PickleWriter pickle;
  pickle.Op("}(");
  for (const StateDictEntry& entry : entries) {
    RETURN_IF_ERROR(CheckEntry(entry));
    Write(entry, &pickle.Text(entry.name));
  }
  return impl_->Begin(std::move(pickle.Op("u")).Finish());
}

absl::Status StateDictStream::BeginTensor(const StateDictEntry& entry) {
  RETURN_IF_ERROR(CheckEntry(entry));
  PickleWriter pickle;
  Write(entry, &pickle);
  return impl_->Begin(std::move(pickle).Finish());
}

absl::Status StateDictStream::Add(size_t index, const torch::Tensor& tensor) {
  return impl_->Add(index, tensor);
}
absl::Status StateDictStream::Finish() {
  return impl_->Finish();
}

}  // namespace athanor
