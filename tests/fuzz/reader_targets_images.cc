#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "athanor/data/images/codec.h"
#include "athanor/data/images/inflate.h"
#include "athanor/data/images/pipeline.h"
#include "athanor/data/images/transforms.h"
#include "athanor/tools/compression.h"
#include "tests/fuzz/reader_checks.h"
#include "tests/fuzz/reader_targets.h"

namespace athanor::fuzz {
namespace {

constexpr char kName[] = "some image";
constexpr int64_t kSize = 8;

ImageTransforms Crop() {
  ImageTransforms transforms;
  transforms.Add(RandomResizedCrop(kSize)).Add(RandomHorizontalFlip()).Add(ToFloat());
  return transforms;
}

// A window of the image, the same as in `whole` when that could be read.
void CheckWindow(std::string_view input, const ImageHeader& header, const absl::StatusOr<torch::Tensor>& whole) {
  const ImageBox box = {.top = header.height / 3,
                        .left = header.width / 4,
                        .height = std::max<int64_t>(header.height / 4, 1),
                        .width = std::max<int64_t>(header.width / 3, 1)};
  static ImagePixels pixels;
  if (!Accepted(pixels.Decode(kName, input.data(), input.size(), box), kName, {kDataLoss})) return;
  unsigned sum = 0;
  for (int64_t y = 0; y < box.height; ++y) {
    const uint8_t* row = pixels.rows().data + static_cast<size_t>(y) * pixels.rows().row_bytes;
    for (int64_t x = 0; x < box.width; ++x, row += kPixelBytes) {
      sum += row[0];
      if (!whole.ok()) continue;
      for (int64_t c = 0; c < 3; ++c) {
        const uint8_t* plane = whole->data_ptr<uint8_t>() + c * header.height * header.width;
        Promise(row[c] == plane[(box.top + y) * header.width + box.left + x], "a window is that of the whole image");
      }
    }
  }
  [[maybe_unused]] volatile const unsigned kept = sum;  // or nothing would be read
}

}  // namespace

void Image(std::string_view input) {
  const absl::StatusOr<ImageHeader> header = ReadImageHeader(kName, input.data(), input.size());
  const absl::StatusOr<torch::Tensor> whole = DecodeImage(kName, input.data(), input.size());
  if (!Accepted(header.status(), kName, {kDataLoss})) return Promise(!whole.ok(), "no header, no image");
  if (Accepted(whole.status(), kName, {kDataLoss})) {
    CheckTensor(*whole);
    Promise(whole->sizes() == torch::IntArrayRef({3, header->height, header->width}), "an image has its header's size");
  }
  CheckWindow(input, *header, whole);
  if (header->jpeg) {
    ImagePixels pixels;
    const ImageBox box = {.height = Reduced(header->height, 4), .width = Reduced(header->width, 4)};
    (void)Accepted(pixels.Decode(kName, input.data(), input.size(), box, 4), kName, {kDataLoss});
  }
  static const ImageTransforms transforms = Crop();
  static const ImagePipeline exact(transforms), reduced(transforms, {.reduced_decode = true});
  for (const ImagePipeline* pipeline : {&exact, &reduced}) {
    ImageCollator batch(*pipeline, 1);
    if (!Accepted(batch.Add(kName, input.data(), input.size(), input.size()), kName, {kDataLoss})) continue;
    const torch::Tensor images = batch.Take();
    CheckTensor(images);
    Promise(images.sizes() == torch::IntArrayRef({1, 3, kSize, kSize}), "a batch has its size");
    if (pipeline == &exact && whole.ok())
      Promise(transforms.Apply(*whole, input.size()).equal(images[0]), "a pipeline gives what the transforms give");
  }
  const std::string copy = ScratchFolder() + "/copy.png";
  if (!whole.ok() || whole->numel() > 1 << 16) return;
  Promise(WritePng(copy, *whole).ok(), "what was read can be written");
  const absl::StatusOr<torch::Tensor> again = ReadImage(copy);
  Promise(again.ok(), "and read again");
  CheckSame(*whole, *again);
}

namespace {

void CheckStream(Compression compression, std::string_view input) {
  constexpr size_t kLimit = size_t{64} << 20;
  const absl::StatusOr<std::string> bytes = Unpack(compression, std::string(input), kLimit);
  if (!bytes.ok()) {
    Promise(bytes.status().code() == kDataLoss, "a damaged stream is DATA_LOSS");
    return;
  }
  Promise(bytes->size() <= kLimit, "the limit is kept");
  const absl::StatusOr<std::string> packed = Pack(compression, *bytes);
  Promise(packed.ok(), "what was read can be written");
  const absl::StatusOr<std::string> again = Unpack(compression, *packed, kLimit);
  Promise(again.ok() && *again == *bytes, "and read again");
  if (!bytes->empty()) Promise(!Unpack(compression, *packed, bytes->size() - 1).ok(), "a limit is one");
}

}  // namespace

void Gzip(std::string_view input) {
  CheckStream(Compression::kGzip, input);
  const std::string path = Scratch("file.gz", input);
  constexpr size_t kLimit = size_t{16} << 20;
  const absl::StatusOr<std::string> bytes = ReadMaybeGzip(path, kLimit);
  if (Accepted(bytes.status(), path, {kDataLoss})) Promise(bytes->size() <= kLimit, "the limit is kept");
  for (const size_t size : {input.size(), size_t{100}, size_t{0xffffffff}}) {
    const absl::StatusOr<std::string> raw = InflateRaw(input.data(), input.size(), size);
    if (Accepted(raw.status(), "compressed part", {kDataLoss})) Promise(raw->size() == size, "a part has its size");
  }
}

void Zstd(std::string_view input) {
  CheckStream(Compression::kZstd, input);
}

}  // namespace athanor::fuzz
