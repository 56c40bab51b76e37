// Bytes that are no message of their type: where they go wrong, for whoever sent them and for the log.
#pragma once

#include <google/protobuf/descriptor.h>

#include <string>
#include <string_view>

namespace athanor {

// The first place at which `bytes` cannot be read as a message of `type`: "heartbeat.reports.id.job: byte 14: not
// UTF-8", "launched: byte 3: 200 bytes announced, 4 there". Empty when they can.
std::string WhyUnreadable(const google::protobuf::Descriptor& type, std::string_view bytes);

}  // namespace athanor
