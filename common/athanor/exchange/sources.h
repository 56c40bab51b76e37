// The kinds of TensorSource. Internal to the module.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "athanor/exchange/tensor_source.h"

namespace athanor {

using OpenedSource = absl::StatusOr<std::unique_ptr<TensorSource>>;

OpenedSource OpenCheckpointSource(const std::string& path);
OpenedSource OpenSafetensorsSource(const std::string& path);
OpenedSource OpenTorchSaveSource(const std::string& path);
OpenedSource OpenHuggingFaceSource(const std::string& folder);
OpenedSource OpenTorchDistributedSource(const std::string& folder);
OpenedSource OpenDeepSpeedSource(const std::string& path);

// Whether the path is a tag folder of DeepSpeed, or means one.
bool IsDeepSpeedFolder(const std::string& path);

inline constexpr char kTorchDistributedMetadata[] = ".metadata";
inline constexpr char kHuggingFaceIndex[] = "model.safetensors.index.json";
inline constexpr char kHuggingFaceFile[] = "model.safetensors";
inline constexpr char kHuggingFaceTorchIndex[] = "pytorch_model.bin.index.json";  // of torch.save's files
inline constexpr char kHuggingFaceTorchFile[] = "pytorch_model.bin";

}  // namespace athanor
