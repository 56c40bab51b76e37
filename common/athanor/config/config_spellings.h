// Other spellings of options, as users of other trainers and of other versions write them, brought to the one that
// RunnerConfig has.
//
//   std::vector<Respelling> done;
//   json = CanonicalSpellings(json, &done, &problems);      // {"score_name": "f1"} -> {"score": {"name": "f1"}}
//   problem.path = AsTyped(problem.path, done);             // "score.name" -> "score_name", where the user looks
//
// Pure; thread-safe.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/strings/string_view.h"
#include "athanor/config/reflection.h"

namespace athanor {

struct Respelling {
  std::string typed;      // dotted path in what the user wrote
  std::string canonical;  // where it went
};

// What is no other spelling stays as it is. A problem for an option that is there in both spellings. Sections of other
// trainers that are switched off ("wandb: {enabled: false}") are left out.
nlohmann::json CanonicalSpellings(nlohmann::json json, std::vector<Respelling>* done,
                                  std::vector<FieldProblem>* problems);

std::string AsTyped(const std::string& path, const std::vector<Respelling>& done);

// Every pair, typed first; for the manual.
std::vector<Respelling> KnownSpellings();

}  // namespace athanor
