#include "athanor/parallel/agree_on_status.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/torch/status.h"

namespace athanor {
namespace {

constexpr size_t kMessageLimit = 1000;
constexpr int kNoKind = -1;

// {code, kind, message…} as numbers that every transport of the group carries.
std::vector<double> Encode(const absl::Status& status) {
  const std::optional<FailureKind> kind = FailureKindOf(status);
  std::vector<double> numbers(2 + kMessageLimit);
  numbers[0] = static_cast<double>(status.code());
  numbers[1] = kind.has_value() ? static_cast<int>(*kind) : kNoKind;
  const absl::string_view message = status.message().substr(0, kMessageLimit);
  for (size_t i = 0; i < message.size(); ++i) numbers[2 + i] = static_cast<unsigned char>(message[i]);
  return numbers;
}

absl::Status Decode(int64_t rank, const std::vector<double>& numbers) {
  std::string message;
  for (size_t i = 2; i < numbers.size() && numbers[i] != 0; ++i)
    message += static_cast<char>(static_cast<unsigned char>(numbers[i]));
  absl::Status status(static_cast<absl::StatusCode>(static_cast<int>(numbers[0])),
                      absl::StrCat("rank ", rank, ": ", message));
  const int kind = static_cast<int>(numbers[1]);
  return kind == kNoKind ? status : WithFailureKind(std::move(status), static_cast<FailureKind>(kind));
}

}  // namespace

absl::Status AgreeOnStatus(const Membership& members, const absl::Status& mine) {
  if (!members.several()) return mine;
  ProcessGroup* const group = members.group();
  const int64_t failed = mine.ok() ? group->world_size() : group->rank();
  const absl::StatusOr<Agreement> first = group->AllAgree({failed});
  if (!first.ok()) return mine.ok() ? first.status() : mine;
  const int64_t lowest = first->min[0];
  if (lowest == group->world_size()) return absl::OkStatus();
  const std::vector<double> part = lowest == group->rank() ? Encode(mine) : std::vector<double>(2 + kMessageLimit);
  const absl::StatusOr<std::vector<double>> told = group->AllReduceSum(part);
  if (!mine.ok()) return mine;
  RETURN_IF_ERROR(told.status());
  return Decode(lowest, *told);
}

}  // namespace athanor
