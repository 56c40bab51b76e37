// Text fields of messages. A proto3 string that is not UTF-8 is sent all the same, but the receiver refuses the whole
// message and, on a stream, the stream: the sender looks first.
#pragma once

#include <google/protobuf/message.h>

#include <string>

namespace athanor {

// Where the first text stops being UTF-8: "spec.labels[team]: byte 3", "spec.labels, a name: byte 1"; empty
// when all is.
std::string FindInvalidText(const google::protobuf::Message& message);

// Replaces what is not UTF-8 in every text, keys of maps included. For text that was read from files, processes and the
// user's code, where half a message is better than none.
void MakeTextValid(google::protobuf::Message* message);

}  // namespace athanor
