// Runs one function per rank, each on a thread with its own process group, over one store.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "athanor/parallel/process_group.h"
#include "gtest/gtest.h"

namespace athanor {

// `options`: all but who and where.
inline void RunRanks(int world_size, ProcessGroupOptions options, const std::function<void(ProcessGroup*)>& body) {
  auto store = HostStore::Create({});
  ASSERT_TRUE(store.ok()) << store.status();
  options.world_size = world_size;
  options.store_port = (*store)->port();
  options.prefix = "job/1";
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, mine = options, rank]() mutable {
      mine.rank = rank;
      if (rank == 0) mine.hosted_store = store->get();
      auto group = ProcessGroup::Create(mine);
      EXPECT_TRUE(group.ok()) << group.status();
      if (group.ok()) body(group->get());
    });
  }
  for (std::thread& thread : threads) thread.join();
}

inline void RunRanks(int world_size, bool shared_memory, const std::function<void(ProcessGroup*)>& body,
                     absl::Duration timeout = absl::Seconds(20), const std::string& backend = "auto") {
  ProcessGroupOptions options;
  options.timeout = timeout;
  options.shared_memory = shared_memory;
  options.backend = backend;
  RunRanks(world_size, options, body);
}

}  // namespace athanor
