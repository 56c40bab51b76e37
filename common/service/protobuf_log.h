// What protobuf itself says of a message that it cannot read: a line of the log (event "Protobuf"), and the field for
// whoever answers the caller.
#pragma once

#include <string>

namespace athanor {

void SendProtobufLogToLog();

// The field that made protobuf refuse the last message that this thread could not read, "athanor.v1.JobSpec.name";
// empty when it named none. Each is told once.
std::string TakeRefusedField();

}  // namespace athanor
