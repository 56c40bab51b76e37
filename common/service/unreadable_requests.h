// gRPC answers a request that it cannot parse with UNIMPLEMENTED and no word. With this, callers of our services read
// INVALID_ARGUMENT, the method and the field. Streams of requests are not covered: they read their messages themselves.
#pragma once

#include <grpcpp/server_builder.h>

namespace athanor {

void NameUnreadableRequests(grpc::ServerBuilder& builder);

}  // namespace athanor
