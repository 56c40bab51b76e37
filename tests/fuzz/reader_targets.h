// What the library reads: files that others wrote. An error is a status of the documented codes that names the file;
// what was accepted can be used, and comes back the same from the writer where there is one.
#pragma once

#include <string_view>

#include "tests/fuzz/reader_mutations.h"
#include "tests/fuzz/target.h"

namespace athanor::fuzz {

// reader_targets_tensors.cc
void Safetensors(std::string_view input);
void Pickle(std::string_view input);
void StateDict(std::string_view input);        // the archive
void StateDictPickle(std::string_view input);  // its pickle, in a good archive
void Npy(std::string_view input);
void Npz(std::string_view input);
void Idx(std::string_view input);
void Cifar(std::string_view input);
void Tokens(std::string_view input);
// reader_targets_text.cc
void Csv(std::string_view input);
void TableCsv(std::string_view input);
void TableJsonLines(std::string_view input);
void JsonLines(std::string_view input);
void RaggedJsonLines(std::string_view input);
void JsonFile(std::string_view input);
void Yaml(std::string_view input);
void RunConfig(std::string_view input);  // JSON
void Override(std::string_view input);   // path, text and JSON, a line each
// reader_targets_images.cc
void Image(std::string_view input);
void Gzip(std::string_view input);
void Zstd(std::string_view input);
// reader_targets_checkpoint.cc
void ManifestText(std::string_view input);
void Checkpoint(std::string_view input);       // the manifest in a folder with good shards
void CheckpointShard(std::string_view input);  // a shard under a manifest with its checksum
void Vote(std::string_view input);
void Pointer(std::string_view input);

// reader_targets_exchange.cc
void TorchDistributedMetadata(std::string_view input);  // of a folder with good data
void DeepSpeedPartition(std::string_view input);        // a rank's file in a good folder
void DeepSpeedModel(std::string_view input);            // the model's states in one

inline constexpr NamedTarget kReaderTargets[] = {
    {"safetensors", &Safetensors, 8000, &MutateSafetensors},
    {"pickle", &Pickle, 60000, &MutatePickle},
    {"state_dict", &StateDict, 5000, &MutateZip},
    {"state_dict_pickle", &StateDictPickle, 5000, &MutatePickle},
    {"npy", &Npy, 10000, &MutateText},
    {"npz", &Npz, 10000, &MutateZip},
    {"idx", &Idx, 10000, nullptr},
    {"cifar", &Cifar, 10000, nullptr},
    {"tokens", &Tokens, 10000, nullptr},
    {"csv", &Csv, 10000, &MutateText},
    {"table_csv", &TableCsv, 20000, &MutateText},
    {"table_json_lines", &TableJsonLines, 20000, &MutateText},
    {"json_lines", &JsonLines, 10000, &MutateText},
    {"ragged_json_lines", &RaggedJsonLines, 10000, &MutateText},
    {"json_file", &JsonFile, 10000, &MutateText},
    {"yaml", &Yaml, 5000, &MutateText},
    {"run_config", &RunConfig, 5000, &MutateText},
    {"override", &Override, 20000, &MutateText},
    {"jpeg", &Image, 2000, &MutateJpeg},
    {"png", &Image, 5000, &MutatePng},
    {"webp", &Image, 5000, nullptr},
    {"bmp", &Image, 5000, nullptr},
    {"gzip", &Gzip, 5000, nullptr},
    {"zstd", &Zstd, 5000, nullptr},
    {"manifest", &ManifestText, 10000, &MutateText},
    {"checkpoint", &Checkpoint, 5000, &MutateText},
    {"checkpoint_shard", &CheckpointShard, 5000, &MutateSafetensors},
    {"vote", &Vote, 5000, &MutateText},
    {"pointer", &Pointer, 10000, nullptr},
    {"dcp_metadata", &TorchDistributedMetadata, 5000, &MutatePickle},
    {"deepspeed_partition", &DeepSpeedPartition, 2000, &MutateZip},
    {"deepspeed_model", &DeepSpeedModel, 2000, &MutateZip},
};

}  // namespace athanor::fuzz
