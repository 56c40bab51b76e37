#include "athanor/parallel/transport/host_backend.h"

#include <torch/torch.h>

#include <numeric>
#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/unit/common/parallel/transport/rank_peers.h"

namespace athanor {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Backend = c10::intrusive_ptr<HostBackend>;

void RunBackends(int world_size, Wiring wiring, const std::function<void(HostBackend&)>& body,
                 absl::Duration timeout = absl::Seconds(20)) {
  AddressBoard board(world_size);
  RunRankThreads(world_size, [&](int rank) {
    torch::set_num_threads(1);  // a pool of OpenMP for every rank's thread takes longer than the test
    const PeersOptions options{
        .rank = rank, .world_size = world_size, .timeout = timeout, .shared_memory = wiring != Wiring::kSockets};
    absl::StatusOr<Backend> backend = HostBackend::Create(options, Wired(board.Of(rank), wiring, rank));
    ASSERT_TRUE(backend.ok()) << backend.status();
    try {
      body(**backend);
    } catch (const std::exception& error) {
      ADD_FAILURE() << "rank " << rank << ": " << error.what();
    }
  });
}

std::string ErrorOf(const c10::intrusive_ptr<c10d::Work>& work) {
  try {
    work->wait();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "";
}

// Values that differ by rank, element and use, and survive every dtype.
torch::Tensor ValuesOf(int rank, int64_t count, torch::ScalarType type) {
  return (torch::arange(count, torch::kInt64).mul(rank + 3).remainder(7).add(rank)).to(type);
}

torch::Tensor InRankOrder(int world, int64_t count, torch::ScalarType type,
                          const std::function<torch::Tensor(torch::Tensor, torch::Tensor)>& op) {
  torch::Tensor result = ValuesOf(0, count, type);
  for (int rank = 1; rank < world; ++rank) result = op(result, ValuesOf(rank, count, type));
  return result;
}

class HostBackendTest : public ::testing::TestWithParam<std::tuple<int, Wiring>> {
 protected:
  int world() const { return std::get<0>(GetParam()); }
  void Run(const std::function<void(HostBackend&)>& body) { RunBackends(world(), std::get<1>(GetParam()), body); }
};

INSTANTIATE_TEST_SUITE_P(Worlds, HostBackendTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4),
                                            ::testing::Values(Wiring::kMemory, Wiring::kSockets, Wiring::kMixed)));

TEST_P(HostBackendTest, AllReduceSumsEveryDtypeAtEverySize) {
  Run([&](HostBackend& backend) {
    for (const auto type : {torch::kFloat, torch::kDouble, torch::kHalf, torch::kBFloat16, torch::kLong, torch::kInt,
                            torch::kShort, torch::kChar, torch::kByte, torch::kBool}) {
      for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{3}, int64_t{8193}, int64_t{400001}}) {
        std::vector<torch::Tensor> tensors = {ValuesOf(backend.getRank(), count, type)};
        backend.allreduce(tensors, {})->wait();
        const auto sum = [&](const torch::Tensor& a, const torch::Tensor& b) {
          return type == torch::kBool ? a.logical_or(b) : a + b;
        };
        ASSERT_TRUE(torch::equal(tensors[0], InRankOrder(world(), count, type, sum))) << type << " " << count;
      }
    }
  });
}

TEST_P(HostBackendTest, AllReduceHasTheOtherReductions) {
  Run([&](HostBackend& backend) {
    const auto reduced = [&](c10d::ReduceOp op, torch::ScalarType type) {
      std::vector<torch::Tensor> tensors = {ValuesOf(backend.getRank(), 20000, type)};
      c10d::AllreduceOptions options;
      options.reduceOp = op;
      backend.allreduce(tensors, options)->wait();
      return tensors[0];
    };
    const auto expected = [&](torch::ScalarType type, auto op) { return InRankOrder(world(), 20000, type, op); };
    const auto min = [](auto a, auto b) { return torch::minimum(a, b); };
    const auto max = [](auto a, auto b) { return torch::maximum(a, b); };
    EXPECT_TRUE(torch::equal(reduced(c10d::ReduceOp::MIN, torch::kFloat), expected(torch::kFloat, min)));
    EXPECT_TRUE(torch::equal(reduced(c10d::ReduceOp::MAX, torch::kLong), expected(torch::kLong, max)));
    const auto product = [](auto a, auto b) { return a * b; };
    EXPECT_TRUE(torch::equal(reduced(c10d::ReduceOp::PRODUCT, torch::kDouble), expected(torch::kDouble, product)));
    const auto bits = [](auto a, auto b) { return a.bitwise_and(b); };
    EXPECT_TRUE(torch::equal(reduced(c10d::ReduceOp::BAND, torch::kInt), expected(torch::kInt, bits)));
    const auto sum = [](auto a, auto b) { return a + b; };
    EXPECT_TRUE(torch::allclose(reduced(c10d::ReduceOp::AVG, torch::kFloat), expected(torch::kFloat, sum) / world()));
  });
}

