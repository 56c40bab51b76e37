#include "tests/fuzz/reader_mutations.h"

#include <zlib.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"

namespace athanor::fuzz {
namespace {

using std::literals::string_view_literals::operator""sv;

template <size_t kCount>
std::string_view OneOf(Mutator& random, const std::string_view (&choices)[kCount]) {
  return choices[random.Below(kCount)];
}

// Starts of all occurrences.
std::vector<size_t> Places(const std::string& text, std::string_view of) {
  std::vector<size_t> places;
  for (size_t at = text.find(of); at != std::string::npos; at = text.find(of, at + 1)) places.push_back(at);
  return places;
}

// One list or mapping, string, or number of a text: begin and length.
struct Piece {
  size_t at = 0, size = 0;
};
Piece PieceAt(const std::string& text, size_t at) {
  const size_t begin = text.find_first_of("[{\"0123456789", at);
  if (begin == std::string::npos) return {std::min(at, text.size()), 0};
  if (text[begin] == '"') {
    const size_t end = text.find('"', begin + 1);
    return {begin, (end == std::string::npos ? text.size() : end + 1) - begin};
  }
  if (text[begin] != '[' && text[begin] != '{')
    return {begin, std::min(text.find_first_not_of("0123456789.eE+-", begin), text.size()) - begin};
  int depth = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    depth += text[i] == '[' || text[i] == '{' ? 1 : text[i] == ']' || text[i] == '}' ? -1 : 0;
    if (depth == 0) return {begin, i + 1 - begin};
  }
  return {begin, text.size() - begin};
}

}  // namespace

void MutateText(Mutator& random, std::string& input) {
  static constexpr std::string_view kWords[] = {"null"sv,
                                                "true"sv,
                                                "false"sv,
                                                "[]"sv,
                                                "{}"sv,
                                                "\"\""sv,
                                                "-1"sv,
                                                "0"sv,
                                                "1e999"sv,
                                                "1e300"sv,
                                                "-0.0"sv,
                                                "0.5"sv,
                                                "1e18"sv,
                                                "NaN"sv,
                                                "inf"sv,
                                                "-nan"sv,
                                                "[[]]"sv,
                                                "[1,[2]]"sv,
                                                "[1, 2, 3]"sv,
                                                "{\"a\": {}}"sv,
                                                "\"\\ud800\""sv,
                                                "\xc3\x28"sv,
                                                "\xef\xbb\xbf"sv,
                                                "\r\n"sv,
                                                "\n"sv,
                                                "\t"sv,
                                                "\"\n\""sv,
                                                "~"sv,
                                                "&a [*a]"sv,
                                                "*a"sv,
                                                "!!int 3"sv,
                                                "? "sv,
                                                "- "sv,
                                                "|\n"sv,
                                                "<<: *a"sv,
                                                "%YAML 1.2\n---\n"sv,
                                                "#"sv,
                                                "9223372036854775807"sv,
                                                "9223372036854775808"sv,
                                                "18446744073709551615"sv,
                                                "-9223372036854775808"sv,
                                                "9007199254740993"sv};
  const Piece piece = PieceAt(input, random.Below(input.size()));
  const Piece other = PieceAt(input, random.Below(input.size()));
  switch (random.Below(5)) {
    case 0:
      input.replace(piece.at, piece.size, OneOf(random, kWords));
      return;
    case 1:
      input.insert(piece.at, OneOf(random, kWords));
      return;
    case 2:
      if (input.size() < 1 << 14) input.replace(piece.at, piece.size, input.substr(other.at, other.size));
      return;
    case 3:
      if (input.size() < 1 << 14)
        input.replace(piece.at, piece.size, absl::StrCat("[", input.substr(piece.at, piece.size), "]"));
      return;
    default:
      input.erase(piece.at, piece.size);
  }
}

void MutateSafetensors(Mutator& random, std::string& input) {
  if (input.size() < 8) return;
  const uint64_t length = std::min<uint64_t>(GetNumber(input, 0, 8), input.size() - 8);
  std::string header = input.substr(8, length);
  if (random.Below(2) == 0) {
    MutateText(random, header);
  } else {
    random.Mutate(header, header);
  }
  input.replace(8, length, header);
  PutNumber(input, 0, 8, random.Below(16) == 0 ? random.Edge() : header.size());
}

