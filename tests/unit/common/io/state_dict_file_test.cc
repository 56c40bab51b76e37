// Files of Python's own torch.save are read in tests/integration/library_test.py.
#include "athanor/io/state_dict_file.h"

#include <caffe2/serialize/inline_container.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace athanor {
namespace {

using std::string_literals::operator""s;
using testing::ElementsAre;
using testing::HasSubstr;

class StateDictFileTest : public testing::Test {
 protected:
  StateDictFileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-state-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~StateDictFileTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  absl::StatusOr<TensorFile> RoundTrip(const std::map<std::string, torch::Tensor>& tensors) const {
    const absl::Status written = WriteStateDictFile(Path("x.pt"), tensors);
    if (!written.ok()) return written;
    return ReadStateDictFile(Path("x.pt"));
  }

  // An archive with this pickle, and storages "0", "1" … of these bytes.
  std::string Archive(const std::string& pickle, const std::vector<std::string>& storages,
                      const std::string& byte_order) const {
    std::ofstream out(Path("made.pt"), std::ios::binary);
    caffe2::serialize::PyTorchStreamWriter writer([&](const void* data, size_t size) {
      out.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
      return size;
    });
    writer.writeRecord("data.pkl", pickle.data(), pickle.size());
    if (!byte_order.empty()) writer.writeRecord("byteorder", byte_order.data(), byte_order.size());
    for (size_t i = 0; i < storages.size(); ++i)
      writer.writeRecord(absl::StrCat("data/", i), storages[i].data(), storages[i].size());
    writer.writeEndOfFile();
    return Path("made.pt");
  }

  absl::Status OtherKind(const std::string& bytes) const {
    std::ofstream(Path("other.pt"), std::ios::binary) << bytes;
    return ReadStateDictFile(Path("other.pt")).status();
  }

  std::string folder_;
};

std::string Text(const std::string& text) {
  return absl::StrCat("X", std::string(1, static_cast<char>(text.size())), std::string(3, '\0'), text);
}

// The arguments of a rebuilding function: two elements of storage "0".
std::string Parts(const std::string& storage_class, const std::string& more = "") {
  return absl::StrCat("((", Text("storage"), "ctorch\n", storage_class, "\n", Text("0"), Text("cpu"),
                      "K\2tQK\0K\2\x85K\1\x85\x89N"s, more, "t");
}

std::string DictionaryOf(const std::string& tensor) {
  return absl::StrCat("\x80\2}", Text("w"), tensor, "s.");
}

TEST_F(StateDictFileTest, BytesOfTheOtherOrderAreTurnedAround) {
  const std::string plain = "ctorch._utils\n_rebuild_tensor_v2\n";
  const auto read = [&](const std::string& storage_class, const std::string& bytes, const std::string& order) {
    return ReadStateDictFile(Archive(DictionaryOf(plain + Parts(storage_class) + "R"), {bytes}, order));
  };
  const std::string one_big = "\x3f\x80\0\0\x40\0\0\0"s, one_little = "\0\0\x80\x3f\0\0\0\x40"s;
  for (const auto& [bytes, order] :
       {std::pair(one_big, "big"), std::pair(one_little, "little"), std::pair(one_little, "")}) {
    const auto file = read("FloatStorage", bytes, order);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(torch::equal(file->tensors.at("w"), torch::tensor({1.0F, 2.0F}))) << order;
  }
  EXPECT_TRUE(
      torch::equal(read("ShortStorage", "\0\1\1\0"s, "big")->tensors.at("w"), torch::tensor({1, 256}, torch::kShort)));
  EXPECT_TRUE(torch::equal(read("ByteStorage", "\1\2", "big")->tensors.at("w"), torch::tensor({1, 2}, torch::kByte)));
  const auto complex = read("ComplexFloatStorage", one_big + one_big, "big");  // part by part
  EXPECT_TRUE(torch::equal(torch::view_as_real(complex->tensors.at("w")), torch::tensor({{1.0F, 2.0F}, {1.0F, 2.0F}})));
  EXPECT_THAT(std::string(read("FloatStorage", one_big, "middle").status().message()),
              HasSubstr("byteorder: found 'middle'; allowed: little, big"));
}

TEST_F(StateDictFileTest, TheDataOfClassesAndAttributesIsTaken) {
  const std::string function = "ctorch._utils\n_rebuild_tensor_v2\n", parts = Parts("FloatStorage");
  const std::string parameter = "ctorch._utils\n_rebuild_parameter_with_state\n(" + function + parts + "R\x88N}tR";
  const std::string of_class =
      "ctorch._tensor\n_rebuild_from_type_v2\n(" + function + "c__main__\nMine\n" + parts + "}tR";
  for (const std::string& tensor :
       {function + parts + "R", parameter, of_class, "ctorch._utils\n_rebuild_parameter\n(" + of_class + "\x88NtR"}) {
    const auto file = ReadStateDictFile(Archive(DictionaryOf(tensor), {"\0\0\x80\x3f\0\0\0\x40"s}, ""));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(torch::equal(file->tensors.at("w"), torch::tensor({1.0F, 2.0F})));
  }
  const std::string neg = "}" + Text("neg") + "\x88s";
  const auto negated = ReadStateDictFile(
      Archive(DictionaryOf(function + Parts("FloatStorage", neg) + "R"), {"\0\0\x80\x3f\0\0\0\x40"s}, ""));
  EXPECT_TRUE(torch::equal(negated->tensors.at("w"), torch::tensor({-1.0F, -2.0F})));
  std::string nested = function + parts + "R";
  for (int i = 0; i < 20; ++i) nested = "ctorch._utils\n_rebuild_parameter\n(" + nested + "\x88NtR";
  EXPECT_FALSE(ReadStateDictFile(Archive(DictionaryOf(nested), {std::string(8, 'a')}, "")).ok());
}

TEST_F(StateDictFileTest, WhatIsNoTensorIsLeftOutAndListed) {
  const std::string tensor = "ctorch._utils\n_rebuild_tensor_v2\n" + Parts("FloatStorage") + "R";
  const std::string pickle = absl::StrCat(
      "\x80\5}(", Text("w"), tensor, Text("seen"), "\x8f(K\1\x90", Text("big"), "\x8a\x09", std::string(8, '\0'), "\1",
      Text("rng"), "\x96\1", std::string(7, '\0'), "a", Text("inner"), "}(K\1K\2", Text("epoch"), "K\3uu.");
  const auto file = ReadStateDictFile(Archive(pickle, {std::string(8, '\0')}, ""));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors.size(), 1U);
  EXPECT_THAT(file->skipped, ElementsAre("seen: a set", "big: an integer of more than 64 bits", "rng: bytes",
                                         "inner.epoch: an integer", "inner: 1 entries whose keys are no texts"));
}

