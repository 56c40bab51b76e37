// One entry per defect that was found, with what it did.
#include <zlib.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "athanor/tools/compression.h"
#include "tests/fuzz/reader_seeds.h"
#include "tests/fuzz/replay.h"
#include "tests/fuzz/target.h"

namespace athanor::fuzz {
namespace {

using std::string_literals::operator""s;
using Inputs = std::vector<std::string>;

// Copies of such a value overflowed the stack.
std::string Nested(int depth) {
  return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
}

std::string NpyOf(const std::string& header, const std::string& data) {
  std::string bytes = "\x93NUMPY\1\0\0\0"s + header;
  PutNumber(bytes, 8, 2, header.size());
  return bytes + data;
}

std::string SafetensorsOf(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  PutNumber(bytes, 0, 8, header.size());
  return bytes + header + data;
}

std::string Text4(const std::string& text) {
  std::string bytes(5, 'X');
  PutNumber(bytes, 1, 4, text.size());
  return bytes + text;
}

// {"w": a tensor of one element, repeated}.
std::string PickledTensor(const std::string& sizes, const std::string& strides) {
  return absl::StrCat("\x80\2}("s, Text4("w"), "ctorch._utils\n_rebuild_tensor_v2\n((", Text4("storage"),
                      "ctorch\nFloatStorage\n", Text4("0"), Text4("cpu"), "K\x06tQK\0"s, sizes, strides, "\x89N",
                      "tRu.");
}

Inputs PickleFailures() {
  // Two long texts, named again and again: terabytes of globals.
  std::string globals = "\x80\2("s + Text4(std::string(100'000, 'm')) + "q\0"s;
  for (int i = 0; i < 20'000; ++i) globals += "h\0h\0\x93"s;
  return {globals + "t.", "\x80\2NN\x93."s};
}

Inputs StateDictFailures() {
  const std::string million = "J\0\0\x10\0"s;
  // A dictionary in itself, twice: names without end.
  const std::string self = absl::StrCat("\x80\2}q\0("s, Text4("k"), "h\0"s, Text4("kk"), "h\0"s, "u.");
  std::string wide = "\x80\2}q\0("s;
  for (int i = 0; i < 30'000; ++i) wide += Text4(absl::StrCat(i)) + "K\1";
  wide += absl::StrCat("u0}(", Text4("a"), "h\0"s);
  for (int i = 0; i < 30'000; ++i) wide += Text4(absl::StrCat("b", i)) + "h\0"s;
  return {self, wide + "u.", PickledTensor(million + million + "\x86", "K\0K\0\x86"s),
          PickledTensor("\x8a\x08\0\0\0\0\0\1\0\0\x8a\x08\0\0\0\0\0\1\0\0\x86"s, "K\0K\0\x86"s),
          PickledTensor("K\0\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x87"s, "K\1K\1K\1\x87")};
}

Inputs NpyFailures() {
  const std::string huge = "9223372036854775807";
  std::string ones = "1";
  for (int i = 0; i < 80; ++i) ones += ", 1";
  return {// extents and dimensions that LibTorch throws at, sooner or later
          NpyOf(absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': (0, ", huge, ", ", huge, "), }\n"), ""),
          NpyOf(absl::StrCat("{'descr': '<f4', 'fortran_order': True, 'shape': (", ones, "), }\n"), "abcd")};
}

Inputs NpzFailures() {
  const std::string array =
      NpyOf("{'descr': '|u1', 'fortran_order': False, 'shape': (2000,), }\n", std::string(2000, 'a'));
  std::string claims = ZipArchive({{"x.npy", array}}, /*deflated=*/true);
  const size_t entry = claims.find("PK\1\2"s);
  PutNumber(claims, entry + 24, 4, 0xfffffffe);  // four gigabytes, filled with zeros before anything was looked at
  // One array under a thousand names.
  std::string repeated = ZipArchive({{"x.npy", array}}, /*deflated=*/false);
  const size_t start = repeated.find("PK\1\2"s), end = repeated.find("PK\5\6"s);
  std::string directory;
  for (int i = 0; i < 60'000; ++i) directory += repeated.substr(start, end - start);
  repeated = repeated.substr(0, start) + directory + repeated.substr(end);
  const size_t last = repeated.find("PK\5\6"s, start + directory.size());
  PutNumber(repeated, last + 8, 2, 60'000);
  PutNumber(repeated, last + 10, 2, 60'000);
  return {claims, repeated};
}

Inputs TableFailures() {
  return {"x\nNA\n1\n\n2\n",                    // rows of one missing cell went away when they were written
          "x,y\ninf,-inf\n-nan,nan(1)\n",       // infinity was written as null
          "x,y\n007,1e5\nname,word\n1.50,2\n",  // texts became what they look like as numbers
          "007,inf,,True\n1,2,3,4\n",           // and so did names of columns
          "a,a\n1,2\n"};                        // an error without the file's name
}

Inputs SparseLines() {
  std::string lines;
  for (int i = 0; i < 20'000; ++i) absl::StrAppend(&lines, "{\"k", i, "\": 1}\n");
  return {lines, "{\"a\": 18446744073709551615}\n{\"a\": 1}\n", "{\"a\": " + Nested(100'000) + "}\n"};
}

Inputs YamlFailures() {
  std::string laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    absl::StrAppend(&laughs, "a", i, ": &a", i, " [");
    for (int k = 0; k < 10; ++k) absl::StrAppend(&laughs, k > 0 ? ", " : "", "*a", i - 1);
    laughs += "]\n";
  }
  std::string text = absl::StrCat("a: &a ", std::string(50'000, 'x'), "\nb: [*a");
  for (int i = 0; i < 20'000; ++i) text += ", *a";
  return {laughs, text + "]\n", "a: &a [*a, *a]\n", std::string(3000, '['), "x: nan(1)\n"};
}

Inputs RunConfigFailures() {
  const auto optim = [](const std::string& pattern) {
    return absl::StrCat("{\"steps\": 1, \"optim\": {\"type\": \"sgd\", \"param_groups\": [{\"pattern\": \"", pattern,
                        "\"}]}}");
  };
  // An expression's compiler overflowed the stack; a product left the integers.
  return {"{\"x\": " + Nested(120'000) + "}", optim(std::string(200'000, '(')), optim(std::string(900, '(')),
          "{\"steps\": 9223372036854775807, \"optim\": {\"type\": \"sgd\", \"lr\": 1}, \"sched\": {\"type\": "
          "\"cosine\", \"warmup_ratio\": 1, \"cooldown_ratio\": 1}}"};
}

Inputs OverrideFailures() {
  std::string path = "a";
  for (int i = 0; i < 100'000; ++i) path += ".a";
  return {path + "\n1\n{}", "a.b..c\n1\n{}", "a\n" + Nested(100'000) + "\n{}"};
}

Inputs JpegFailures() {
  std::string large = JpegOf(24, 24, {.grey = true});  // a gigabyte of grey, promised by a few bytes
  PutNumber(large, large.find("\xff\xc0"s) + 5, 4, 0x3fff3fff, /*big_endian=*/true);
  // Each scan goes over the whole image, however few bytes it has.
  const std::string scans = JpegOf(64, 64, {.grey = true, .progressive = true, .scan_per_number = true});
  // A mark in the middle says that this is all: smoothed at the edges of a window, not at those of the whole.
  std::string part = JpegOf(33, 65, {.progressive = true, .across = 2});
  part[part.rfind("\xff\xc4"s) + 1] = '\xd9';
  return {large, scans, part};
}

Inputs PngFailures() {
  std::string large = ImageSeedsOf("png")[0];
  PutNumber(large, 16, 8, 0x00003fff00003fff, /*big_endian=*/true);
  PutNumber(large, 29, 4, crc32(0, reinterpret_cast<const Bytef*>(large.data() + 12), 17), /*big_endian=*/true);
  return {large};
}

// A gigabyte of one colour, or of nothing: of formats that need next to no bytes for it.
Inputs WebpFailures() {
  std::string large = ImageSeedsOf("webp")[1];
  PutNumber(large, large.find("VP8L"s) + 9, 4, 0x0fffffff);
  return {large};
}

Inputs BmpFailures() {
  std::string large = ImageSeedsOf("bmp")[6];
  PutNumber(large, 18, 4, 0x4000);
  PutNumber(large, 22, 4, 0x4000);
  return {large};
}

}  // namespace

std::vector<std::string> FormerReaderFailuresOf(const std::string& target) {
  const std::string nested = Nested(100'000);
  if (target == "pickle") return PickleFailures();
  if (target == "state_dict_pickle") return StateDictFailures();
  if (target == "npy") return NpyFailures();
  if (target == "npz") return NpzFailures();
  if (target == "safetensors") {
    return {SafetensorsOf("{\"a\": " + nested + "}", ""),
            SafetensorsOf("{\"a\":{\"dtype\":\"F32\",\"shape\":[0,4611686018427387904,4611686018427387904],"
                          "\"data_offsets\":[0,0]}}",
                          "")};
  }
  if (target == "idx") {
    return {"\0\0\x08\5\0\0\0\0"s + std::string(16, '\xff'), "\0\0\x08\x64"s + std::string(396, '\0') + "\0\0\0\1a"s};
  }
  if (target == "tokens") {
    std::string header(1024, '\0');
    PutNumber(header, 0, 4, 20240520);
    PutNumber(header, 8, 4, 0xfffffff0);  // fewer than none: the promise was not looked at
    return {header + std::string(40, '\1')};
  }
  if (target == "csv") return {"a\n1\n2\n", "1e300,1\n2,0\n", "1,1e300\n"};
  if (target == "table_csv") return TableFailures();
  if (target == "table_json_lines") return SparseLines();
  if (target == "json_lines" || target == "ragged_json_lines") {
    return {"{\"x\": " + nested + ", \"y\": 1}\n", "{\"x\": " + Nested(150) + ", \"y\": 1}\n",
            "{\"x\": " + Nested(63) + ", \"y\": 1}\n", "{\"x\": [1e300, -9223372036854775808], \"y\": 1e300}\n"};
  }
  if (target == "json_file") return {nested, "{\"a\": " + nested + "}\n"};
  if (target == "yaml") return YamlFailures();
  if (target == "run_config") return RunConfigFailures();
  if (target == "override") return OverrideFailures();
  if (target == "jpeg") return JpegFailures();
  if (target == "png") return PngFailures();
  if (target == "webp") return WebpFailures();
  if (target == "bmp") return BmpFailures();
  if (target == "zstd") {  // whole blocks of the decoder, written as one, were taken for a cut stream
    const std::string half = Pack(Compression::kZstd, std::string(65536, 'a')).value();
    return {half + half, Pack(Compression::kZstd, std::string(131072, 'a')).value()};
  }
  if (target == "manifest" || target == "checkpoint") {
    std::vector<std::string> failures;
    for (const int format : {1, 2}) {
      const std::string good = SampleManifest(format);
      // Meta as deep as that, and one shard for two ranks.
      failures.push_back(absl::StrReplaceAll(good, {{"\"epoch\":3", "\"epoch\":" + nested}}));
      failures.push_back(absl::StrReplaceAll(good, {{"b.safetensors", "a.safetensors"}}));
      Promise(failures.end()[-2] != good && failures.end()[-1] != good, "a manifest was changed");
    }
    return failures;
  }
  if (target == "checkpoint_shard") {
    return {
        SafetensorsOf("{\"__metadata__\":{\"athanor.rank_meta\":\"{\"},\"model.weight\":{\"dtype\":\"U8\",\"shape\":"
                      "[1],\"data_offsets\":[0,1]}}",
                      "a")};
  }
  // An exception that nothing caught.
  if (target == "vote") return {"{\"file\": \"a\", \"bytes\": \"8\", \"crc32c\": []}"};
  return {};
}

}  // namespace athanor::fuzz
