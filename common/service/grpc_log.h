// Where gRPC's own lines go: not to stderr in gRPC's format, but through the log of the program.
#pragma once

#include <string>

namespace athanor {

// For daemons, after SetUpLogging(): each line becomes an event "Grpc" of the same level; gRPC's debug lines only when
// GRPC_VERBOSITY asks for them.
void SendGrpcLogToLog();
// For the command line, whose messages are for people: "program: gRPC: text", errors included only when GRPC_VERBOSITY
// asks for them: what gRPC reports as an error is in the status of the call too.
void SendGrpcLogToStderr(const std::string& program);

}  // namespace athanor
