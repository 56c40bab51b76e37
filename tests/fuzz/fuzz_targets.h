// What reads bytes that others wrote, each as one function of those bytes. A target must neither crash nor take long,
// whatever it gets; it aborts with a message when a promise of the code is broken.
#pragma once

#include <string_view>

namespace athanor::fuzz {

// The first line is the key of a record, the rest its value. What is accepted can be printed, and comes back the same.
void RecordCodec(std::string_view input);
// A serialized athanor.v1.JobSpec. What is accepted can be stored and read back.
void JobSpec(std::string_view input);
// The same request, its texts taken from the lines of the input: name, task, options, runner, device, key, reference.
void JobSpecText(std::string_view input);

using Target = void (*)(std::string_view input);
struct NamedTarget {
  const char* name;
  Target run;
};
inline constexpr NamedTarget kTargets[] = {
    {"record_codec", &RecordCodec}, {"job_spec", &JobSpec}, {"job_spec_text", &JobSpecText}};

}  // namespace athanor::fuzz
