// Names of checkpoints on disk, for programs without the service (there the coordinator keeps them):
// <root>/<alias>.pointer is a text file whose one line is the name of a checkpoint's folder. A pointer is written after
// its checkpoint is complete, and replaced atomically.
//
// Thread-safe for different roots; one writer per root.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace athanor {

// True for letters, digits, '.', '_' and '-', not '.' first, at most 128 bytes, and not a checkpoint folder's own name.
bool IsAliasName(const std::string& alias);

// INVALID_ARGUMENT for a name that is none.
absl::Status PointAlias(const std::string& root, const std::string& alias, int64_t step);
void RemoveAlias(const std::string& root, const std::string& alias);

// alias -> step. Pointers that do not hold the name of a checkpoint folder are left out.
std::map<std::string, int64_t> ReadAliases(const std::string& root);
// The step that `<path>.pointer`, or the pointer file `path` itself, names.
std::optional<int64_t> ReadPointer(const std::string& path);

inline constexpr char kPointerSuffix[] = ".pointer";

}  // namespace athanor
