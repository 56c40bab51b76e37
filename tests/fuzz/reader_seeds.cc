#include "tests/fuzz/reader_seeds.h"

#include <caffe2/serialize/inline_container.h>
#include <zlib.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "athanor/base/crc32c.h"
#include "athanor/base/file_system.h"
#include "athanor/checkpoint/format/layout.h"
#include "athanor/checkpoint/format/manifest.h"
#include "athanor/checkpoint/shard_header.h"
#include "athanor/checkpoint/store/checkpoint_store.h"
#include "athanor/data/formats/npy.h"
#include "athanor/exchange/convert.h"
#include "athanor/io/state_dict_file.h"
#include "athanor/io/tensor_file.h"
#include "athanor/tools/compression.h"
#include "tests/fuzz/reader_checks.h"
#include "tests/fuzz/replay.h"

namespace athanor::fuzz {
namespace {

using std::string_literals::operator""s;

std::map<std::string, torch::Tensor> SampleTensors() {
  torch::manual_seed(1);
  return {{"model.weight", torch::randn({2, 3})},
          {"model.bias", torch::arange(3).to(torch::kBFloat16)},
          {"model.steps", torch::tensor(7, torch::kInt64)},
          {"model.mask", torch::tensor({true, false})},
          {"model.none", torch::empty({0, 4})}};
}

std::string BytesOf(const std::string& path) {
  return ReadFile(path, 1 << 24).value();
}

std::string SampleShard(const std::map<std::string, torch::Tensor>& tensors) {
  const std::string path = ScratchFolder() + "/seed.safetensors";
  nlohmann::json slices = nlohmann::json::object();
  for (const auto& [name, tensor] : tensors) {
    const torch::Tensor dense = DenseOnHost(tensor);
    slices[name]["crc32c"] = nlohmann::json::array();
    if (dense.nbytes() > 0) slices[name]["crc32c"].push_back(Crc32c(0, dense.data_ptr(), dense.nbytes()));
  }
  const std::map<std::string, std::string> metadata = {
      {"format", "pt"}, {kRankMetaKey, "{\"meters\": [1, 2]}"}, {kSlicesKey, slices.dump()}};
  Promise(WriteTensorFile(path, tensors, metadata).ok(), "");
  return BytesOf(path);
}

// As protocol 2 of Python writes {"w": tensor, "net": OrderedDict(b=parameter, half=view)}.
std::string SamplePickle() {
  const auto text = [](const std::string& value) {
    return absl::StrCat("X"s, std::string(1, static_cast<char>(value.size())), "\0\0\0"s, value);
  };
  const auto tensor = [&](const std::string& kind, const std::string& key, const std::string& offset,
                          const std::string& sizes, const std::string& strides) {
    return absl::StrCat("ctorch._utils\n_rebuild_tensor_v2\n(("s, text("storage"), "ctorch\n", kind, "\n", text(key),
                        text("cpu"), "K\x06tQ", offset, sizes, strides, "\x89", "ccollections\nOrderedDict\n)RtR");
  };
  const std::string weight = tensor("FloatStorage", "0", "K\0"s, "K\2K\3\x86"s, "K\3K\1\x86"s);
  const std::string bias =
      absl::StrCat("ctorch._utils\n_rebuild_parameter\n(", tensor("LongStorage", "1", "K\0"s, "K\3\x85"s, "K\1\x85"s),
                   "\x88", "ccollections\nOrderedDict\n)RtR");
  const std::string view = tensor("FloatStorage", "0", "K\1"s, "K\2K\2\x86"s, "K\0K\1\x86"s);
  return absl::StrCat("\x80\2}q\0("s, text("w"), weight, text("net"), "ccollections\nOrderedDict\n)Rq\1(", text("b"),
                      bias, text("half"), view, "u", text("epoch"), "K\x05", text("lr"),
                      "G?\xb9\x99\x99\x99\x99\x99\x9a", "u.");
}

// Protocol 4: frames, short texts, memoized globals.
std::string FramedPickle() {
  return "\x80\4\x95\x40\0\0\0\0\0\0\0}\x94(\x8c\1a\x94]\x94(K\1M\0\2J\xff\xff\xff\xff\x8a\2\xff\x7f"
         "e\x8c\1b\x94\x8c\xb"
         "collections\x94\x8c\xbOrderedDict\x94\x93\x94)R\x94h\1N\x86\x94h\2\x88\x85\x94u."s;
}

// Protocol 5, with what stands beside tensors.
std::string NewestPickle() {
  return "\x80\5}\x94(\x8c\1s\x94\x8f\x94(K\1K\2\x90\x8c\1f\x94(K\3\x91\x94\x8c\1b\x94\x96\2\0\0\0\0\0\0\0ab\x94"
         "\x8c\1i\x94\x8a\x09\0\0\0\0\0\0\0\x80\0\x8c\1d\x94\x8c\xb"
         "collections\x94\x8c\xb"
         "defaultdict\x94\x93\x94N\x85\x94R\x94\x8c\1k\x94K\1su."s;
}

// {"w": a tensor with its neg bit, of a class, "v": one of a dtype without a storage type}.
std::string ClassPickle() {
  const auto text = [](const std::string& value) {
    return absl::StrCat("X"s, std::string(1, static_cast<char>(value.size())), "\0\0\0"s, value);
  };
  const auto parts = [&](const std::string& storage, const std::string& more) {
    return absl::StrCat("(("s, text("storage"), "c", storage, "\n", text("0"), text("cpu"),
                        "K\x06tQK\0K\2K\3\x86K\3K\1\x86\x89N"s, more, "t");
  };
  return absl::StrCat("\x80\2}("s, text("w"),
                      "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n"
                      "c__main__\nMine\n",
                      parts("torch\nFloatStorage", absl::StrCat("}", text("neg"), "\x88s")), "}tR", text("v"),
                      "ctorch._utils\n_rebuild_tensor_v3\n", parts("torch.storage\nUntypedStorage", "ctorch\nuint16\n"),
                      "Ru.");
}

std::vector<std::string> NpySeeds() {
  std::vector<std::string> seeds;
  const std::string path = ScratchFolder() + "/seed.npy";
  for (const torch::Tensor& tensor : {torch::randn({2, 3}), torch::arange(5), torch::ones({}, torch::kBool),
                                      torch::zeros({0, 2}, torch::kComplexDouble)}) {
    Promise(WriteNpy(path, tensor).ok(), "a seed is written");
    seeds.push_back(BytesOf(path));
  }
  seeds.push_back(absl::StrReplaceAll(seeds[0], {{"False", "True "}}));
  seeds.push_back(absl::StrReplaceAll(seeds[0], {{"<f4", ">f4"}, {"'", "\""}, {": ", " :"}}));
  seeds.push_back(absl::StrReplaceAll(seeds[1], {{"<i8", ">u8"}, {"(5,)", "(5L,)"}, {"  \n", " \n"}}));
  seeds.push_back(absl::StrReplaceAll(seeds[1], {{"<i8", "<u2"}, {"(5,)", "(20,)"}, {" \n", "\n"}}));
  return seeds;
}

std::vector<std::string> NpzSeeds() {
  const std::string path = ScratchFolder() + "/seed.npz";
  Promise(WriteNpz(path, {{"x", torch::randn({4, 2})}, {"y", torch::arange(4)}}).ok(), "a seed is written");
  const std::vector<std::string> arrays = NpySeeds();
  return {BytesOf(path), ZipArchive({{"x.npy", arrays[0]}, {"y.npy", arrays[1]}}, /*deflated=*/true)};
}

std::vector<std::string> IdxSeeds() {
  const std::string images = "\0\0\x08\3\0\0\0\x08\0\0\0\2\0\0\0\3"s + std::string(48, 'p');
  return {images, "\0\0\x0d\1\0\0\0\2"s + std::string(8, '\x3f'),
          "\0\0\x0e\2\0\0\0\1\0\0\0\2"s + std::string(16, '\x40'), Pack(Compression::kGzip, images).value()};
}

std::vector<std::string> TokenSeeds() {
  std::string header(1024, '\0');
  PutNumber(header, 0, 4, 20240520);
  PutNumber(header, 4, 4, 1);
  PutNumber(header, 8, 4, 9);
  std::string tokens;
  for (int i = 0; i < 9; ++i) tokens += {static_cast<char>(i), '\1'};
  const std::string path = ScratchFolder() + "/tokens.npy";
  Promise(WriteNpy(path, torch::arange(20).to(torch::kUInt16)).ok(), "a seed is written");
  return {tokens, header + tokens, "to be or not to be", BytesOf(path)};
}

const std::map<std::string, std::vector<std::string>>& TextSeeds() {
  static const std::map<std::string, std::vector<std::string>> seeds = {
      {"csv",
       {"1,2.5,0\n-3, 4e2 ,1\r\n\n5,6,2\n", "a,b,c\n1,2,3\n4,5,6.5\n",
        "\xef\xbb\xbf\"a\",\"b\n\"\r+1.5, \"2\" \r\n9007199254740993,\"\"\"3\"\"\"\r\n"}},
      {"table_csv",
       {"name,n,x,ok\nanna,1,0.5,true\n\"b, \"\"c\"\"\nd\",2,,false\n007,,inf,NA\n", "a\tb\n1\t2\n", "one\n1\n\n2\n",
        "\xef\xbb\xbfx,y\r+1, 2.5\r#N/A,18446744073709551615\r9007199254740993,.5\r"}},
      {"table_json_lines",
       {"{\"a\": 1, \"b\": \"x\", \"c\": [1, {\"d\": null}]}\n\n{\"a\": 2.5, \"e\": true}\n{\"a\": null, \"b\": 3}\n"}},
      {"json_lines",
       {"{\"x\": [0.5, 1], \"y\": 1}\n{\"x\": [2, 3], \"y\": 0}\n", "{\"x\": [[1, 2], [3, 4]], \"y\": [0.5]}\n",
        "{\"x\": 3, \"y\": true}\n\n{\"x\": 4, \"y\": false}",
        "{\"x\": 1, \"y\": 9007199254740993}\n{\"x\": NaN, \"y\": 1}\n"}},
      {"ragged_json_lines",
       {"{\"x\": [1, 2, 3], \"y\": 1}\n{\"x\": [4], \"y\": 0}\n{\"x\": [5, 6], \"y\": 2}\n",
        "{\"x\": [[1, 2], [3, 4]], \"y\": 0.5}\n{\"x\": [[5, 6]], \"y\": 1}\n"}},
      {"json_file",
       {"{\"a\": [1, 2.5, \"x\\u00e9\", null], \"b\": {\"c\": true}}", "1\n\"two\"\n[3]\n{\"four\": 4}\n"}},
      {"yaml",
       {"steps: 10\noptim: {type: adamw, lr: 1e-3, betas: [0.9, 0.99]}\nname: \"a b\"\n",
        "a: &x [1, 'two', ~, .inf, 0x1f]\nb: *x\nc:\n  - d: |\n      text\n      more\n  - >-\n    folded\n    text\n? "
        "k\n: v\n",
        "- yes\n- 2001-01-01\n- !!str 5\n- \"\\x41\\u00e9\\n\"\n- {a: b, c: [d, e]}\n# end\n...\n"}},
      {"run_config",
       {"{\"steps\": 400, \"optim\": {\"type\": \"adamw\", \"lr\": 0.002, \"betas\": [0.9, 0.99], \"param_groups\": "
        "[{\"pattern\": \"bias$\", \"weight_decay\": 0}]}, \"sched\": {\"type\": \"cosine\", \"warmup_ratio\": 0.1}, "
        "\"dataloader\": {\"batch_size\": 32, \"val\": {\"batch_size\": 64}}, \"checkpoint\": {\"interval\": 20}}",
        "{\"epochs\": 3, \"optim\": {\"type\": \"sgd\", \"lr\": 0.1, \"momentum\": 0.9, \"nesterov\": true}, "
        "\"scheduler\": {\"type\": \"multistep\", \"milestones\": [1, 2]}, \"precision\": \"bf16\", \"wandb\": null, "
        "\"resume\": true, \"workspace\": {\"root\": \"/r\"}, \"ckpt\": {\"keep_latest_k\": 2}}"}},
      {"override",
       {"optim.lr\n0.1\n{\"optim\": {\"type\": \"sgd\"}}",
        "optim.param_groups.0.lr\n[1, 2]\n{\"optim\": {\"param_groups\": "
        "[{}]}}",
        "a.b.c\ntext\nnull", "steps\n+1.\n{}"}},
      {"vote", {"{\"bytes\":8,\"crc32c\":1,\"file\":\"shard.safetensors\"}"}},
      {"pointer", {"step-000000000120\n", "step-999999999999"}},
  };
  return seeds;
}

}  // namespace

std::string TorchArchive(std::string_view pickle, std::string_view byte_order) {
  std::string bytes;
  caffe2::serialize::PyTorchStreamWriter writer([&](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  writer.writeRecord("data.pkl", pickle.data(), pickle.size());
  if (!byte_order.empty()) writer.writeRecord("byteorder", byte_order.data(), byte_order.size());
  static const std::string storage(24, '\1');
  for (const char* name : {"data/0", "data/1"}) writer.writeRecord(name, storage.data(), storage.size());
  writer.writeEndOfFile();
  return bytes;
}

std::string ZipArchive(const std::vector<std::pair<std::string, std::string>>& entries, bool deflated) {
  std::string out, directory;
  const auto put = [](std::string* to, size_t width, uint64_t value) {
    to->append(width, '\0');
    PutNumber(*to, to->size() - width, width, value);
  };
  for (const auto& [name, content] : entries) {
    std::string packed = content;
    if (deflated) {  // gzip's frame taken off
      const std::string framed = Pack(Compression::kGzip, content).value();
      packed = framed.substr(10, framed.size() - 18);
    }
    std::string fields;
    put(&fields, 2, 20);
    put(&fields, 2, 0);
    put(&fields, 2, deflated ? 8 : 0);
    put(&fields, 4, 0x00210000);
    put(&fields, 4, crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size())));
    put(&fields, 4, packed.size());
    put(&fields, 4, content.size());
    put(&fields, 2, name.size());
    put(&fields, 2, 0);
    directory += "PK\1\2\x14\0"s + fields + std::string(10, '\0');
    put(&directory, 4, out.size());
    directory += name;
    out += "PK\3\4"s + fields + name + packed;
  }
  const size_t start = out.size();
  out += directory + "PK\5\6\0\0\0\0"s;
  put(&out, 2, entries.size());
  put(&out, 2, entries.size());
  put(&out, 4, directory.size());
  put(&out, 4, start);
  put(&out, 2, 0);
  return out;
}

ResumeCandidate WriteSampleCheckpoint(const std::string& root, int64_t step) {
  const std::string folder = absl::StrCat(root, "/", CheckpointDirName(step));
  std::filesystem::create_directories(folder);
  const std::string manifest = SampleManifest(2);  // and the shards that it names
  for (const char* shard : {"a.safetensors", "b.safetensors"})
    Promise(
        WriteFileAtomically(absl::StrCat(folder, "/", shard), BytesOf(absl::StrCat(ScratchFolder(), "/", shard))).ok(),
        "a checkpoint is written");
  Promise(WriteFileAtomically(absl::StrCat(folder, "/", kManifestFile), manifest).ok(), "a manifest is written");
  return {.step = step, .path = folder};
}

std::string SampleManifest(int format) {
  Manifest manifest;
  manifest.format = format;
  manifest.step = 120;
  manifest.world_size = 2;
  manifest.created_at = "2026-01-01T00:00:00Z";
  manifest.metrics = {{"val.accuracy", 0.5}};
  manifest.meta = {{"config", {{"steps", 400}}}, {"epoch", 3}};
  const std::map<std::string, torch::Tensor> tensors = SampleTensors();
  const std::pair<const char*, std::string> shards[] = {
      {"a.safetensors", SampleShard(tensors)}, {"b.safetensors", SampleShard({{"rank.rng.cpu", torch::ones({4})}})}};
  for (const auto& [name, bytes] : shards) {
    const std::string path = Scratch(name, bytes);
    const auto reader = StoreAt(ScratchFolder())->Open(name);
    const ShardInfo info = {static_cast<int>(manifest.shards.size()), name, static_cast<int64_t>(bytes.size()),
                            Crc32c(0, bytes.data(), bytes.size())};
    Promise(AddShard(info, *ReadShardBegin(**reader, path), &manifest).ok(), "a sample shard is described");
  }
  if (format == 1) {
    for (const auto& [name, tensor] : tensors) manifest.owners[name] = 0;
  }
  return EncodeManifest(manifest);
}

std::string SampleTorchDistributed(const std::string& folder) {
  const std::string file = ScratchFolder() + "/exchange.pt", path = absl::StrCat(ScratchFolder(), "/", folder);
  Promise(WriteStateDictFile(file, SampleTensors()).ok(), "a sample is written");
  const auto done = ConvertTensors(file, path, {.format = TensorFormat::kTorchDistributed});
  Promise(done.ok() || absl::IsAlreadyExists(done.status()), "a sample is converted");
  return path;
}

std::string SampleDeepSpeed(const std::string& folder) {
  const std::string path = absl::StrCat(ScratchFolder(), "/", folder);
  std::filesystem::copy(absl::StrCat(ATHANOR_SOURCE_DIR, "/tests/data/deepspeed/zero1/step3"), path,
                        std::filesystem::copy_options::recursive | std::filesystem::copy_options::update_existing);
  return path;
}

std::vector<std::string> ReaderSeedsOf(const std::string& target) {
  if (const auto text = TextSeeds().find(target); text != TextSeeds().end()) return text->second;
  if (target == "jpeg" || target == "png" || target == "webp" || target == "bmp") return ImageSeedsOf(target);
  if (target == "safetensors" || target == "checkpoint_shard")
    return {SampleShard(SampleTensors()),
            SampleShard({{"model.weight", torch::ones({2})}, {"rank.rng", torch::ones(1)}})};
  if (target == "pickle") return {SamplePickle(), FramedPickle(), NewestPickle(), ClassPickle()};
  if (target == "state_dict_pickle") return {SamplePickle(), ClassPickle()};
  if (target == "state_dict") {
    const std::string path = ScratchFolder() + "/seed.pt";
    Promise(WriteStateDictFile(path, SampleTensors()).ok(), "a seed is written");
    return {TorchArchive(SamplePickle()), BytesOf(path), TorchArchive(ClassPickle(), "big")};
  }
  if (target == "dcp_metadata") return {BytesOf(SampleTorchDistributed("dcp_seed") + "/.metadata")};
  if (target == "deepspeed_partition" || target == "deepspeed_model")
    return {BytesOf(absl::StrCat(SampleDeepSpeed("deepspeed_seed"), "/",
                                 target == "deepspeed_model" ? kDeepSpeedModel : kDeepSpeedPartition))};
  if (target == "npy") return NpySeeds();
  if (target == "npz") return NpzSeeds();
  if (target == "idx") return IdxSeeds();
  if (target == "cifar") return {std::string(3073, '\1') + std::string(3073, '\2'), std::string(2 * 3074, '\3')};
  if (target == "tokens") return TokenSeeds();
  if (target == "manifest" || target == "checkpoint") return {SampleManifest(2), SampleManifest(1)};
  std::vector<std::string> packed;
  for (const std::string& plain : {""s, "text"s, std::string(3000, 'a'), SamplePickle()})
    packed.push_back(Pack(target == "gzip" ? Compression::kGzip : Compression::kZstd, plain).value());
  packed.push_back(packed[1] + packed[2]);
  return packed;
}

}  // namespace athanor::fuzz
