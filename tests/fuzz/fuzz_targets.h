// What the service reads.
#pragma once

#include <string_view>

#include "tests/fuzz/target.h"

namespace athanor::fuzz {

// The first line is the key of a record, the rest its value. What is accepted can be printed, and comes back the same.
void RecordCodec(std::string_view input);
// A serialized athanor.v1.JobSpec. What is accepted can be stored and read back.
void JobSpec(std::string_view input);
// The same request, its texts taken from the lines of the input: name, task, options, runner, device, key, reference.
void JobSpecText(std::string_view input);

inline constexpr NamedTarget kTargets[] = {
    {"record_codec", &RecordCodec}, {"job_spec", &JobSpec}, {"job_spec_text", &JobSpecText}};

}  // namespace athanor::fuzz
