// Good inputs of what the library reads: where mutations start; and what once broke it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "athanor/checkpoint/file_checkpoint_manager.h"

namespace athanor::fuzz {

std::vector<std::string> ReaderSeedsOf(const std::string& target);
std::vector<std::string> ImageSeedsOf(const std::string& target);  // jpeg, png, webp, bmp
std::vector<std::string> FormerReaderFailuresOf(const std::string& target);

// What torch.save makes of this pickle and two storages, "0" and "1", of 24 bytes. `byte_order`: "big", "little", or
// empty as in old versions.
std::string TorchArchive(std::string_view pickle, std::string_view byte_order = "");
// An archive with one entry per pair, deflated or stored.
std::string ZipArchive(const std::vector<std::pair<std::string, std::string>>& entries, bool deflated);
struct JpegKind {
  int quality = 50;
  bool grey = false, progressive = false, inks = false;  // inks: cyan, magenta, yellow, black
  int across = 1, down = 1;                              // luma samples per colour sample
  bool scan_per_number = false;                          // of grey: two scans for each of the 63 numbers of a block
};
std::string JpegOf(int height, int width, const JpegKind& kind);

// A checkpoint of two ranks below `root`.
ResumeCandidate WriteSampleCheckpoint(const std::string& root, int64_t step);
std::string SampleManifest(int format);  // and the shards that it names, into the scratch folder

// Folders in the scratch folder, as ConvertTensors() and the real DeepSpeed have written them.
std::string SampleTorchDistributed(const std::string& folder);
std::string SampleDeepSpeed(const std::string& folder);
inline constexpr char kDeepSpeedPartition[] = "zero_pp_rank_1_mp_rank_00_optim_states.pt";
inline constexpr char kDeepSpeedModel[] = "mp_rank_00_model_states.pt";

}  // namespace athanor::fuzz
