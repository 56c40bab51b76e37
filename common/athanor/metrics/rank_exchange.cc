#include "athanor/metrics/rank_exchange.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr int64_t kMagic = 0x41544d4554524b31;  // a rank of another version is named, not misread
constexpr int64_t kAlign = 8;                   // of the largest dtype that metrics send
enum Slot : int64_t { kMagicSlot, kMetaBytes, kBodyBytes, kUnchanged, kSlots };
constexpr int64_t kRoom = kBlockBytes - kSlots * static_cast<int64_t>(sizeof(int64_t));

int64_t Aligned(int64_t bytes) {
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

int64_t BytesOf(const torch::Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
}

torch::TensorOptions Bytes(const torch::Device& device) {
  return torch::TensorOptions().dtype(torch::kUInt8).device(device);
}

class Writer {
 public:
  void Number(int64_t number) { bytes_.append(reinterpret_cast<const char*>(&number), sizeof(number)); }
  void Text(absl::string_view text) {
    Number(static_cast<int64_t>(text.size()));
    bytes_.append(text.data(), text.size());
  }
  std::string Take() && {
    bytes_.resize(static_cast<size_t>(Aligned(static_cast<int64_t>(bytes_.size()))));
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(absl::string_view bytes) : bytes_(bytes) {}
  int64_t Number() {
    int64_t number = 0;
    if (!Has(sizeof(number))) return 0;
    std::memcpy(&number, bytes_.data(), sizeof(number));
    bytes_.remove_prefix(sizeof(number));
    return number;
  }
  // A count of things that take at least one byte each.
  int64_t Count() {
    const int64_t count = Number();
    if (count >= 0 && static_cast<uint64_t>(count) <= bytes_.size()) return count;
    ok_ = false;
    return 0;
  }
  std::string Text() {
    const auto size = static_cast<size_t>(Count());
    std::string text(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return text;
  }
  bool ok() const { return ok_; }

 private:
  bool Has(size_t size) { return ok_ = ok_ && bytes_.size() >= size; }
  absl::string_view bytes_;
  bool ok_ = true;
};

std::string MetaOf(const std::vector<RankPart>& parts) {
  Writer writer;
  writer.Number(static_cast<int64_t>(parts.size()));
  for (const RankPart& part : parts) {
    writer.Text(part.what);
    writer.Number(static_cast<int64_t>(part.status.code()));
    writer.Text(part.status.message());
    writer.Number(part.unchanged ? 1 : 0);
    writer.Number(static_cast<int64_t>(part.numbers.size()));
    for (const int64_t number : part.numbers) writer.Number(number);
    writer.Number(static_cast<int64_t>(part.tensors.size()));
    for (const torch::Tensor& tensor : part.tensors) {
      writer.Number(static_cast<int64_t>(tensor.scalar_type()));
      writer.Number(tensor.dim());
      for (const int64_t size : tensor.sizes()) writer.Number(size);
    }
  }
  return std::move(writer).Take();
}

// What the meta says about a tensor; its bytes come later.
torch::Tensor Announced(Reader& reader) {
  const int64_t dtype = reader.Number();
  std::vector<int64_t> sizes(static_cast<size_t>(reader.Count()));
  bool known = dtype >= 0 && dtype < static_cast<int64_t>(torch::ScalarType::NumOptions);
  for (int64_t& size : sizes) known = (size = reader.Number()) >= 0 && known;
  if (!reader.ok() || !known) return {};
  const auto options = torch::TensorOptions().dtype(static_cast<torch::ScalarType>(dtype));
  return torch::empty(sizes, options.device(torch::kMeta));
}

absl::StatusOr<std::vector<RankPart>> PartsOf(absl::string_view meta, size_t rank) {
  Reader reader(meta);
  std::vector<RankPart> parts(static_cast<size_t>(reader.Count()));
  bool known = true;
  for (RankPart& part : parts) {
    part.what = reader.Text();
    const auto code = static_cast<absl::StatusCode>(reader.Number());
    part.status = absl::Status(code, reader.Text());
    part.unchanged = reader.Number() != 0;
    part.numbers.resize(static_cast<size_t>(reader.Count()));
    for (int64_t& number : part.numbers) number = reader.Number();
    part.tensors.resize(static_cast<size_t>(reader.Count()));
    for (torch::Tensor& tensor : part.tensors) known = (tensor = Announced(reader)).defined() && known;
  }
  if (reader.ok() && known) return parts;
  return absl::InternalError(absl::StrCat("metrics: what rank ", rank, " sent cannot be read"));
}

// One after the other, each at a multiple of kAlign.
torch::Tensor BodyOf(const std::vector<RankPart>& parts, const torch::Device& device) {
  std::vector<torch::Tensor> pieces = {torch::empty({0}, Bytes(device))};
  for (const RankPart& part : parts) {
    for (const torch::Tensor& tensor : part.tensors) {
      if (tensor.numel() == 0) continue;
      pieces.push_back(tensor.detach().contiguous().reshape({-1}).view(torch::kUInt8).to(device));
      const int64_t size = pieces.back().numel();
      if (Aligned(size) > size) pieces.push_back(torch::zeros({Aligned(size) - size}, Bytes(device)));
    }
  }
  return torch::cat(pieces);
}

struct Message {
  std::string meta;
  int64_t body_bytes = 0;
  bool unchanged = true;
  torch::Tensor body;
};

int64_t InBlock(int64_t meta, int64_t body) {
  return meta + body <= kRoom ? meta + body : meta <= kRoom ? meta : 0;
}

Message MessageOf(const std::vector<RankPart>& parts, const torch::Device& device) {
  Message message;
  message.meta = MetaOf(parts);
  for (const RankPart& part : parts) {
    message.unchanged = message.unchanged && part.unchanged;
    for (const torch::Tensor& tensor : part.tensors) message.body_bytes += Aligned(BytesOf(tensor));
  }
  const auto meta = static_cast<int64_t>(message.meta.size());
  const bool small = meta + message.body_bytes <= kRoom;
  message.body = BodyOf(parts, small ? torch::Device(torch::kCPU) : device);
  return message;
}

torch::Tensor HostBytes(absl::string_view bytes) {
  torch::Tensor tensor = torch::empty({static_cast<int64_t>(bytes.size())}, Bytes(torch::kCPU));
  if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

torch::Tensor BlockOf(const Message& message) {
  torch::Tensor block = torch::zeros({kBlockBytes}, Bytes(torch::kCPU));
  const auto meta = static_cast<int64_t>(message.meta.size());
  const int64_t slots[kSlots] = {kMagic, meta, message.body_bytes, message.unchanged ? 1 : 0};
  std::memcpy(block.data_ptr(), slots, sizeof(slots));
  const int64_t inside = InBlock(meta, message.body_bytes);
  if (inside >= meta) block.narrow(0, sizeof(slots), meta).copy_(HostBytes(message.meta));
  if (inside > meta)
    block.narrow(0, static_cast<int64_t>(sizeof(slots)) + meta, message.body_bytes).copy_(message.body);
  return block;
}

// What one rank sent: its sizes from the block, the rest from both exchanges.
struct Incoming {
  int64_t slots[kSlots] = {};
  torch::Tensor block;  // kRoom bytes on the host
  torch::Tensor rest;   // of the second exchange

  int64_t inside() const { return InBlock(slots[kMetaBytes], slots[kBodyBytes]); }
  int64_t outside() const { return slots[kMetaBytes] + slots[kBodyBytes] - inside(); }
  bool has_meta() const { return inside() >= slots[kMetaBytes]; }
  torch::Tensor Meta() const { return (has_meta() ? block : rest).narrow(0, 0, slots[kMetaBytes]).cpu(); }
  torch::Tensor Body() const {
    if (outside() == 0) return block.narrow(0, slots[kMetaBytes], slots[kBodyBytes]);
    return rest.defined() ? rest.narrow(0, has_meta() ? 0 : slots[kMetaBytes], slots[kBodyBytes]) : rest;
  }
};

absl::StatusOr<std::vector<Incoming>> IncomingOf(const torch::Tensor& blocks) {
  std::vector<Incoming> ranks(static_cast<size_t>(blocks.size(0)));
  for (size_t r = 0; r < ranks.size(); ++r) {
    const torch::Tensor block = blocks[static_cast<int64_t>(r)];
    std::memcpy(ranks[r].slots, block.data_ptr(), sizeof(ranks[r].slots));
    const int64_t meta = ranks[r].slots[kMetaBytes], body = ranks[r].slots[kBodyBytes];
    if (ranks[r].slots[kMagicSlot] != kMagic || meta < 0 || body < 0)
      return absl::InternalError(absl::StrCat("metrics: rank ", r, " does something else than a read-out"));
    ranks[r].block = block.narrow(0, sizeof(ranks[r].slots), kRoom);
  }
  return ranks;
}

std::string Shortened(const std::string& text) {
  constexpr size_t kLongest = 300;
  return text.size() <= kLongest ? text : absl::StrCat(absl::string_view(text).substr(0, kLongest), "…");
}

// The same on every rank, as all of it was received.
absl::Status CheckAlike(const RankParts& ranks) {
  for (size_t rank = 1; rank < ranks.size(); ++rank) {
    const size_t count = std::max(ranks[0].size(), ranks[rank].size());
    for (size_t i = 0; i < count; ++i) {
      const std::string first = i < ranks[0].size() ? ranks[0][i].what : "nothing";
      const std::string other = i < ranks[rank].size() ? ranks[rank][i].what : "nothing";
      if (first == other) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the ranks have other metrics; all need the same names and options in one order: rank 0 has ",
                       Shortened(first), "; rank ", rank, " has ", Shortened(other)));
    }
  }
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    for (const RankPart& part : ranks[rank]) RETURN_IF_ERROR(Annotate(part.status, absl::StrCat("rank ", rank)));
  }
  return absl::OkStatus();
}

absl::StatusOr<RankParts> ReadMetas(const std::vector<Incoming>& ranks) {
  RankParts parts;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const torch::Tensor meta = ranks[rank].Meta().contiguous();
    const absl::string_view bytes(static_cast<const char*>(meta.data_ptr()), static_cast<size_t>(meta.numel()));
    ASSIGN_OR_RETURN(parts.emplace_back(), PartsOf(bytes, rank));
  }
  RETURN_IF_ERROR(CheckAlike(parts));
  return parts;
}

