// Ranks as threads of one process, connected by Peers, and a board on which they tell their addresses.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "athanor/parallel/transport/peers.h"
#include "gtest/gtest.h"

namespace athanor {

// Texts by (number of the exchange, rank).
class AddressBoard {
 public:
  explicit AddressBoard(int world_size) : world_size_(world_size) {}

  AddressExchange Of(int rank) {
    return [this, rank, round = 0](const std::string& mine) mutable -> absl::StatusOr<std::vector<std::string>> {
      std::unique_lock lock(mutex_);
      std::map<int, std::string>& told = told_[round++];
      told[rank] = mine;
      changed_.notify_all();
      const auto all = [&] { return static_cast<int>(told.size()) == world_size_; };
      if (!changed_.wait_for(lock, std::chrono::seconds(20), all)) {
        return absl::DeadlineExceededError(absl::StrCat(told.size(), " of ", world_size_, " ranks have come"));
      }
      std::vector<std::string> texts;
      for (const auto& [unused, text] : told) texts.push_back(text);
      return texts;
    };
  }

 private:
  const int world_size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, std::map<int, std::string>> told_;
};

// Which ranks share memory: all, none, or (as on two machines) the even and the odd ones among themselves.
enum class Wiring { kMemory, kSockets, kMixed };

inline AddressExchange Wired(AddressExchange exchange, Wiring wiring, int rank) {
  if (wiring != Wiring::kMixed) return exchange;
  return [exchange = std::move(exchange), rank](const std::string& mine) -> absl::StatusOr<std::vector<std::string>> {
    auto texts = exchange(mine);
    if (!texts.ok()) return texts;
    for (size_t peer = 0; peer < texts->size(); ++peer) {
      std::string& text = (*texts)[peer];
      if (peer % 2 != static_cast<size_t>(rank) % 2) text = text.substr(0, text.find('|')) + "|none";
    }
    return texts;
  };
}

inline void RunRankThreads(int world_size, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) threads.emplace_back([&, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace athanor
