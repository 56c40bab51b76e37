#include "client/byte_size.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace athanor {

absl::StatusOr<int64_t> ParseByteSize(const std::string& text) {
  const absl::Status wrong = absl::InvalidArgumentError(
      absl::StrCat("found '", text, "'; allowed: a number of bytes, such as 5GB, 80GiB or 1048576"));
  const size_t end = text.find_first_not_of("0123456789.");
  double number = 0;
  if (!absl::SimpleAtod(text.substr(0, end), &number)) return wrong;
  const std::string unit =
      end == std::string::npos ? "" : absl::AsciiStrToLower(absl::StripAsciiWhitespace(text.substr(end)));
  double factor = 0;
  if (unit.empty() || unit == "b") factor = 1;
  constexpr char kPrefixes[] = "kmgtp";
  for (int i = 0; i < 5; ++i) {
    const std::string prefix(1, kPrefixes[i]);
    if (unit == prefix + "b") factor = std::pow(1000.0, i + 1);
    if (unit == prefix + "ib") factor = std::pow(1024.0, i + 1);
  }
  const double bytes = std::floor(number * factor);
  if (factor == 0 || bytes < 1 || bytes >= std::ldexp(1.0, 63)) return wrong;
  return static_cast<int64_t>(bytes);
}

}  // namespace athanor