absl::Status FillTensors(const std::vector<Incoming>& ranks, const torch::Device& device, RankParts* parts) {
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const torch::Tensor body = ranks[rank].Body();
    int64_t at = 0;
    for (RankPart& part : (*parts)[rank]) {
      if (!body.defined()) part.tensors.clear();
      for (torch::Tensor& tensor : part.tensors) {
        const int64_t bytes = BytesOf(tensor);
        if (at + bytes > body.numel())
          return absl::InternalError(absl::StrCat("metrics: what rank ", rank, " sent cannot be read"));
        const auto options = tensor.options().device(device);
        tensor = bytes == 0 ? torch::empty(tensor.sizes(), options)
                            : body.narrow(0, at, bytes).view(tensor.scalar_type()).reshape(tensor.sizes()).to(device);
        at += Aligned(bytes);
      }
    }
  }
  return absl::OkStatus();
}

// What of a message does not fit into its block, `length` bytes with the padding.
torch::Tensor RestOf(const Message& message, int64_t length, const torch::Device& device) {
  const int64_t inside = InBlock(static_cast<int64_t>(message.meta.size()), message.body_bytes);
  std::vector<torch::Tensor> pieces;
  if (inside == 0) pieces.push_back(HostBytes(message.meta).to(device));
  if (inside < static_cast<int64_t>(message.meta.size()) + message.body_bytes)
    pieces.push_back(message.body.to(device));
  int64_t filled = 0;
  for (const torch::Tensor& piece : pieces) filled += piece.numel();
  pieces.push_back(torch::zeros({length - filled}, Bytes(device)));
  return torch::cat(pieces);
}

}  // namespace

