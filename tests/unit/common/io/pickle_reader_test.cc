#include "athanor/io/pickle_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor {
namespace {

using Kind = PickleValue::Kind;
using std::string_literals::operator""s;

TEST(PickleReaderTest, ReadsWhatPythonPutsBesideTensors) {
  struct Case {
    std::string pickle;  // as pickle.dumps() writes it
    Kind kind;
    size_t items;
    const char* described;
  };
  const Case cases[] = {
      {"\x80\2\x8a\x09\0\0\0\0\0\0\0\x80\0."s, Kind::kLong, 0, "an integer of more than 64 bits"},  // 1 << 63
      {"\x80\2\x8a\x10"s + std::string(15, '\1') + "\x7f.", Kind::kLong, 0, "an integer of more than 64 bits"},
      {"\x80\2\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f."s, Kind::kInt, 0, "an integer"},
      {"\x80\4\x8f\x94(K\1K\2\x90."s, Kind::kSet, 2, "a set"},
      {"\x80\4(K\3\x91\x94."s, Kind::kSet, 1, "a set"},
      {"\x80\5\x96\2\0\0\0\0\0\0\0ab\x94."s, Kind::kBytes, 0, "bytes"},  // a bytearray
      {"\x80\2ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RK\1K\2s."s, Kind::kDict, 2, "a dictionary"},
      {"\x80\2c__main__\nMine\n)\x81(K\1K\2K\3K\4u."s, Kind::kDict, 4, "a dictionary"},
      {"\x80\2c__main__\nMine\n)\x81}X\1\0\0\0xK\1sb."s, Kind::kCall, 2, "a call of __main__.Mine"},
      {"\x80\4\x8c\1m\x8c\1C\x93)}\x92."s, Kind::kCall, 2, "a call of m.C"},  // __new__ with names
      {"(lp0\nI1\naI01\naL5L\na."s, Kind::kList, 3, "a list"},                // protocol 0
      {"(dp0\nS'key'\np1\nF1.5\ns."s, Kind::kDict, 2, "a dictionary"},
      {"(i__main__\nOld\np0\n."s, Kind::kCall, 2, "a call of __main__.Old"},
      {"]q\0(K\1K\2e."s, Kind::kList, 2, "a list"},                                                 // protocol 1
      {"ccollections\nOrderedDict\n(]]U\1aaK\1aa]U\1baK\2aatR."s, Kind::kDict, 4, "a dictionary"},  // Python 2
  };
  for (const Case& one : cases) {
    const auto document = ParsePickle("x", one.pickle);
    ASSERT_TRUE(document.ok()) << document.status() << " for " << one.described;
    EXPECT_EQ(document->root->kind, one.kind) << one.described;
    EXPECT_EQ(document->root->items.size(), one.items) << one.described;
    EXPECT_EQ(Describe(*document->root), one.described);
  }
  EXPECT_EQ(ParsePickle("x", "\x80\2\x8a\x0a\xfe\xff\xff\xff\xff\xff\xff\xff\xff\xff."s)->root->integer, -2);
  EXPECT_EQ(ParsePickle("x", "\x80\2\x8a\2\0\xff."s)->root->integer, -256);
}

TEST(PickleReaderTest, NamesThePlaceOfWhatIsNoPickle) {
  const auto message = [](const std::string& pickle) {
    return std::string(ParsePickle("x", pickle).status().message());
  };
  EXPECT_THAT(message("\x80\2K"s), testing::HasSubstr("x: pickle at byte 2: opcode 0x4b runs past the end"));
  EXPECT_THAT(message("\x80\2Inot\n."s), testing::HasSubstr("at byte 2: opcode 0x49 holds no integer"));
  EXPECT_THAT(message("\x80\2\x82\1."s), testing::HasSubstr("opcode 0x82 is not supported"));
  EXPECT_THAT(message("\x80\2]K\1K\2s."s), testing::HasSubstr("extends something else than a container"));
  // A list of pairs remembered once, and a dictionary made of it again and again, would multiply.
  std::string bomb = "\x80\2ccollections\nOrderedDict\nq\0](](K\1K\2e"s;
  for (int i = 0; i < 500; ++i) bomb += "2";
  bomb += "eq\1";
  for (int i = 0; i < 500; ++i) bomb += "h\0h\1\x85R0"s;
  EXPECT_THAT(message(bomb + "."), testing::HasSubstr("has no pairs"));
}

}  // namespace
}  // namespace athanor
