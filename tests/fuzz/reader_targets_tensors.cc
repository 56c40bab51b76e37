#include <caffe2/serialize/inline_container.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/data/formats/byte_text_dataset.h"
#include "athanor/data/formats/classic_datasets.h"
#include "athanor/data/formats/npy.h"
#include "athanor/data/formats/token_dataset.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/io/pickle_reader.h"
#include "athanor/io/state_dict_file.h"
#include "athanor/io/tensor_file.h"
#include "tests/fuzz/reader_checks.h"
#include "tests/fuzz/reader_seeds.h"
#include "tests/fuzz/reader_targets.h"

namespace athanor::fuzz {
namespace {

constexpr char kName[] = "some file";

void CheckTensors(const std::map<std::string, torch::Tensor>& tensors) {
  for (const auto& [name, tensor] : tensors) CheckTensor(tensor);
}

void CheckStateDict(const std::string& path) {
  const absl::StatusOr<TensorFile> file = ReadStateDictFile(path);
  // LibTorch itself asks for what an archive promises of its version, and fails, before there is anything to look at.
  if (absl::StrContains(file.status().message(), "alloc_cpu")) return;
  if (!Accepted(file.status(), path, {kDataLoss, kInvalid})) return;
  CheckTensors(file->tensors);
  const std::string copy = ScratchFolder() + "/copy.pt";
  Promise(WriteStateDictFile(copy, file->tensors).ok(), "what was read can be written");
  const absl::StatusOr<TensorFile> again = ReadStateDictFile(copy);
  Promise(again.ok(), "and read again");
  CheckSame(file->tensors, again->tensors);
}

}  // namespace

void Safetensors(std::string_view input) {
  const absl::StatusOr<TensorFile> file = ParseTensorFile(kName, input.data(), static_cast<int64_t>(input.size()));
  if (!Accepted(file.status(), kName, {kDataLoss, kInvalid})) return;
  CheckTensors(file->tensors);
  const std::string copy = ScratchFolder() + "/copy.safetensors";
  Promise(WriteTensorFile(copy, file->tensors, file->metadata).ok(), "what was read can be written");
  const absl::StatusOr<TensorFile> again = ReadTensorFile(copy);
  Promise(again.ok(), "and read again");
  Promise(again->metadata == file->metadata, "the metadata comes back");
  CheckSame(file->tensors, again->tensors);
}

void Pickle(std::string_view input) {
  const absl::StatusOr<PickleDocument> document = ParsePickle(kName, input);
  if (!Accepted(document.status(), kName, {kDataLoss})) return;
  size_t bytes = 0;
  for (const PickleValue& value : document->values) {
    bytes += sizeof value + value.text.size() + value.items.size() * sizeof(void*);
    for (const PickleValue* item : value.items) Promise(item != nullptr, "no marks are left in values");
    Promise(value.kind != PickleValue::Kind::kDict || value.items.size() % 2 == 0, "every key has a value");
    Promise(value.kind != PickleValue::Kind::kCall || value.items.size() == 2, "a call has its arguments");
    Promise(value.kind != PickleValue::Kind::kPersistent || value.items.size() == 1, "a reference has its id");
    Promise(value.Entries().size() * 2 == (value.kind == PickleValue::Kind::kDict ? value.items.size() : 0), "entries");
  }
  Promise(document->root != nullptr, "there is a value");
  (void)document->root->Find("weight");
  Promise(bytes <= 1024 * (input.size() + 1), "memory is in proportion to the file");
}

void StateDict(std::string_view input) {
  CheckStateDict(Scratch("archive.pt", input));
}

void StateDictPickle(std::string_view input) {
  CheckStateDict(Scratch("pickle.pt", TorchArchive(input)));
}

void Npy(std::string_view input) {
  const absl::StatusOr<torch::Tensor> array = ParseNpy(kName, input.data(), input.size());
  if (!Accepted(array.status(), kName, {kDataLoss})) return;
  CheckTensor(*array);
  const std::string copy = ScratchFolder() + "/copy.npy";
  Promise(WriteNpy(copy, *array).ok(), "what was read can be written");
  const absl::StatusOr<torch::Tensor> again = ReadNpy(copy);
  Promise(again.ok(), "and read again");
  CheckSame(*array, *again);
}

void Npz(std::string_view input) {
  const auto arrays = ParseNpz(kName, input.data(), input.size());
  if (!Accepted(arrays.status(), kName, {kDataLoss})) return;
  CheckTensors(*arrays);
  const std::string copy = ScratchFolder() + "/copy.npz";
  Promise(WriteNpz(copy, *arrays).ok(), "what was read can be written");
  const auto again = ReadNpz(copy);
  Promise(again.ok(), "and read again");
  CheckSame(*arrays, *again);
}

void Idx(std::string_view input) {
  const std::string path = Scratch("train-images-idx3-ubyte", input);
  const absl::StatusOr<torch::Tensor> tensor = ReadIdx(path);
  const std::string stem = ScratchFolder() + "/train";
  // The other half of the pair stays: eight labels.
  static const std::string labels = Scratch("train-labels-idx1-ubyte", std::string("\0\0\x08\x01\0\0\0\x08"
                                                                                   "12345678",
                                                                                   16));
  const absl::StatusOr<ImageSet> set = ReadMnist(ScratchFolder(), /*train=*/true);
  if (Accepted(set.status(), stem, {kDataLoss})) {
    Promise(set->images.dim() == 4 && set->images.size(1) == 1 && set->images.size(0) == set->labels.size(0),
            "as many images as labels");
  }
  if (!Accepted(tensor.status(), path, {kDataLoss})) return;
  CheckTensor(*tensor);
  Promise(tensor->nbytes() <= 1100 * (input.size() + 1), "all of it came from the file");
}

void Cifar(std::string_view input) {
  const std::string path = Scratch("batch.bin", input);
  for (const CifarOptions& options : {CifarOptions{}, CifarOptions{2, 1, 100}}) {
    const absl::StatusOr<ImageSet> set = ReadCifar({path}, options);
    if (!Accepted(set.status(), path, {kDataLoss})) continue;
    CheckTensor(set->images);
    CheckTensor(set->labels);
    Promise(set->images.dim() == 4 && set->images.size(0) == set->labels.size(0), "as many images as labels");
    Promise((set->labels < options.classes).all().item<bool>(), "labels are classes");
    const auto dataset = TensorDataset::Make(set->images, set->labels);
    Promise(dataset.ok() && (*dataset)->Get({0}).ok(), "samples can be read");
  }
}

void Tokens(std::string_view input) {
  const std::string path = Scratch("tokens.bin", input);
  for (const TokenOptions& options : {TokenOptions{.block_size = 4, .vocabulary = 1000},
                                      TokenOptions{.block_size = 3, .stride = 1, .token_bytes = 4}}) {
    const auto dataset = TokenDataset::Open(path, options);
    if (!Accepted(dataset.status(), path, {kDataLoss})) continue;
    Promise((*dataset)->size() > 0, "there is a window");
    for (int64_t i = 0; i < (*dataset)->size(); i = i * 2 + 1) {
      const absl::StatusOr<Batch> batch = (*dataset)->Get({i, (*dataset)->size() - 1});
      if (!Accepted(batch.status(), path, {kDataLoss})) continue;
      CheckTensor(batch->input);
      Promise(batch->target.sizes() == torch::IntArrayRef({2, options.block_size}), "windows have their size");
    }
  }
  const auto text = ByteTextDataset::Open(path, {.block_size = 4});
  if (!Accepted(text.status(), path, {kDataLoss})) return;
  Promise((*text)->Get({0, (*text)->size() - 1}).ok(), "windows of text can be read");
}

}  // namespace athanor::fuzz