void MutatePickle(Mutator& random, std::string& input) {
  static constexpr std::string_view kCodes[] = {"("sv,
                                                ")"sv,
                                                "]"sv,
                                                "}"sv,
                                                "N"sv,
                                                "\x88"sv,
                                                "\x89"sv,
                                                "K\x02"sv,
                                                "M\xff\xff"sv,
                                                "J\xff\xff\xff\xff"sv,
                                                "t"sv,
                                                "\x85"sv,
                                                "\x86"sv,
                                                "\x87"sv,
                                                "a"sv,
                                                "e"sv,
                                                "s"sv,
                                                "u"sv,
                                                "R"sv,
                                                "\x81"sv,
                                                "b"sv,
                                                "0"sv,
                                                "Q"sv,
                                                "q\x07"sv,
                                                "\x94"sv,
                                                "h\x07"sv,
                                                "h\x00"sv,
                                                "\x93"sv,
                                                "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"sv,
                                                "\x8c\x01w"sv,
                                                "X\x01\x00\x00\x00k"sv,
                                                "X\xff\xff\xff\xff"sv,
                                                "ccollections\nOrderedDict\n"sv,
                                                "G@\x00\x00\x00\x00\x00\x00\x00"sv,
                                                "."sv,
                                                "\x95\xff\xff\xff\xff\xff\xff\xff\xff"sv,
                                                "\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01"sv,
                                                "B\x02\x00\x00\x00zz"sv};
  const size_t at = random.Below(input.size() + 1);
  switch (random.Below(4)) {
    case 0:
      input.insert(at, OneOf(random, kCodes));
      return;
    case 1: {
      const std::string_view code = OneOf(random, kCodes);
      input.replace(at, code.size(), code);
      return;
    }
    case 2: {  // a length, an index, an extent
      const std::vector<size_t> numbers = Places(input, OneOf(random, {"K"sv, "M"sv, "J"sv, "\x8a"sv, "X"sv, "h"sv}));
      if (!numbers.empty())
        PutNumber(input, numbers[random.Below(numbers.size())] + 1, 1 + random.Below(8), random.Edge());
      return;
    }
    default:  // a piece again
      if (input.size() < 1 << 14) input.insert(at, input.substr(random.Below(input.size() + 1), random.Below(48)));
  }
}

// Fields of local headers, the directory and its end.
void MutateZip(Mutator& random, std::string& input) {
  struct Field {
    std::string_view mark;
    size_t at, width;
  };
  static constexpr Field kFields[] = {
      {"PK\x03\x04"sv, 6, 2},  {"PK\x03\x04"sv, 8, 2},  {"PK\x03\x04"sv, 14, 4}, {"PK\x03\x04"sv, 18, 4},
      {"PK\x03\x04"sv, 22, 4}, {"PK\x03\x04"sv, 26, 2}, {"PK\x03\x04"sv, 28, 2}, {"PK\x01\x02"sv, 8, 2},
      {"PK\x01\x02"sv, 10, 2}, {"PK\x01\x02"sv, 16, 4}, {"PK\x01\x02"sv, 20, 4}, {"PK\x01\x02"sv, 24, 4},
      {"PK\x01\x02"sv, 28, 2}, {"PK\x01\x02"sv, 30, 2}, {"PK\x01\x02"sv, 32, 2}, {"PK\x01\x02"sv, 42, 4},
      {"PK\x05\x06"sv, 8, 2},  {"PK\x05\x06"sv, 10, 2}, {"PK\x05\x06"sv, 12, 4}, {"PK\x05\x06"sv, 16, 4},
      {"PK\x05\x06"sv, 20, 2}, {"PK\x06\x06"sv, 24, 8}, {"PK\x06\x06"sv, 40, 8}, {"PK\x06\x07"sv, 8, 8}};
  const Field& field = kFields[random.Below(std::size(kFields))];
  const std::vector<size_t> places = Places(input, field.mark);
  if (places.empty()) return;
  const size_t at = places[random.Below(places.size())] + field.at;
  switch (random.Below(3)) {
    case 0:
      PutNumber(input, at, field.width, random.Edge());
      return;
    case 1:
      PutNumber(input, at, field.width, GetNumber(input, at, field.width) + random.Below(9) - 4);
      return;
    default:  // what stands there in another entry
      PutNumber(input, at, field.width, GetNumber(input, places[random.Below(places.size())] + field.at, field.width));
  }
}

