#include "common/service/grpc_status.h"

#include <string>
#include <string_view>

#include "athanor/base/utf8_text.h"

namespace athanor {

namespace {

// A message travels in the trailing metadata, of which gRPC takes 8 KiB: a longer one would arrive as another error.
std::string CutMessage(absl::string_view message) {
  constexpr size_t kMost = 6000;
  size_t encoded = 0, end = 0;
  for (; end < message.size() && encoded < kMost; ++end) {
    const auto byte = static_cast<unsigned char>(message[end]);
    encoded += byte < 0x20 || byte > 0x7e || byte == '%' ? 3 : 1;
  }
  const std::string_view text(message.data(), message.size());
  return end == message.size() ? ValidUtf8(text) : CutUtf8(text, end) + " …";
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), CutMessage(status.message()));
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace athanor
