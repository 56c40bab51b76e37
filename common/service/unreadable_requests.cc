#include "common/service/unreadable_requests.h"

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/service/protobuf_log.h"

namespace athanor {
namespace {

// No method of ours says UNIMPLEMENTED itself.
class UnreadableRequest : public grpc::experimental::Interceptor {
 public:
  explicit UnreadableRequest(const char* method) : method_(method) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS) &&
        batch->GetSendStatus().error_code() == grpc::StatusCode::UNIMPLEMENTED) {
      const std::string field = TakeRefusedField();
      batch->ModifySendStatus(grpc::Status(
          grpc::StatusCode::INVALID_ARGUMENT,
          field.empty() ? absl::StrCat("the request of ", method_, " cannot be read: it is no message of its type")
                        : absl::StrCat("the request of ", method_, " cannot be read: ", field,
                                       " is not UTF-8; allowed: UTF-8 text")));
    }
    batch->Proceed();
  }

 private:
  const char* const method_;
};

class UnreadableRequests : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    const bool streams = info->type() == grpc::experimental::ServerRpcInfo::Type::BIDI_STREAMING;
    return streams || !absl::StartsWith(info->method(), "/athanor.") ? nullptr : new UnreadableRequest(info->method());
  }
};

}  // namespace

void NameUnreadableRequests(grpc::ServerBuilder& builder) {
  SendProtobufLogToLog();  // it names the field of a request that cannot be read
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<UnreadableRequests>());
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
}

}  // namespace athanor
