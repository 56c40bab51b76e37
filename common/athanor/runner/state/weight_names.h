// Which tensors of a file are those of a module: names that wrappers of Python have lengthened. Internal to the module.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace athanor {

struct NameMap {
  std::map<std::string, std::string> names;  // of the file -> of the module, or what there is none for
  std::string prefix;                        // what was left off in front of the names that are taken; "": nothing
};

// `rules`: expressions (ECMAScript) and their replacements, applied in order to every name. Besides them, where more
// names fit so: what wrappers add within a name ("_orig_mod.", "_fsdp_wrapped_module.") goes, and a prefix made of the
// usual parts ("module.", "state_dict.model.", "model_state_dict."), also when only some of the names have it; of two
// that fit equally that of an average of the weights ("ema.") is taken, then the shorter one. Names that fit as they
// are stay. Pure. INVALID_ARGUMENT: a rule is no expression, or two names become one.
absl::StatusOr<NameMap> MapNames(const std::vector<std::string>& file, const std::set<std::string>& module,
                                 const std::vector<std::pair<std::string, std::string>>& rules);

}  // namespace athanor
