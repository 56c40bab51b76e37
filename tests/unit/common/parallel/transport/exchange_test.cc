#include "athanor/parallel/transport/exchange.h"

#include <numeric>
#include <random>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/unit/common/parallel/transport/rank_peers.h"

namespace athanor {
namespace {

using ::testing::HasSubstr;

void RunPeers(int world_size, Wiring wiring, const std::function<void(Peers&)>& body) {
  AddressBoard board(world_size);
  RunRankThreads(world_size, [&](int rank) {
    auto peers = Peers::Connect({.rank = rank,
                                 .world_size = world_size,
                                 .timeout = absl::Seconds(20),
                                 .shared_memory = wiring != Wiring::kSockets},
                                Wired(board.Of(rank), wiring, rank));
    ASSERT_TRUE(peers.ok()) << peers.status();
    body(**peers);
  });
}

absl::Time Soon() {
  return absl::Now() + absl::Seconds(20);
}

std::vector<char> Text(int from, int to, int round, size_t bytes) {
  std::vector<char> text(bytes);
  std::mt19937 random(static_cast<uint32_t>(from * 1000 + to * 100 + round));
  for (char& letter : text) letter = static_cast<char>(random());
  return text;
}

class ExchangeTest : public ::testing::TestWithParam<std::tuple<int, Wiring>> {};

INSTANTIATE_TEST_SUITE_P(Worlds, ExchangeTest,
                         ::testing::Combine(::testing::Values(2, 3, 4),
                                            ::testing::Values(Wiring::kMemory, Wiring::kSockets, Wiring::kMixed)));

TEST_P(ExchangeTest, EveryByteArrivesInOrder) {
  const auto [world, wiring] = GetParam();
  RunPeers(world, wiring, [world = world](Peers& peers) {
    // Below and above the rings' size; none at all; what is received comes in pieces cut otherwise than it was sent.
    const std::vector<size_t> sizes = {0, 1, 4097, ByteRing::kBytes - 1, 3 * ByteRing::kBytes + 5};
    for (size_t round = 0; round < sizes.size(); ++round) {
      Exchange exchange(peers, Soon());
      std::vector<std::vector<char>> sent(world), received(world);
      for (int peer = 0; peer < world; ++peer) {
        if (peer == peers.rank()) continue;
        sent[peer] = Text(peers.rank(), peer, static_cast<int>(round), sizes[round]);
        received[peer].resize(sizes[round]);
        const size_t half = sizes[round] / 2;
        exchange.Send(peer, sent[peer].data(), sizes[round]);
        exchange.Receive(peer, received[peer].data(), half);
        exchange.Receive(peer, received[peer].data() + half, sizes[round] - half);
      }
      ASSERT_TRUE(exchange.FinishReceives().ok());
      ASSERT_TRUE(exchange.Finish().ok());
      for (int peer = 0; peer < world; ++peer) {
        if (peer != peers.rank()) {
          ASSERT_EQ(received[peer], Text(peer, peers.rank(), static_cast<int>(round), sizes[round]));
        }
      }
    }
  });
}

TEST_P(ExchangeTest, WhatFollowsARefusedHeaderStaysUnread) {
  const auto [world, wiring] = GetParam();
  RunPeers(world, wiring, [](Peers& peers) {
    if (peers.rank() > 1) return;
    const char letters[] = "HBODY";
    Exchange exchange(peers, Soon());
    if (peers.rank() == 0) {
      exchange.Send(1, letters, 5);
      EXPECT_TRUE(exchange.Finish().ok());
      char answer = 0;
      Exchange later(peers, Soon());
      later.Receive(1, &answer, 1);  // keeps the group open until the other one has looked
      EXPECT_TRUE(later.Finish().ok());
      return;
    }
    char header = 0;
    char body[4] = {'-', '-', '-', '-'};
    exchange.ReceiveChecked(0, &header, 1, [] { return absl::FailedPreconditionError("not this one"); });
    exchange.Receive(0, body, 4);
    const absl::Status refused = exchange.Finish();
    EXPECT_TRUE(absl::IsFailedPrecondition(refused));
    EXPECT_EQ(refused.message(), "rank 0: not this one");
    EXPECT_EQ(header, 'H');
    EXPECT_EQ(body[0], '-');
    Exchange later(peers, Soon());
    later.Send(0, letters, 1);
    EXPECT_TRUE(later.Finish().ok());
  });
}

TEST_P(ExchangeTest, APeerThatLeavesIsNamedAndAbortIsHeardByAll) {
  const auto [world, wiring] = GetParam();
  RunPeers(world, wiring, [world = world](Peers& peers) {
    if (peers.rank() == world - 1) return peers.Abort();
    char never = 0;
    Exchange exchange(peers, Soon());
    exchange.Receive(world - 1, &never, 1);
    const absl::Status status = exchange.Finish();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("rank ", world - 1)));
  });
}

TEST(Peers, AnAbortedGroupSendsNothingMore) {
  RunPeers(2, Wiring::kMemory, [](Peers& peers) {
    char letter = 'x';
    if (peers.rank() == 0) {
      peers.Abort();
      Exchange exchange(peers, Soon());
      exchange.Send(1, &letter, 1);
      EXPECT_TRUE(absl::IsUnavailable(exchange.Finish()));
    } else {
      Exchange exchange(peers, Soon());
      exchange.Receive(0, &letter, 1);
      EXPECT_TRUE(absl::IsUnavailable(exchange.Finish()));
    }
  });
}

TEST(Peers, AStrangerIsNotLetIn) {
  AddressBoard board(2);
  RunRankThreads(2, [&](int rank) {
    const AddressExchange exchange = board.Of(rank);
    const auto peers = Peers::Connect({.rank = rank, .world_size = 2, .timeout = absl::Milliseconds(300)},
                                      [&](const std::string& mine) -> absl::StatusOr<std::vector<std::string>> {
                                        auto texts = exchange(mine);
                                        // Rank 1 knows the port but not the nonce.
                                        if (texts.ok() && rank == 1) {
                                          char& digit = (*texts)[0][(*texts)[0].find('|') - 1];
                                          digit = digit == '1' ? '2' : '1';
                                        }
                                        return texts;
                                      });
    EXPECT_FALSE(peers.ok());
    if (rank == 0) EXPECT_THAT(std::string(peers.status().message()), HasSubstr("not connected in time: rank 1"));
  });
}

}  // namespace
}  // namespace athanor
