#include "athanor/io/tensor_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace athanor {
namespace {

using testing::HasSubstr;

std::string FileOf(const std::string& header, size_t data_bytes) {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
  return bytes + header + std::string(data_bytes, '\1');
}

absl::StatusOr<TensorFile> Parse(const std::string& header, size_t data_bytes = 8) {
  const std::string bytes = FileOf(header, data_bytes);
  return ParseTensorFile("x", bytes.data(), static_cast<int64_t>(bytes.size()));
}

const char kTensor[] = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";

std::string With(const std::string& field) {
  return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],)" + field + "}}";
}

// What the reference library says of the same headers is in tests/integration/library_test.py.
TEST(TensorFileTest, TakesHeadersThatTheReferenceTakes) {
  const std::string tensor = kTensor;
  for (const std::string& header :
       {"{\"a\":" + tensor + "}  \n", "{\"__metadata__\":null,\"a\":" + tensor + "}",
        "{\"a\":" + tensor + ",\"__metadata__\":{\"k\":\"v\",\"k\":\"w\"}}", With(R"("extra":[[{"dtype":"F16"}]])"),
        With(R"("extra":1,"extra":null)"), "{\"a\":" + tensor + ",\"a\":" + tensor + "}",
        "{\"a\":" + tensor + R"(,"e":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}})"}) {
    const auto file = Parse(header);
    ASSERT_TRUE(file.ok()) << file.status() << " for " << header;
    EXPECT_EQ(file->tensors.at("a").sizes(), torch::IntArrayRef({2})) << header;
    if (header.find("\"w\"") != std::string::npos) {
      EXPECT_EQ(file->metadata.at("k"), "w");
    }
  }
  EXPECT_TRUE(Parse("{}", 0).ok());
}

TEST(TensorFileTest, RefusesHeadersThatTheReferenceRefuses) {
  const std::string tensor = kTensor;
  const std::pair<std::string, const char*> wrong[] = {
      {"\xef\xbb\xbf{\"a\":" + tensor + "}", "byte order mark"},
      {"{\"a\":" + tensor + "}" + std::string(2, '\0'), "zero byte"},
      {"{\"__metadata__\":{},\"__metadata__\":{},\"a\":" + tensor + "}", "'__metadata__' comes twice"},
      {"{\"__metadata__\":{\"k\":null},\"a\":" + tensor + "}", "__metadata__, 'k': found null; allowed: a text"},
      {"{\"__metadata__\":[],\"a\":" + tensor + "}", "'__metadata__': found a list; allowed: an object"},
      {With("\"dtype\":\"F32\""), "tensor 'a', field 'dtype' comes twice"},
      {With("\"shape\":[2]"), "tensor 'a', field 'shape' comes twice"},
      {With("\"data_offsets\":[0,8]"), "tensor 'a', field 'data_offsets' comes twice"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "found 2.0; allowed: integers from 0 on"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "found -2; allowed: integers from 0 on"},
      {R"({"a":{"dtype":"F32","shape":null,"data_offsets":[0,8]}})", "found null; allowed: a list of integers"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", "data_offsets are a begin and an end"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "data_offsets give -8"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", "needs dtype, shape and data_offsets"},
      {R"({"a":{"dtype":"I128","shape":[2],"data_offsets":[0,8]}})", "unknown dtype 'I128'; allowed: F64"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "leaves a hole"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "belong to no tensor"},
      {R"({"a":{"dtype":"F4","shape":[2,5],"data_offsets":[0,5]}})", "multiple of 2"},
      {"{\"a\":" + tensor + ",\"b\":" + tensor + "}", "overlaps another"},
      {"[]", "the header is a list; allowed: a JSON object"},
      {"{\"a\":" + tensor + "}x", "not JSON from its byte"},
      {With("\"x\":" + std::string(130, '[') + std::string(130, ']')), "nests deeper"},
  };
  for (const auto& [header, problem] : wrong) {
    const auto file = Parse(header);
    EXPECT_TRUE(absl::IsDataLoss(file.status())) << header;
    EXPECT_THAT(std::string(file.status().message()), testing::AllOf(HasSubstr("x, offset 8"), HasSubstr(problem)));
  }
}

class TensorFilesTest : public testing::Test {
 protected:
  TensorFilesTest() {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-tensors-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~TensorFilesTest() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(TensorFilesTest, EveryDtypeComesBack) {
  std::map<std::string, torch::Tensor> tensors;
  for (const torch::ScalarType dtype :
       {torch::kDouble, torch::kFloat, torch::kHalf, torch::kBFloat16, torch::kLong, torch::kInt, torch::kShort,
        torch::kChar, torch::kByte, torch::kUInt16, torch::kUInt32, torch::kUInt64, torch::kFloat8_e4m3fn,
        torch::kFloat8_e5m2, torch::kFloat8_e4m3fnuz, torch::kFloat8_e5m2fnuz, torch::kFloat8_e8m0fnu,
        torch::kFloat4_e2m1fn_x2, torch::kComplexFloat}) {
    tensors[c10::toString(dtype)] = torch::arange(16, torch::kByte).view(dtype).reshape({2, -1});
  }
  ASSERT_TRUE(WriteTensorFile(folder_ + "/x.safetensors", tensors).ok());
  const auto file = ReadTensorFile(folder_ + "/x.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const torch::Tensor& back = file->tensors.at(name);
    EXPECT_EQ(back.scalar_type(), tensor.scalar_type());
    EXPECT_EQ(back.sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(torch::equal(back.view(torch::kByte), tensor.view(torch::kByte))) << name;
  }
}

TEST_F(TensorFilesTest, WritesWhatATensorIsNotWhatLiesInMemory) {
  const auto c = torch::complex(torch::tensor({1.0F, 2.0F}), torch::tensor({3.0F, 4.0F}));
  const std::map<std::string, torch::Tensor> tensors = {{"conj", torch::conj(c)}, {"neg", torch::imag(torch::conj(c))}};
  ASSERT_TRUE(tensors.at("conj").is_conj() && tensors.at("neg").is_neg());
  ASSERT_TRUE(WriteTensorFile(folder_ + "/x.safetensors", tensors).ok());
  const auto file = ReadTensorFile(folder_ + "/x.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(torch::equal(torch::imag(file->tensors.at("conj")), torch::tensor({-3.0F, -4.0F})));
  EXPECT_TRUE(torch::equal(file->tensors.at("neg"), torch::tensor({-3.0F, -4.0F})));
}

TEST_F(TensorFilesTest, RefusesNamesThatCannotComeBack) {
  for (const std::string& name : {std::string("__metadata__"), std::string("a\xff")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(WriteTensorFile(folder_ + "/x.safetensors", {{name, torch::ones({2})}})))
        << name;
    EXPECT_TRUE(std::filesystem::is_empty(folder_));
  }
}

}  // namespace
}  // namespace athanor
