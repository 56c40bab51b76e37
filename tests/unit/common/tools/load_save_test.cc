#include "athanor/tools/load_save.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "athanor/tools/compression.h"
#include "athanor/tools/yaml_json.h"

namespace athanor {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

class LoadSaveTest : public testing::TestWithParam<std::string> {
 protected:
  LoadSaveTest() {
    std::string name = (std::filesystem::temp_directory_path() / "athanor-files-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~LoadSaveTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  std::string folder_;
};

using PackedTest = LoadSaveTest;

TEST_P(PackedTest, EveryKindComesBack) {
  const json value = {{"a", {1, 2.5, nullptr, true}}, {"text", "x: 1\n\"q\""}, {"looks", "12"}, {"none", "null"}};
  for (const char* ending : {"x.json", "x.yaml", "x.yml"}) {
    const std::string path = Path(ending) + GetParam();
    ASSERT_TRUE(Save(path, value).ok());
    auto back = Load(path);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(std::get<json>(*back), value) << path;
  }
  const json lines = {{{"x", 1}}, {{"x", nullptr}, {"y", "z"}}};
  ASSERT_TRUE(Save(Path("x.jsonl") + GetParam(), lines).ok());
  EXPECT_EQ(std::get<json>(*Load(Path("x.jsonl") + GetParam())), lines);
  EXPECT_EQ(LoadTable(Path("x.jsonl") + GetParam())->columns().size(), 2u);

  const Tensors tensors = {{"layer.weight", torch::randn({3, 2})}, {"count", torch::tensor(7)}};
  for (const char* ending : {"x.safetensors", "x.npz"}) {
    const std::string path = Path(ending) + GetParam();
    ASSERT_TRUE(Save(path, tensors).ok()) << path;
    auto back = Load(path);
    ASSERT_TRUE(back.ok()) << path << back.status();
    const auto& found = std::get<Tensors>(*back);
    ASSERT_EQ(found.size(), 2u) << path;
    for (const auto& [name, tensor] : tensors) EXPECT_TRUE(torch::equal(found.at(name), tensor)) << path << name;
  }
  ASSERT_TRUE(Save(Path("x.npy") + GetParam(), tensors.at("layer.weight")).ok());
  EXPECT_TRUE(torch::equal(std::get<torch::Tensor>(*Load(Path("x.npy") + GetParam())), tensors.at("layer.weight")));

  const std::string text(300000, 'a');
  ASSERT_TRUE(SaveText(Path("x.txt") + GetParam(), text).ok());
  EXPECT_EQ(std::get<std::string>(*Load(Path("x.txt") + GetParam())), text);
  for (const auto& item : std::filesystem::directory_iterator(folder_))
    EXPECT_THAT(item.path().string(), testing::Not(HasSubstr(".tmp-"))) << "nothing is left behind";
}

INSTANTIATE_TEST_SUITE_P(Compressions, PackedTest, testing::Values("", ".gz", ".zst"));

TEST_F(LoadSaveTest, SaysWhatIsWrong) {
  EXPECT_THAT(std::string(Load(Path("x.xyz")).status().message()), HasSubstr("\".xyz\"; allowed: .safetensors"));
  EXPECT_EQ(Load(Path("none.json")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Save(Path("x.csv"), json(1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Save(Path("x.pt"), Tensors{{"w", torch::Tensor()}}).message()),
              HasSubstr("tensor 'w' is undefined; allowed: dense tensors"));
  ASSERT_TRUE(SaveText(Path("bad.json"), "{\"a\": }").ok());
  EXPECT_THAT(std::string(Load(Path("bad.json")).status().message()), HasSubstr("bad.json: not JSON from byte 7 on"));
  ASSERT_TRUE(SaveText(Path("large.json"), "[1e999]").ok());
  EXPECT_THAT(std::string(Load(Path("large.json")).status().message()), HasSubstr("large.json: a number is too large"));
  ASSERT_TRUE(SaveText(Path("bad.yaml"), "a: [1, 2\nb: 3").ok());
  EXPECT_EQ(Load(Path("bad.yaml")).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Save(Path("x.jsonl"), json({{"a", 1}})).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(SaveText(Path("big.txt"), std::string(1000, 'x')).ok());
  EXPECT_FALSE(Load(Path("big.txt"), {.limit_bytes = 100}).ok());
}

TEST(CompressionTest, DamageAndLimitsAreSeen) {
  std::string bytes;
  for (int i = 0; i < 5000; ++i) bytes += std::to_string(i * i);
  for (const Compression kind : {Compression::kGzip, Compression::kZstd}) {
    const std::string packed = *Pack(kind, bytes);
    EXPECT_LT(packed.size(), bytes.size());
    EXPECT_EQ(*Unpack(kind, packed, bytes.size()), bytes);
    EXPECT_EQ(*Unpack(kind, packed + packed, 2 * bytes.size()), bytes + bytes);
    EXPECT_TRUE(absl::IsDataLoss(Unpack(kind, packed, bytes.size() - 1).status()));
    for (const size_t cut : {size_t{0}, size_t{5}, packed.size() / 2, packed.size() - 1})
      EXPECT_TRUE(absl::IsDataLoss(Unpack(kind, packed.substr(0, cut), bytes.size()).status())) << cut;
    EXPECT_EQ(*Unpack(kind, *Pack(kind, ""), 10), "");
    for (const size_t size : {size_t{131071}, size_t{131072}, size_t{262144}, size_t{1} << 20}) {  // whole blocks
      const std::string block(size, 'a');
      EXPECT_EQ(*Unpack(kind, *Pack(kind, block), size), block) << size;
    }
  }
}

TEST(YamlTest, ScalarsMeanWhatTheyLookLike) {
  auto value = ParseYaml("a: 1\nb: 1.5e3\nc: ~\nd: 'no'\ne: yes\nf: .inf\ng: &x [1, two]\nh: *x\ni: 0x10\n");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ((*value)["a"], 1);
  EXPECT_EQ((*value)["b"], 1500.0);
  EXPECT_TRUE((*value)["c"].is_null());
  EXPECT_EQ((*value)["d"], "no");
  EXPECT_EQ((*value)["e"], "yes");
  EXPECT_EQ((*value)["f"], HUGE_VAL);
  EXPECT_EQ((*value)["h"], (*value)["g"]);
  EXPECT_EQ((*value)["i"], "0x10");
  EXPECT_THAT(std::string(ParseYaml("a: [1").status().message()), HasSubstr("line"));
  EXPECT_FALSE(ParseYaml(std::string(1000, '[') + std::string(1000, ']')).ok());
}

TEST(YamlTest, RefusesWhatJsonCannotHold) {
  EXPECT_THAT(std::string(ParseYaml("a: 1\nb: \xff\n").status().message()), HasSubstr("line 2, column 4: text that"));
  EXPECT_THAT(std::string(ParseYaml("\xc3(: 1\n").status().message()), HasSubstr("not UTF-8"));
  EXPECT_EQ(*ParseYaml("nan(1)"), "nan(1)");
  // A small document that becomes a large one.
  std::string laughs = "a: &a " + std::string(50'000, 'x') + "\nb: [*a";
  for (int i = 0; i < 20'000; ++i) laughs += ", *a";
  EXPECT_THAT(std::string(ParseYaml(laughs + "]").status().message()), HasSubstr("anchors repeat too much"));
  for (const char* text : {"\r", "a\nb", "\t", "\x01", "\xc2\x85", "\xe2\x80\xa8x", "\xef\xbb\xbfx", "\x7f"}) {
    const json value = {{text, text}};
    EXPECT_EQ(*ParseYaml(FormatYaml(value)), value);
  }
}

TEST(TableTest, TypesQuotesAndMissingCells) {
  auto table = ParseCsv("t", "id,score,ok,\"a, b\"\r\n1,0.5,true,\"x\"\"y\nz\"\r\n2,,false,12a\n3,nan,,\n");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->rows(), 3);
  const auto& columns = table->columns();
  EXPECT_EQ(columns[0].type, ColumnType::kWhole);
  EXPECT_EQ(columns[1].type, ColumnType::kNumber);
  EXPECT_EQ(columns[2].type, ColumnType::kBool);
  EXPECT_EQ(columns[3].type, ColumnType::kText);
  EXPECT_EQ(columns[3].name, "a, b");
  EXPECT_THAT(columns[3].texts, ElementsAre("x\"y\nz", "12a", ""));
  EXPECT_TRUE(torch::equal(*table->Wholes("id"), torch::tensor({1, 2, 3}, torch::kInt64)));
  EXPECT_TRUE((*table->Numbers("score"))[1].isnan().item<bool>());
  EXPECT_EQ((*table->Numbers("ok"))[1].item<double>(), 0);
  EXPECT_FALSE(table->Numbers("a, b").ok());
  EXPECT_FALSE(table->Wholes("ok").ok());
  EXPECT_THAT(std::string(table->Find("none").status().message()), HasSubstr("id, score, ok, a, b"));
  auto again = ParseCsv("t", FormatCsv(*table));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(FormatCsv(*again), FormatCsv(*table));
  EXPECT_EQ(again->columns()[3].texts, columns[3].texts);
}

TEST(TableTest, TextsStayAsTheyAreWritten) {
  auto table = ParseCsv("t", "007,True,1e5\n007,1.50,inf\nname,x,-nan\n,True,-inf\n");
  ASSERT_TRUE(table.ok()) << table.status();
  const auto& columns = table->columns();
  EXPECT_THAT((std::vector<std::string>{columns[0].name, columns[1].name, columns[2].name}),
              ElementsAre("007", "True", "1e5"));
  EXPECT_THAT(columns[0].texts, ElementsAre("007", "name", ""));
  EXPECT_THAT(columns[1].texts, ElementsAre("1.50", "x", "True"));
  EXPECT_EQ(columns[2].numbers[0], HUGE_VAL);
  EXPECT_FALSE(columns[2].present[1]);
  EXPECT_EQ(FormatCsv(*table), "\"007\",\"True\",\"1e5\"\n\"007\",\"1.50\",inf\nname,x,\n,\"True\",-inf\n");
  auto single = ParseCsv("t", "x\n1\n\nNA\n2\n");
  ASSERT_TRUE(single.ok());
  EXPECT_EQ(single->rows(), 3);
  EXPECT_EQ(ParseCsv("t", FormatCsv(*single))->rows(), 3) << "a missing cell is a row";
}

TEST(TableTest, WholeNumbersAreNeverRounded) {
  auto lines = ParseJsonLinesTable("t",
                                   "{\"a\": 18446744073709551615, \"b\": 9007199254740993, \"c\": 9007199254740993}\n"
                                   "{\"a\": 1, \"b\": 2, \"c\": 0.5}\n");
  ASSERT_TRUE(lines.ok()) << lines.status();
  EXPECT_THAT(lines->columns()[0].texts, ElementsAre("18446744073709551615", "1"));
  EXPECT_THAT(lines->columns()[1].wholes, ElementsAre(9007199254740993, 2));
  EXPECT_THAT(lines->columns()[2].texts, ElementsAre("9007199254740993", "0.5"));
  auto table = ParseCsv("t", "a,b\n18446744073709551615,9007199254740993\n1,0.5\n");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(table->columns()[0].texts, ElementsAre("18446744073709551615", "1"));
  EXPECT_THAT(table->columns()[1].texts, ElementsAre("9007199254740993", "0.5"));
  EXPECT_EQ(FormatCsv(*ParseCsv("t", FormatCsv(*table))), FormatCsv(*table));
}

TEST(TableTest, ReadsWhatSpreadsheetsWrite) {
  auto table = ParseCsv("t", "\xef\xbb\xbfx,y\r\n+1, 2.5\r\n#N/A,+.5\r\n3,<NA>\r\n");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->columns()[0].name, "x");
  EXPECT_EQ(table->columns()[1].numbers[0], 2.5);
  EXPECT_EQ(table->columns()[1].numbers[1], 0.5);
  EXPECT_THAT(table->columns()[0].present, ElementsAre(true, false, true));
  EXPECT_THAT(std::string(ParseCsv("t", std::string("\xff\xfe"
                                                    "a\0",
                                                    4))
                              .status()
                              .message()),
              HasSubstr("t: found UTF-16"));
}

TEST(TableTest, NamesTheDamagedLine) {
  EXPECT_THAT(std::string(ParseCsv("t", "a,b\n1,2\n\"x\ny\",2\n3\n").status().message()),
              HasSubstr("t:5: found 1 cells"));
  EXPECT_THAT(std::string(ParseCsv("t", "a\n\"open").status().message()), HasSubstr("t:2: a quote"));
  EXPECT_FALSE(ParseCsv("t", "a,a\n1,2\n").ok());
  EXPECT_FALSE(ParseCsv("t", "").ok());
  auto lines = ParseJsonLinesTable("t", "{\"a\": 1}\n{\"b\": \"x\"}\n");
  ASSERT_TRUE(lines.ok());
  EXPECT_FALSE(lines->columns()[0].present[1]);
  EXPECT_FALSE(lines->columns()[1].present[0]);
  EXPECT_THAT(std::string(ParseJsonLinesTable("t", "{\"a\": NaN}\n").status().message()),
              HasSubstr("t:1: not JSON: NaN"));
  std::string sparse;
  for (int i = 0; i < 20'000; ++i) sparse += "{\"k" + std::to_string(i) + "\": 1}\n";
  EXPECT_THAT(std::string(ParseJsonLinesTable("t", sparse).status().message()), HasSubstr("columns by now"));
  EXPECT_THAT(std::string(ParseJsonLinesTable("t", "{}\n[1]\n").status().message()), HasSubstr("t:2"));
}

}  // namespace
}  // namespace athanor
