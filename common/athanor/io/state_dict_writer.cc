// What torch.save writes for a dictionary of tensors: a zip with a pickle (protocol 2) and one file per storage.
#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/base/file_system.h"
#include "athanor/base/status_macros.h"
#include "athanor/io/dtype_names.h"
#include "athanor/io/pickle_writer.h"
#include "athanor/io/state_dict_file.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

// A tensor within a storage of the file.
struct Place {
  std::string name;
  torch::Tensor tensor;  // for its dtype, sizes and strides
  size_t storage = 0;
  int64_t offset = 0;  // elements
};

struct Layout {
  std::vector<Place> places;
  std::vector<torch::Tensor> storages;  // flat, on the CPU
};

// A tensor's elements in the storage that it came from.
struct Extent {
  const std::string* name;
  const torch::Tensor* tensor;
  int64_t begin, end;
};

Extent ExtentOf(const std::string& name, const torch::Tensor& tensor) {
  int64_t last = tensor.storage_offset();
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) last += (tensor.size(dim) - 1) * tensor.stride(dim);
  return {&name, &tensor, tensor.storage_offset(), last + 1};
}

// One storage for tensors that reach into each other; of a tensor by itself only its own elements, in order.
void AddStorage(const std::vector<Extent>& extents, Layout* layout) {
  const size_t storage = layout->storages.size();
  if (extents.size() == 1) {
    const torch::Tensor dense = DenseOnHost(*extents[0].tensor);
    layout->places.push_back({*extents[0].name, dense, storage, 0});
    layout->storages.push_back(dense);
    return;
  }
  const int64_t begin = extents[0].begin;
  int64_t end = begin;
  for (const Extent& extent : extents) {
    layout->places.push_back({*extent.name, *extent.tensor, storage, extent.begin - begin});
    end = std::max(end, extent.end);
  }
  layout->storages.push_back(DenseOnHost(extents[0].tensor->as_strided({end - begin}, {1}, begin)));
}

Layout LayOut(const std::map<std::string, torch::Tensor>& tensors) {
  Layout layout;
  std::map<std::pair<const void*, torch::ScalarType>, std::vector<Extent>> sharing;
  for (const auto& [name, tensor] : tensors) {
    const Extent extent = tensor.numel() == 0 ? Extent{&name, &tensor, 0, 0} : ExtentOf(name, tensor);
    if (tensor.numel() == 0 || tensor.is_conj() || tensor.is_neg()) {  // the values are not those in memory
      AddStorage({extent}, &layout);
    } else {
      sharing[{tensor.storage().unsafeGetStorageImpl(), tensor.scalar_type()}].push_back(extent);
    }
  }
  for (auto& [storage, extents] : sharing) {
    std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
    std::vector<Extent> together;
    int64_t end = 0;
    for (const Extent& extent : extents) {
      if (!together.empty() && extent.begin >= end) {
        AddStorage(together, &layout);
        together.clear();
      }
      end = together.empty() ? extent.end : std::max(end, extent.end);
      together.push_back(extent);
    }
    AddStorage(together, &layout);
  }
  std::sort(layout.places.begin(), layout.places.end(), [](const Place& a, const Place& b) { return a.name < b.name; });
  return layout;
}

std::string PickleOf(const Layout& layout) {
  PickleWriter pickle;
  pickle.Op("}(");
  for (const Place& place : layout.places) {
    pickle.Text(place.name)
        .Tensor({.dtype = place.tensor.scalar_type(),
                 .storage = place.storage,
                 .storage_elements = layout.storages[place.storage].numel(),
                 .offset = place.offset,
                 .sizes = place.tensor.sizes(),
                 .strides = place.tensor.strides()});
  }
  return std::move(pickle.Op("u")).Finish();
}

absl::Status CheckTensors(const std::string& path, const std::map<std::string, torch::Tensor>& tensors) {
  for (const auto& [name, tensor] : tensors) {
    std::string problem;
    if (!tensor.defined()) {
      problem = "undefined";
    } else if (tensor.layout() != torch::kStrided || tensor.is_quantized()) {
      problem = "not dense";
    } else if (FindDtype(tensor.scalar_type()) == nullptr) {
      problem = absl::StrCat("of ", c10::toString(tensor.scalar_type()));
    }
    if (problem.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor '", name, "' is ", problem, "; allowed: dense tensors of the usual dtypes"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteStateDictFile(const std::string& path, const std::map<std::string, torch::Tensor>& tensors) {
  RETURN_IF_ERROR(CheckTensors(path, tensors));
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  absl::Status written;
  RETURN_IF_ERROR(RunTorch(absl::StrCat("writing ", path), [&] {
    caffe2::serialize::PyTorchStreamWriter archive([&](const void* data, size_t size) {
      if (written.ok()) written = file.Append(data, size);
      return written.ok() ? size : 0;
    });
    const Layout layout = LayOut(tensors);
    const std::string bytes = PickleOf(layout);
    archive.writeRecord("data.pkl", bytes.data(), bytes.size());
    archive.writeRecord("byteorder", "little", 6);
    for (size_t i = 0; i < layout.storages.size(); ++i) {
      const torch::Tensor& storage = layout.storages[i];
      archive.writeRecord(absl::StrCat("data/", i), storage.const_data_ptr(), storage.nbytes());
    }
    archive.writeEndOfFile();
  }));
  RETURN_IF_ERROR(written);
  return file.Commit();
}

}  // namespace athanor
