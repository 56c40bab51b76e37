// Files as other programs write them (make_format_samples.py), and the same files damaged at every byte.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "athanor/data/formats/classic_datasets.h"
#include "athanor/data/formats/json_lines.h"
#include "athanor/data/formats/npy.h"
#include "athanor/data/formats/token_dataset.h"
#include "athanor/data/stateful_data_loader.h"
#include "athanor/io/tensor_file.h"

namespace athanor {
namespace {

using testing::HasSubstr;

std::string Sample(const std::string& name) {
  return std::string(ATHANOR_SOURCE_DIR) + "/tests/data/formats/" + name;
}

std::string Bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class FormatsTest : public testing::Test {
 protected:
  FormatsTest() {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-formats-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~FormatsTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(Path(name), std::ios::binary) << bytes;
    return Path(name);
  }
  std::string folder_;
};

TEST_F(FormatsTest, NpyAsNumPyWritesIt) {
  auto plain = ReadNpy(Sample("f4.npy"));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_TRUE(torch::equal(*plain, torch::arange(6, torch::kFloat32).reshape({2, 3}) / 4));
  auto fortran = ReadNpy(Sample("fortran_i8.npy"));
  ASSERT_TRUE(fortran.ok()) << fortran.status();
  EXPECT_TRUE(torch::equal(*fortran, torch::arange(24).reshape({2, 3, 4})));
  EXPECT_TRUE(torch::equal(*ReadNpy(Sample("big_endian.npy")), torch::arange(3, torch::kFloat32)));
  EXPECT_THAT(std::string(ReadNpy(Sample("objects.npy")).status().message()), HasSubstr("\"|O\""));
  EXPECT_EQ(ReadNpy(Sample("none.npy")).status().code(), absl::StatusCode::kNotFound);
}

// More of NumPy's kinds are in tests/integration/foreign_files_test.py.
TEST_F(FormatsTest, NpyHeadersOfOtherWriters) {
  const auto read = [](const std::string& header) {
    std::string bytes = "\x93NUMPY\1" + std::string(1, '\0') + static_cast<char>(header.size()) + std::string(1, '\0');
    bytes += header + "\x01\x02" + std::string(6, '\0');
    return ParseNpy("x", bytes.data(), bytes.size());
  };
  for (const char* header : {"{'descr': '<u8', 'fortran_order': False, 'shape': (1L,), }",
                             "{ \"shape\" :( 1 ), \"fortran_order\":False , \"descr\": \"u8\" }  \n",
                             "{u'descr': u'<i8', u'fortran_order': True, u'shape': (1,)}"}) {
    const auto array = read(header);
    ASSERT_TRUE(array.ok()) << array.status();
    EXPECT_TRUE(torch::equal(*array, torch::tensor({0x201}, torch::kInt64))) << header;
  }
  for (const char* dtype : {"int64", "int", "long", "q", "<l", "=p", "uintp", "ulonglong", "|Q"}) {
    const auto array = read(std::string("{'descr': '") + dtype + "', 'fortran_order': False, 'shape': (1,)}");
    ASSERT_TRUE(array.ok()) << array.status();
    EXPECT_TRUE(torch::equal(*array, torch::tensor({0x201}, torch::kInt64))) << dtype;
  }
  EXPECT_EQ(read("{'descr': 'uint16', 'fortran_order': False, 'shape': (1,)}")->item<int>(), 0x201)
      << "bytes behind it";
  EXPECT_EQ(read("{'descr': '>i4', 'fortran_order': False, 'shape': (2,)}")->index({0}).item<int>(), 0x01020000);
  const std::pair<const char*, const char*> wrong[] = {
      {"{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}", "neither True nor False"},
      {"{'descr': '<f8', 'fortran_order': False, 'shape': 1}", "the shape is no tuple"},
      {"{'descr': '<f8', 'fortran_order': False}", "no 'shape'"},
      {"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}", "structured"},
      {"{'descr': '<f8' 'fortran_order': False, 'shape': (1,)}", "no dictionary"},
      {"{'descr': '<int64', 'fortran_order': False, 'shape': (1,)}", "found dtype \"<int64\""},
      {"{'descr': 'f8', 'fortran_order': False, 'shape': (2,)}", "found 8 bytes of data for shape (2) of f8"},
      {"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'x': 1}", "'x'"}};
  for (const auto& [header, problem] : wrong)
    EXPECT_THAT(std::string(read(header).status().message()), HasSubstr(problem)) << header;
}

TEST_F(FormatsTest, NpzStoredAndDeflated) {
  auto stored = ReadNpz(Sample("stored.npz"));
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_TRUE(torch::equal(stored->at("x"), torch::eye(3, torch::kFloat64)));
  EXPECT_TRUE(torch::equal(stored->at("y"), torch::tensor({1, 2, 65535}, torch::kInt32)));
  EXPECT_TRUE(stored->at("flag").item<bool>());
  auto deflated = ReadNpz(Sample("deflated.npz"));
  ASSERT_TRUE(deflated.ok()) << deflated.status();
  EXPECT_TRUE(torch::equal(deflated->at("x"), torch::zeros({50, 4}, torch::kFloat16)));
  EXPECT_TRUE(torch::equal(deflated->at("y"), torch::arange(50)));
}

TEST_F(FormatsTest, NpyAndNpzComeBack) {
  const std::map<std::string, torch::Tensor> arrays = {{"a", torch::randn({3, 0, 2})},
                                                       {"b", torch::arange(10).to(torch::kInt16)},
                                                       {"c", torch::randn({2, 3}, torch::kComplexDouble).t()},
                                                       {"d", torch::tensor(true)}};
  ASSERT_TRUE(WriteNpz(Path("x.npz"), arrays).ok());
  auto back = ReadNpz(Path("x.npz"));
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_EQ(back->size(), arrays.size());
  for (const auto& [name, tensor] : arrays) EXPECT_TRUE(torch::equal(back->at(name), tensor)) << name;
  ASSERT_TRUE(WriteNpy(Path("x.npy"), arrays.at("c")).ok());
  EXPECT_TRUE(torch::equal(*ReadNpy(Path("x.npy")), arrays.at("c")));
  EXPECT_EQ(WriteNpy(Path("y.npy"), torch::ones({2}, torch::kBFloat16)).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FormatsTest, NoByteOfDamageGoesUnseenOrCrashes) {
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    const std::string good = Bytes(Sample(name));
    for (size_t cut = 0; cut < good.size(); ++cut)
      EXPECT_FALSE(ParseNpz(name, good.data(), cut).ok()) << name << " cut at " << cut;
    for (size_t at = 0; at < good.size(); ++at) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 0x5a);
      const auto parsed = ParseNpz(name, bad.data(), bad.size());  // dates and the like may change: no crash is asked
      EXPECT_TRUE(parsed.ok() || absl::IsDataLoss(parsed.status())) << parsed.status();
    }
  }
  const std::string npy = Bytes(Sample("f4.npy"));
  for (size_t cut = 0; cut < npy.size(); ++cut) EXPECT_FALSE(ParseNpy("x", npy.data(), cut).ok());
}