TEST_F(StateDictFileTest, FilesOfOtherKindsAreNamed) {
  const std::string magic = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
  const std::pair<std::string, const char*> others[] = {
      {"\x80\2" + magic + ".\x80\2M\xe9\3.", "the old format of torch.save"},
      {"\x80\4\x95\x0d\0\0\0\0\0\0\0"s + magic + ".", "the old format of torch.save"},
      {"\x80\4\x95\x20\0\0\0\0\0\0\0}\x94."s, "a bare pickle"},
      {"\x1f\x8b\x08\0\0\0\0\0\0\3"s, "gzip"},
      {"\x28\xb5\x2f\xfd\x20\1\1\0\0\0"s, "zstd"},
      {"\x89HDF\r\n\x1a\n\0\0"s, "HDF5"}};
  for (const auto& [bytes, what] : others) {
    EXPECT_TRUE(absl::IsInvalidArgument(OtherKind(bytes)));
    EXPECT_THAT(std::string(OtherKind(bytes).message()), testing::AllOf(HasSubstr("other.pt"), HasSubstr(what)));
  }
  // The length of a header may look like the first bytes of all of these.
  for (const size_t length : {0x0280U, 0x088b1fU}) {
    std::string bytes(8, '\0');
    for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
    const std::string header = R"({"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
    EXPECT_TRUE(OtherKind(bytes + header + std::string(length - header.size(), ' ') + "ab").ok()) << length;
  }
}

TEST_F(StateDictFileTest, TensorsThatShareMemoryShareItInTheFile) {
  const torch::Tensor base = torch::arange(12, torch::kFloat).reshape({3, 4});
  const auto file = RoundTrip({{"base", base},
                               {"tied", base},
                               {"row", base[1]},
                               {"columns", base.t()},
                               {"alone", torch::ones({2})},
                               {"bits", base.view(torch::kInt)}});
  ASSERT_TRUE(file.ok()) << file.status();
  const auto& tensors = file->tensors;
  EXPECT_TRUE(torch::equal(tensors.at("base"), base));
  EXPECT_EQ(tensors.at("tied").data_ptr(), tensors.at("base").data_ptr()) << "one tensor with two names";
  EXPECT_TRUE(torch::equal(tensors.at("row"), base[1]));
  EXPECT_TRUE(torch::equal(tensors.at("columns"), base.t()));
  EXPECT_TRUE(torch::equal(tensors.at("bits"), base.view(torch::kInt)));
  caffe2::serialize::PyTorchStreamReader archive(Path("x.pt"));
  EXPECT_EQ(archive.getAllRecords().size(), 3U + 4) << "three storages; pickle, byte order, version, id";
}

TEST_F(StateDictFileTest, OfALargeTensorOnlyTheSlicesAreWritten) {
  const torch::Tensor large = torch::randn({1 << 20});
  const auto file = RoundTrip({{"begin", large.slice(0, 0, 8)}, {"end", large.slice(0, (1 << 20) - 8)}});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(torch::equal(file->tensors.at("end"), large.slice(0, (1 << 20) - 8)));
  EXPECT_LT(std::filesystem::file_size(Path("x.pt")), 1U << 16);
}

TEST_F(StateDictFileTest, EveryDtypeComesBack) {
  std::map<std::string, torch::Tensor> tensors;
  for (const torch::ScalarType dtype :
       {torch::kDouble, torch::kFloat, torch::kHalf, torch::kBFloat16, torch::kLong, torch::kInt, torch::kShort,
        torch::kChar, torch::kByte, torch::kUInt16, torch::kUInt32, torch::kUInt64, torch::kFloat8_e4m3fn,
        torch::kFloat8_e5m2, torch::kFloat8_e8m0fnu, torch::kFloat4_e2m1fn_x2, torch::kComplexFloat,
        torch::kComplexDouble}) {
    tensors[c10::toString(dtype)] = torch::arange(32, torch::kByte).view(dtype).reshape({2, -1});
  }
  const auto file = RoundTrip(tensors);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(file->tensors.at(name).scalar_type(), tensor.scalar_type());
    EXPECT_TRUE(torch::equal(file->tensors.at(name).view(torch::kByte), tensor.view(torch::kByte))) << name;
  }
}

}  // namespace
}  // namespace athanor