TEST_P(HostBackendTest, ReduceGivesTheRootAlone) {
  Run([&](HostBackend& backend) {
    for (int root = 0; root < world(); ++root) {
      std::vector<torch::Tensor> tensors = {ValuesOf(backend.getRank(), 100001, torch::kFloat)};
      c10d::ReduceOptions options;
      options.rootRank = root;
      backend.reduce(tensors, options)->wait();
      const auto sum = [](auto a, auto b) { return a + b; };
      const torch::Tensor expected = backend.getRank() == root ? InRankOrder(world(), 100001, torch::kFloat, sum)
                                                               : ValuesOf(backend.getRank(), 100001, torch::kFloat);
      EXPECT_TRUE(torch::equal(tensors[0], expected)) << root;
    }
  });
}

TEST_P(HostBackendTest, BroadcastFromEveryRootAtEverySize) {
  Run([&](HostBackend& backend) {
    for (int root = 0; root < world(); ++root) {
      for (const int64_t count : {int64_t{0}, int64_t{5}, int64_t{1000003}}) {
        std::vector<torch::Tensor> tensors = {ValuesOf(backend.getRank(), count, torch::kByte)};
        c10d::BroadcastOptions options;
        options.rootRank = root;
        backend.broadcast(tensors, options)->wait();
        ASSERT_TRUE(torch::equal(tensors[0], ValuesOf(root, count, torch::kByte))) << root << " " << count;
      }
    }
  });
}

TEST_P(HostBackendTest, GathersEvenAndUnevenParts) {
  Run([&](HostBackend& backend) {
    const int rank = backend.getRank();
    torch::Tensor output = torch::empty({world(), 3, 5});
    torch::Tensor input = ValuesOf(rank, 15, torch::kFloat).view({3, 5});
    backend._allgather_base(output, input, {})->wait();
    for (int r = 0; r < world(); ++r) {
      EXPECT_TRUE(torch::equal(output[r].flatten(), ValuesOf(r, 15, torch::kFloat)));
    }
    // In place, and more than the rings hold.
    torch::Tensor all = torch::zeros({world() * 200000});
    torch::Tensor own = all.narrow(0, rank * 200000, 200000);
    own.copy_(ValuesOf(rank, 200000, torch::kFloat));
    backend._allgather_base(all, own, {})->wait();
    for (int r = 0; r < world(); ++r) {
      EXPECT_TRUE(torch::equal(all.narrow(0, r * 200000, 200000), ValuesOf(r, 200000, torch::kFloat)));
    }
    std::vector<std::vector<torch::Tensor>> parts(1);
    for (int r = 0; r < world(); ++r) parts[0].push_back(torch::empty({r * 1000}, torch::kLong));  // rank 0 has none
    std::vector<torch::Tensor> mine = {ValuesOf(rank, rank * 1000, torch::kLong)};
    backend.allgather(parts, mine, {})->wait();
    for (int r = 0; r < world(); ++r) EXPECT_TRUE(torch::equal(parts[0][r], ValuesOf(r, r * 1000, torch::kLong)));
  });
}

TEST_P(HostBackendTest, ReduceScatterEvenAndUneven) {
  Run([&](HostBackend& backend) {
    const int rank = backend.getRank();
    const auto sum = [](auto a, auto b) { return a + b; };
    torch::Tensor input = ValuesOf(rank, world() * 70001, torch::kFloat);
    torch::Tensor output = torch::empty({70001});
    backend._reduce_scatter_base(output, input, {})->wait();
    const torch::Tensor whole = InRankOrder(world(), world() * 70001, torch::kFloat, sum);
    EXPECT_TRUE(torch::equal(output, whole.narrow(0, rank * 70001, 70001)));
    std::vector<std::vector<torch::Tensor>> parts(1);
    for (int r = 0; r < world(); ++r) parts[0].push_back(ValuesOf(rank, 10 + r, torch::kBFloat16));
    std::vector<torch::Tensor> outputs = {torch::empty({10 + rank}, torch::kBFloat16)};
    backend.reduce_scatter(outputs, parts, {})->wait();
    EXPECT_TRUE(torch::equal(outputs[0], InRankOrder(world(), 10 + rank, torch::kBFloat16, sum)));
  });
}