TEST_F(FormatsTest, MnistPlainAndGzipped) {
  auto set = ReadMnist(Sample(""), /*train=*/true);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_TRUE(torch::equal(set->images, torch::arange(60).to(torch::kUInt8).reshape({3, 1, 4, 5})));
  EXPECT_TRUE(torch::equal(set->labels, torch::tensor({7, 0, 9}, torch::kInt64)));
  EXPECT_EQ(ReadMnist(Sample(""), /*train=*/false).status().code(), absl::StatusCode::kNotFound);
  const std::string labels = Bytes(Sample("train-labels-idx1-ubyte"));
  const std::string cut = Write("cut", labels.substr(0, labels.size() - 1));
  EXPECT_THAT(std::string(ReadIdx(cut).status().message()), HasSubstr("it ends in sample 2"));
  const std::string gz = Bytes(Sample("train-images-idx3-ubyte.gz"));
  EXPECT_EQ(ReadIdx(Write("cut.gz", gz.substr(0, gz.size() - 9))).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(FormatsTest, CifarRecords) {
  std::string bytes;
  for (int sample = 0; sample < 3; ++sample) {
    bytes += static_cast<char>(sample * 4);
    for (int i = 0; i < 3072; ++i) bytes += static_cast<char>(i + sample);
  }
  const std::string path = Write("batch.bin", bytes);
  auto set = ReadCifar({path, path});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->images.sizes(), torch::IntArrayRef({6, 3, 32, 32}));
  EXPECT_EQ(set->images[1][2][31][31].item<int>(), (3071 + 1) % 256);
  EXPECT_TRUE(torch::equal(set->labels.slice(0, 0, 3), torch::tensor({0, 4, 8}, torch::kInt64)));
  EXPECT_THAT(std::string(ReadCifar({path}, {.classes = 5}).status().message()), HasSubstr("sample 2 has label 8"));
  EXPECT_THAT(std::string(ReadCifar({Write("cut", bytes.substr(0, 5000))}).status().message()),
              HasSubstr("it ends in sample 1"));
}

TEST_F(FormatsTest, TokensBareAndWithHeader) {
  std::string tokens;
  for (uint16_t token = 0; token < 20; ++token) tokens.append(reinterpret_cast<const char*>(&token), 2);
  auto bare = TokenDataset::Open(Write("bare.bin", tokens), {.block_size = 4});
  ASSERT_TRUE(bare.ok()) << bare.status();
  EXPECT_EQ((*bare)->size(), 4);
  auto batch = (*bare)->Get({3, 0});
  ASSERT_TRUE(batch.ok());
  EXPECT_TRUE(torch::equal(batch->input, torch::tensor({12, 13, 14, 15, 0, 1, 2, 3}, torch::kInt64).reshape({2, 4})));
  EXPECT_TRUE(torch::equal(batch->target, batch->input + 1));
  std::vector<int32_t> header(256, 0);
  header[0] = 20240520;
  header[1] = 1;
  header[2] = 20;
  const std::string front(reinterpret_cast<const char*>(header.data()), 1024);
  auto framed = TokenDataset::Open(Write("framed.bin", front + tokens), {.block_size = 19});
  ASSERT_TRUE(framed.ok()) << framed.status();
  EXPECT_EQ((*framed)->size(), 1);
  EXPECT_THAT(
      std::string(TokenDataset::Open(Write("cut.bin", front + tokens.substr(2)), {.block_size = 4}).status().message()),
      HasSubstr("promises 20"));
  header[2] = -1;
  const std::string less(reinterpret_cast<const char*>(header.data()), 1024);
  EXPECT_THAT(std::string(TokenDataset::Open(Write("less.bin", less + tokens), {.block_size = 4}).status().message()),
              HasSubstr("promises -1"));
  auto small = TokenDataset::Open(Path("bare.bin"), {.block_size = 4, .vocabulary = 10});
  EXPECT_THAT(std::string((*small)->Get({2}).status().message()), HasSubstr("window 2, token 2: found 10"));
  EXPECT_EQ(TokenDataset::Open(Path("bare.bin"), {.block_size = 20}).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(FormatsTest, TokensThatNumPySaved) {
  ASSERT_TRUE(WriteNpy(Path("tokens.npy"), torch::arange(20).to(torch::kUInt16)).ok());
  const auto tokens = TokenDataset::Open(Path("tokens.npy"), {.block_size = 4});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ((*tokens)->tokens(), 20);
  EXPECT_TRUE(torch::equal((*tokens)->Get({1})->input, torch::tensor({{4, 5, 6, 7}}, torch::kInt64)));
  ASSERT_TRUE(WriteNpy(Path("tokens.npy"), torch::arange(20, torch::kInt32)).ok());
  EXPECT_EQ((*TokenDataset::Open(Path("tokens.npy"), {.block_size = 4}))->tokens(), 20);
  std::ofstream(Path("tokens.npy"), std::ios::binary | std::ios::app) << "more";
  EXPECT_EQ((*TokenDataset::Open(Path("tokens.npy"), {.block_size = 4}))->tokens(), 20) << "bytes behind the array";
  std::filesystem::resize_file(Path("tokens.npy"), std::filesystem::file_size(Path("tokens.npy")) - 8);
  EXPECT_THAT(std::string(TokenDataset::Open(Path("tokens.npy"), {.block_size = 4}).status().message()),
              HasSubstr("the header promises 20"));
  for (const torch::Tensor& other : {torch::arange(20), torch::zeros({4, 5}, torch::kInt32)}) {
    ASSERT_TRUE(WriteNpy(Path("tokens.npy"), other).ok());
    EXPECT_THAT(std::string(TokenDataset::Open(Path("tokens.npy"), {.block_size = 4}).status().message()),
                HasSubstr("allowed: one dimension of <u2, <u4 or <i4"));
  }
}

TEST_F(FormatsTest, IntegersOfJsonLinesAreExact) {
  const auto targets = [&](const std::string& numbers) {
    std::string lines;
    for (const absl::string_view number : absl::StrSplit(numbers, ' '))
      absl::StrAppend(&lines, "{\"input\": 1, \"target\": ", number, "}\n");
    return OpenJsonLines(Write("exact.jsonl", lines), {});
  };
  const auto exact = targets("9007199254740993 9223372036854775807 -9223372036854775808 2.0");
  ASSERT_TRUE(exact.ok()) << exact.status();
  EXPECT_TRUE(
      torch::equal(exact->dataset->target(), torch::tensor({9007199254740993, std::numeric_limits<int64_t>::max(),
                                                            std::numeric_limits<int64_t>::min(), int64_t{2}})));
  EXPECT_EQ(targets("1e20 0.5")->dataset->target().scalar_type(), torch::kFloat32);
  const std::string beside = "{\"id\": 18446744073709551617, \"target\": 1e20, \"input\": [18446744073709551617, 2]}\n";
  EXPECT_TRUE(OpenJsonLines(Write("beside.jsonl", beside), {}).ok()) << "large integers elsewhere do not count";
  for (const char* beyond : {"9223372036854775808", "18446744073709551617", "1 -9223372036854775809"})
    EXPECT_THAT(std::string(targets(beyond).status().message()), HasSubstr("beyond 64 bits")) << beyond;
  EXPECT_THAT(std::string(targets("NaN").status().message()), HasSubstr("NaN, which Python's json.dumps writes"));
}

TEST_F(FormatsTest, JsonLinesNameTheDamagedLineOrSkipIt) {
  const std::string path = Write("x.jsonl",
                                 "{\"x\": [1, 2.5], \"label\": 1}\n\n{\"x\": [3, 4], \"label\": 0}\n"
                                 "{\"x\": [3], \"label\": 0}\n{oops\n{\"x\": [5, 6], \"label\": 7}\n");
  JsonLinesOptions options;
  options.input = "x";
  options.target = "label";
  EXPECT_THAT(std::string(OpenJsonLines(path, options).status().message()),
              HasSubstr("x.jsonl:4: \"x\" has shape [1]"));
  options.skip_damaged = true;
  auto read = OpenJsonLines(path, options);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->skipped, 2);
  EXPECT_THAT(read->errors[1], HasSubstr(":5:"));
  EXPECT_TRUE(torch::equal(read->dataset->input(), torch::tensor({1.0, 2.5, 3.0, 4.0, 5.0, 6.0}).reshape({3, 2})));
  EXPECT_TRUE(torch::equal(read->dataset->target(), torch::tensor({1, 0, 7}, torch::kInt64)));
}

TEST_F(FormatsTest, SafetensorsByName) {
  ASSERT_TRUE(
      WriteTensorFile(Path("d.safetensors"), {{"images", torch::randn({4, 2})}, {"labels", torch::arange(4)}}).ok());
  FieldNames names{.input = "images", .target = "labels"};
  auto dataset = OpenSafetensors(Path("d.safetensors"), names);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->size(), 4);
  names.target = "classes";
  EXPECT_THAT(std::string(OpenSafetensors(Path("d.safetensors"), names).status().message()),
              HasSubstr("no tensor \"classes\"; there are: images, labels"));
}

}  // namespace
}  // namespace athanor
