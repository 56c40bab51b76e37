// What killed writers and replaced saves leave in a store of checkpoints, and its removal. Rank 0, after a commit.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "athanor/checkpoint/committer.h"
#include "athanor/checkpoint/store/checkpoint_store.h"

namespace athanor {

// The names in a folder; none where it cannot be read.
std::set<std::string> FilesIn(const CheckpointStore& store, const std::string& folder);

// Removes shards and temporary files of attempts that died before their commit, and of the save that this one replaces:
// those of `before`, the folder's files when the save began, that are not among `shards`. What came later belongs to a
// save of the same step that is still under way, of this rank or another.
void RemoveLeftovers(CheckpointStore& store, const std::string& folder, const std::set<std::string>& before,
                     const std::vector<ShardInfo>& shards);

// Removes folders of steps below `step` that a killed writer left without a manifest. Commits are made in the order of
// the steps: what has none by now never will.
void RemoveUnfinished(CheckpointStore& store, int64_t step);

}  // namespace athanor