// Another piece in this one's place, none, or another behind it: kinds 0 to 2 of the mutations of files of pieces.
static bool Rearrange(uint64_t kind, const std::string& input, const Piece& other, std::string& bytes) {
  if (kind > 2) return false;
  if (kind == 0) bytes = input.substr(other.at, other.size);
  if (kind == 1) bytes.clear();
  if (kind == 2 && input.size() < 1 << 14) bytes += input.substr(other.at, other.size);
  return true;
}

void MutatePng(Mutator& random, std::string& input) {
  constexpr size_t kSignature = 8, kFrame = 12;  // length, type and checksum of a chunk
  std::vector<Piece> chunks;
  for (size_t at = kSignature; at + kFrame <= input.size();) {
    const size_t size = GetNumber(input, at, 4, true);
    if (size > input.size() - at - kFrame) break;
    chunks.push_back({at, size + kFrame});
    at += size + kFrame;
  }
  if (chunks.empty()) return;
  const Piece chunk = chunks[random.Below(chunks.size())], other = chunks[random.Below(chunks.size())];
  std::string bytes = input.substr(chunk.at, chunk.size);
  std::string data = bytes.substr(8, bytes.size() - kFrame);
  const auto kind = random.Below(6);
  if (Rearrange(kind, input, other, bytes)) {
    input.replace(chunk.at, chunk.size, bytes);
    return;
  }
  switch (kind) {
    case 3: {  // another kind of chunk
      static constexpr std::string_view kTypes[] = {"IHDR"sv, "PLTE"sv, "IDAT"sv, "IEND"sv, "tRNS"sv, "gAMA"sv,
                                                    "cHRM"sv, "sRGB"sv, "iCCP"sv, "zTXt"sv, "sBIT"sv, "bKGD"sv};
      bytes.replace(4, 4, OneOf(random, kTypes));
      PutNumber(bytes, bytes.size() - 4, 4,
                crc32(0, reinterpret_cast<const Bytef*>(bytes.data() + 4), static_cast<uInt>(data.size() + 4)), true);
      break;
    }
    default:
      random.Mutate(data, input);
      bytes = bytes.substr(0, 8) + data + "1234";
      PutNumber(bytes, 0, 4, data.size(), true);
      PutNumber(bytes, bytes.size() - 4, 4,
                crc32(0, reinterpret_cast<const Bytef*>(bytes.data() + 4), static_cast<uInt>(data.size() + 4)), true);
  }
  input.replace(chunk.at, chunk.size, bytes);
}

void MutateJpeg(Mutator& random, std::string& input) {
  std::vector<Piece> segments;  // up to the coded data
  for (size_t at = 2; at + 4 <= input.size() && input[at] == '\xff';) {
    const size_t size = 2 + GetNumber(input, at + 2, 2, true);
    if (size > input.size() - at) break;
    segments.push_back({at, size});
    // Behind a scan: the next mark that is none of its own.
    at += size;
    if (input[segments.back().at + 1] != '\xda') continue;
    while (at + 1 < input.size() && (input[at] != '\xff' || input[at + 1] == 0 || (input[at + 1] & 0xf8) == 0xd0)) ++at;
  }
  if (segments.empty()) return;
  const Piece segment = segments[random.Below(segments.size())], other = segments[random.Below(segments.size())];
  std::string bytes = input.substr(segment.at, segment.size);
  const auto kind = random.Below(6);
  if (Rearrange(kind, input, other, bytes)) {
    input.replace(segment.at, segment.size, bytes);
    return;
  }
  switch (kind) {
    case 3:
      if (bytes.size() > 1) bytes[1] = static_cast<char>(0xc0 + random.Below(64));
      break;
    default:
      if (bytes.size() > 4) bytes[4 + random.Below(bytes.size() - 4)] = static_cast<char>(random.Edge());
      // An image of some size: what is promised must be found.
      if (bytes.size() > 9 && (bytes[1] & 0xf0) == 0xc0 && random.Below(2) == 0)
        PutNumber(bytes, 5 + 2 * random.Below(2), 2, 1 + random.Below(300), true);
  }
  input.replace(segment.at, segment.size, bytes);
}

}  // namespace athanor::fuzz
