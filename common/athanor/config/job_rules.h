// The fields of a job file around `runner`: THE table of what they mean, what is allowed and what stands in for an
// absent one. The command line reads job files by it, the coordinator checks requests by it, docs/job-files.md is made
// from it.
//
//   const JobField& field = JobFieldAt("resources.ranks");
//   if (!InRange(field, 5000)) ... << "allowed: integer from " << field.low() << " to " << field.high();
//   if (!IsChoice(field, "tpu")) ... << AllowedChoices(field);   // "cpu, cuda"
//
// Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "athanor/config/reflection.h"

namespace athanor {

enum class JobFieldKind { kName, kText, kInteger, kNumber, kBoolean, kChoice, kDuration, kMap };

struct JobField {
  FieldRule rule;  // its name is the whole path: "resources.ranks"; "env.*" stands for every name
  JobFieldKind kind = JobFieldKind::kText;
  absl::string_view fallback;  // where the field is absent, as it would be written; empty: none

  int64_t low() const { return static_cast<int64_t>(rule.min); }
  int64_t high() const { return static_cast<int64_t>(rule.max); }
};

inline constexpr absl::Duration kMaxJobDuration = absl::Hours(24 * 30);

std::span<const JobField> JobFields();  // in the order of the manual
// The process ends where there is none: paths are literals.
const JobField& JobFieldAt(absl::string_view path);
// The keys that may stand in a section, "resources" or "" for the whole file, in the order of the manual.
std::vector<std::string> JobKeys(absl::string_view section);
// Of kInteger, kNumber.
bool InRange(const JobField& field, double value);
// Of kChoice.
bool IsChoice(const JobField& field, absl::string_view text);
std::string AllowedChoices(const JobField& field);

// docs/job-files.md, whole.
std::string JobFilesMarkdown();

}  // namespace athanor