TEST_P(HostBackendTest, AllToAllMovesRows) {
  Run([&](HostBackend& backend) {
    const int rank = backend.getRank();
    // Rank s sends rank d s + 2d rows that say so.
    std::vector<int64_t> sent, received;
    for (int r = 0; r < world(); ++r) {
      sent.push_back(rank + 2 * r);
      received.push_back(r + 2 * rank);
    }
    std::vector<torch::Tensor> rows = {torch::empty({0, 3}, torch::kInt)};
    std::vector<torch::Tensor> expected = rows;
    for (int r = 0; r < world(); ++r) {
      rows.push_back(torch::full({sent[r], 3}, 10 * rank + r, torch::kInt));
      expected.push_back(torch::full({received[r], 3}, 10 * r + rank, torch::kInt));
    }
    torch::Tensor input = torch::cat(rows);
    torch::Tensor output = torch::empty_like(torch::cat(expected));
    backend.alltoall_base(output, input, received, sent, {})->wait();
    EXPECT_TRUE(torch::equal(output, torch::cat(expected)));
    std::vector<int64_t> even;
    torch::Tensor square = ValuesOf(rank, world() * 4, torch::kFloat);
    torch::Tensor turned = torch::empty({world() * 4});
    backend.alltoall_base(turned, square, even, even, {})->wait();
    for (int r = 0; r < world(); ++r) {
      EXPECT_TRUE(
          torch::equal(turned.narrow(0, 4 * r, 4), ValuesOf(r, world() * 4, torch::kFloat).narrow(0, 4 * rank, 4)));
    }
  });
}

TEST_P(HostBackendTest, GatherAndScatterOverTheRoot) {
  Run([&](HostBackend& backend) {
    const int rank = backend.getRank();
    const int root = world() - 1;
    std::vector<std::vector<torch::Tensor>> lists;
    if (rank == root) {
      lists.emplace_back();
      for (int r = 0; r < world(); ++r) lists[0].push_back(torch::empty({7}, torch::kDouble));
    }
    std::vector<torch::Tensor> mine = {ValuesOf(rank, 7, torch::kDouble)};
    c10d::GatherOptions gather;
    gather.rootRank = root;
    backend.gather(lists, mine, gather)->wait();
    c10d::ScatterOptions scatter;
    scatter.rootRank = root;
    std::vector<torch::Tensor> back = {torch::empty({7}, torch::kDouble)};
    backend.scatter(back, lists, scatter)->wait();
    EXPECT_TRUE(torch::equal(back[0], mine[0]));
  });
}

TEST_P(HostBackendTest, CallsInFlightEndInOrder) {
  Run([&](HostBackend& backend) {
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    std::vector<torch::Tensor> sums;
    for (int i = 0; i < 40; ++i) {
      sums.push_back(torch::full({i * 997 + 1}, static_cast<float>(i + backend.getRank())));
      std::vector<torch::Tensor> one = {sums.back()};
      works.push_back(backend.allreduce(one, {}));
    }
    works.push_back(backend.barrier({}));
    works.back()->wait();
    for (const auto& work : works) EXPECT_TRUE(work->isCompleted());
    works.front()->getFuture()->wait();
    for (int i = 0; i < 40; ++i) {
      const float sum = static_cast<float>(world() * i + world() * (world() - 1) / 2);
      EXPECT_TRUE((sums[i] == sum).all().item<bool>()) << i;
    }
  });
}

TEST_P(HostBackendTest, WritesTensorsThatAreNotContiguous) {
  Run([&](HostBackend& backend) {
    torch::Tensor matrix = torch::zeros({4, 6});
    torch::Tensor column = matrix.select(1, 2);
    column.fill_(backend.getRank() + 1.0f);
    std::vector<torch::Tensor> tensors = {column};
    backend.allreduce(tensors, {})->wait();
    EXPECT_EQ(matrix.sum().item<float>(), 4.0f * static_cast<float>(world() * (world() + 1) / 2));
  });
}