absl::StatusOr<RankParts> ExchangeParts(MeterSync& sync, const std::vector<RankPart>& mine) {
  const torch::NoGradGuard no_grad;
  const torch::Device device = sync.device();
  absl::StatusOr<Message> message = RunTorch("metrics", [&] { return MessageOf(mine, device); });
  if (!message.ok()) {  // the others are told, not left waiting
    std::vector<RankPart> failed;
    for (const RankPart& part : mine) failed.push_back({.what = part.what, .status = message.status()});
    message = MessageOf(failed, device);
  }
  ASSIGN_OR_RETURN(torch::Tensor blocks, sync.Gather(BlockOf(*message).to(device)));
  ASSIGN_OR_RETURN(blocks, RunTorch("metrics", [&] { return blocks.to(torch::kCPU).contiguous(); }));
  ASSIGN_OR_RETURN(std::vector<Incoming> ranks, IncomingOf(blocks));
  int64_t length = 0;
  bool unchanged = true, metas = true;
  for (const Incoming& rank : ranks) {
    length = std::max(length, rank.outside());
    unchanged = unchanged && rank.slots[kUnchanged] != 0;
    metas = metas && rank.has_meta();
  }
  RankParts parts;
  if (metas) {
    ASSIGN_OR_RETURN(parts, ReadMetas(ranks));
  }
  if (length > 0 && !(unchanged && metas)) {
    ASSIGN_OR_RETURN(const torch::Tensor rest, RunTorch("metrics", [&] { return RestOf(*message, length, device); }));
    ASSIGN_OR_RETURN(const torch::Tensor rests, sync.Gather(rest));
    for (size_t r = 0; r < ranks.size(); ++r) ranks[r].rest = rests[static_cast<int64_t>(r)];
  }
  absl::Status status;
  RETURN_IF_ERROR(RunTorch("metrics", [&] {
    const auto read = [&]() -> absl::Status {
      if (!metas) {
        ASSIGN_OR_RETURN(parts, ReadMetas(ranks));
      }
      return FillTensors(ranks, device, &parts);
    };
    status = read();
  }));
  RETURN_IF_ERROR(status);
  return parts;
}

absl::StatusOr<JointValues> ReadJointly(JointReadOut& container, ReadOut of) {
  ASSIGN_OR_RETURN(RankParts ranks, ExchangeParts(*container.sync(), {container.PartFor(of)}));
  std::vector<RankPart> parts;
  for (std::vector<RankPart>& rank : ranks) parts.push_back(std::move(rank[0]));
  return container.FromParts(of, parts);
}

}  // namespace athanor
