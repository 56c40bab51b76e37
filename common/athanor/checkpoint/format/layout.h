// Names of checkpoint files. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace athanor {

inline constexpr char kManifestFile[] = "manifest.json";

std::string CheckpointDirName(int64_t step);  // "step-000000000120"
std::optional<int64_t> StepOfDirName(const std::string& name);
// "shard-00001-of-00002-3f9a1c20.safetensors": the last part is of one process, so that two generations that write one
// step never touch each other's files.
std::string ShardFileName(int rank, int world_size, const std::string& attempt);
// True for a plain file name that a manifest may hold: no separator, no dot first, at most 255 bytes.
bool IsPlainFileName(const std::string& name);

}  // namespace athanor
