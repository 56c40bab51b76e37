#include "athanor/contract/failure_cause.h"

namespace athanor {

const char* ToString(CauseKind kind) {
  // Names are literals: they end with a zero.
  return kind == CauseKind::kUnspecified ? "unspecified" : FactsOf(kind).name.data();
}

std::optional<CauseKind> CauseFromName(std::string_view name) {
  for (const CauseFacts& facts : kCauses) {
    if (facts.name == name) return facts.kind;
  }
  return std::nullopt;
}

std::vector<std::string> CauseNames() {
  std::vector<std::string> names;
  for (const CauseFacts& facts : kCauses) names.emplace_back(facts.name);
  return names;
}

const CauseFacts* CauseOfExit(int exit_code) {
  for (const CauseFacts& facts : kCauses) {
    if (facts.exit_code != kNoExitCode && facts.exit_code == exit_code) return &facts;
  }
  return nullptr;
}

}  // namespace athanor