TEST_P(HostBackendTest, MessagesAreMatchedByTag) {
  if (world() == 1) return;
  Run([&](HostBackend& backend) {
    const int rank = backend.getRank();
    const int next = (rank + 1) % world();
    const int before = (rank + world() - 1) % world();
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    std::vector<torch::Tensor> sent;
    for (int tag = 0; tag < 16; ++tag) {  // all sends before any receive, a megabyte each
      sent.push_back(torch::full({262144}, static_cast<float>(100 * rank + tag)));
      std::vector<torch::Tensor> one = {sent.back()};
      works.push_back(backend.send(one, next, tag));
    }
    std::vector<torch::Tensor> received;
    for (int tag = 15; tag >= 0; --tag) {
      received.push_back(torch::zeros({262144}));
      std::vector<torch::Tensor> one = {received.back()};
      works.push_back(backend.recv(one, before, tag));
    }
    for (const auto& work : works) work->wait();
    for (int tag = 15; tag >= 0; --tag) {
      EXPECT_TRUE((received[15 - tag] == static_cast<float>(100 * before + tag)).all().item<bool>());
    }
    std::vector<torch::Tensor> hello = {torch::full({1}, rank, torch::kLong)};
    if (rank == 0) {
      int64_t ranks = 0;
      for (int i = 1; i < world(); ++i) {
        std::vector<torch::Tensor> any = {torch::zeros({1}, torch::kLong)};
        const auto work = backend.recvAnysource(any, 99);
        work->wait();
        EXPECT_EQ(any[0].item<int64_t>(), work->sourceRank());
        ranks += work->sourceRank();
      }
      EXPECT_EQ(ranks, world() * (world() - 1) / 2);
    } else {
      backend.send(hello, 0, 99)->wait();
    }
    std::vector<torch::Tensor> none;
    backend.barrier({})->wait();  // nobody closes before everybody has what he waits for
  });
}

TEST_P(HostBackendTest, MessagesMoveWhileNobodyWaits) {
  if (world() != 2) return;
  Run([&](HostBackend& backend) {
    std::vector<torch::Tensor> large = {torch::full({2 << 20}, 7.0f - 7.0f * static_cast<float>(backend.getRank()))};
    const auto work = backend.getRank() == 0 ? backend.send(large, 1, 0) : backend.recv(large, 0, 0);
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!work->isCompleted() && absl::Now() < deadline) std::this_thread::yield();
    ASSERT_TRUE(work->isCompleted());
    EXPECT_TRUE((large[0] == 7.0f).all().item<bool>());
    backend.barrier({})->wait();
  });
}

