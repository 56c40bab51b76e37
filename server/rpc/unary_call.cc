#include "server/rpc/unary_call.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace athanor {

absl::Status Authorize(const RpcContext& rpc, const grpc::CallbackServerContext& context) {
  if (rpc.token.empty()) return absl::OkStatus();
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find("authorization");
  const std::string wanted = absl::StrCat("Bearer ", rpc.token);
  if (it != metadata.end() && it->second.size() == wanted.size() &&
      CRYPTO_memcmp(it->second.data(), wanted.data(), wanted.size()) == 0) {
    return absl::OkStatus();
  }
  return absl::UnauthenticatedError(it == metadata.end()
                                        ? "this coordinator asks for a token: give --token-file"
                                        : "the token given is not this coordinator's: check --token-file");
}

std::string RequestDigest(const char* method, const google::protobuf::MessageLite& request) {
  std::string bytes(method);
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // maps in one order
    coded.WriteString("\n");
    request.SerializeToCodedStream(&coded);
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), 16));
}

}  // namespace athanor