TEST_P(HostBackendTest, ThreadsOfARankSendAndWaitAtOnce) {
  if (world() != 2) return;
  Run([&](HostBackend& backend) {
    const int other = 1 - backend.getRank();
    std::vector<torch::Tensor> last = {torch::zeros({1})};
    const auto ahead = backend.recv(last, other, 99);  // under way all the while
    std::vector<std::thread> threads;
    for (int tag = 0; tag < 4; ++tag) {
      threads.emplace_back([&, tag] {
        for (int round = 0; round < 200; ++round) {
          std::vector<torch::Tensor> mine = {torch::full({8}, static_cast<float>(round))};
          std::vector<torch::Tensor> theirs = {torch::zeros({8})};
          if (backend.getRank() == 0) backend.send(mine, other, tag)->wait();
          backend.recv(theirs, other, tag)->wait();
          if (backend.getRank() == 1) backend.send(mine, other, tag)->wait();
          ASSERT_EQ(theirs[0].sum().item<float>(), 8.0f * static_cast<float>(round));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<torch::Tensor> end = {torch::ones({1})};
    backend.send(end, other, 99)->wait();
    ahead->wait();
    EXPECT_EQ(last[0].item<float>(), 1.0f);
    backend.barrier({})->wait();
  });
}

TEST_P(HostBackendTest, RanksInDifferentCallsAreBothNamed) {
  if (world() != 2) return;
  Run([&](HostBackend& backend) {
    std::vector<torch::Tensor> ten = {torch::ones({10})};
    backend.allreduce(ten, {})->wait();
    std::string error;
    if (backend.getRank() == 0) {
      error = ErrorOf(backend.allreduce(ten, {}));
      EXPECT_THAT(error, AllOf(HasSubstr("all_reduce (call 2, 10 x Float, sum)"),
                               HasSubstr("all_gather (call 2, 12 x Double)")));
    } else {
      torch::Tensor input = torch::ones({12}, torch::kDouble), output = torch::ones({24}, torch::kDouble);
      error = ErrorOf(backend._allgather_base(output, input, {}));
      EXPECT_THAT(error, AllOf(HasSubstr("rank 0: it is in all_reduce (call 2, 10 x Float, sum)"),
                               HasSubstr("rank 1 in all_gather (call 2, 12 x Double)")));
    }
    EXPECT_EQ(ErrorOf(backend.barrier({})), error);  // the first error stays
  });
}

TEST_P(HostBackendTest, MessagesThatDoNotFitAreRefused) {
  if (world() != 2) return;
  Run([&](HostBackend& backend) {
    if (backend.getRank() == 0) {
      std::vector<torch::Tensor> three = {torch::ones({3})};
      ErrorOf(backend.send(three, 1, 4));
    } else {
      std::vector<torch::Tensor> four = {torch::ones({4}, torch::kDouble)};
      EXPECT_THAT(ErrorOf(backend.recv(four, 0, 4)),
                  HasSubstr("rank 0 sends 3 x Float with tag 4, this rank expects 4 x Double with tag 4"));
    }
  });
}

TEST_P(HostBackendTest, ARankThatLeavesIsNamed) {
  if (world() < 2) return;
  Run([&](HostBackend& backend) {
    if (backend.getRank() == world() - 1) return;  // closes its group
    std::vector<torch::Tensor> tensors = {torch::ones({100000})};
    const std::string error = ErrorOf(backend.allreduce(tensors, {}));
    // Directly, or because a rank that saw it first has left, too.
    EXPECT_THAT(error, HasSubstr("rank "));
  });
}

TEST_P(HostBackendTest, AbortFreesThoseThatWait) {
  if (world() < 2) return;
  Run([&](HostBackend& backend) {
    std::vector<torch::Tensor> tensors = {torch::ones({100000})};
    if (backend.getRank() == 0) {
      std::vector<torch::Tensor> never = {torch::ones({1})};
      const auto message = backend.recv(never, 1, 0);
      backend.abort();
      EXPECT_NE(ErrorOf(message), "");
      EXPECT_NE(ErrorOf(backend.allreduce(tensors, {})), "");
    } else {
      EXPECT_NE(ErrorOf(backend.allreduce(tensors, {})), "");
    }
  });
}

TEST(HostBackend, ARankThatDoesNotComeIsNamedAtTheDeadline) {
  for (const Wiring wiring : {Wiring::kMemory, Wiring::kSockets}) {
    std::atomic<bool> over{false};
    RunBackends(
        2, wiring,
        [&](HostBackend& backend) {
          if (backend.getRank() == 0) {
            std::vector<torch::Tensor> tensors = {torch::ones({10})};
            EXPECT_THAT(ErrorOf(backend.allreduce(tensors, {})), HasSubstr("rank 1 did not come in time"));
            over = true;
            over.notify_all();
          } else {
            over.wait(false);
          }
        },
        absl::Milliseconds(200));
  }
}

TEST(HostBackend, RefusesArgumentsThatCannotBe) {
  RunBackends(1, Wiring::kMemory, [](HostBackend& backend) {
    std::vector<torch::Tensor> none, meta = {torch::empty({2}, torch::kMeta)};
    EXPECT_ANY_THROW(backend.allreduce(none, {}));
    EXPECT_ANY_THROW(backend.allreduce(meta, {}));
    std::vector<torch::Tensor> one = {torch::ones({2})};
    EXPECT_ANY_THROW(backend.send(one, 1, 0));
    EXPECT_ANY_THROW(backend.send(one, 0, 0));  // itself
    torch::Tensor output = torch::ones({3}), input = torch::ones({2});
    EXPECT_ANY_THROW(backend._allgather_base(output, input, {}));
    std::vector<torch::Tensor> eights = {torch::ones({2}).to(torch::kFloat8_e5m2)};
    EXPECT_THAT(ErrorOf(backend.allreduce(eights, {})), HasSubstr("the sum of Float8_e5m2 is not defined"));
  });
}

}  // namespace
}  // namespace athanor
