#include "athanor/parallel/collective_functions.h"

#include "gmock/gmock.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {
namespace {

using Apply = std::function<torch::Tensor(const torch::Tensor&, ProcessGroup&)>;

torch::Tensor Drawn(std::vector<int64_t> sizes, int seed) {
  return torch::rand(sizes, at::detail::createCPUGenerator(static_cast<uint64_t>(seed)), torch::kDouble);
}

// What is differentiated: the sum over the ranks of <weights, result>; for a result that is the same on all ranks, that
// of one rank. An input that is the same on all ranks is moved on all of them at once.
struct Case {
  const char* name;
  Apply apply;
  std::vector<int64_t> sizes;
  bool same_input = false;
  bool same_result = false;
};

double Loss(const Case& one, const torch::Tensor& x, ProcessGroup& group) {
  const torch::NoGradGuard no_gradient;
  const torch::Tensor result = one.apply(x, group);
  const int seed = one.same_result ? 77 : 77 + group.rank();
  const double own = (result * Drawn(result.sizes().vec(), seed)).sum().item<double>();
  auto all = group.AllReduceSum(std::vector<double>{own});
  EXPECT_TRUE(all.ok()) << all.status();
  return one.same_result ? own : (*all)[0];
}

void CheckGradient(const Case& one, ProcessGroup& group) {
  torch::Tensor x = Drawn(one.sizes, one.same_input ? 5 : 5 + group.rank()).requires_grad_();
  const torch::Tensor result = one.apply(x, group);
  ASSERT_TRUE(result.is_contiguous());
  (result * Drawn(result.sizes().vec(), one.same_result ? 77 : 77 + group.rank())).sum().backward();
  const torch::Tensor found = x.grad().flatten();
  constexpr double kStep = 1e-4;
  for (int moved = 0; moved < (one.same_input ? 1 : group.world_size()); ++moved) {
    for (int64_t i = 0; i < x.numel(); ++i) {
      const bool here = one.same_input || moved == group.rank();
      torch::Tensor up = x.detach().clone(), down = x.detach().clone();
      if (here) {
        up.flatten()[i] += kStep;
        down.flatten()[i] -= kStep;
      }
      const double slope = (Loss(one, up, group) - Loss(one, down, group)) / (2 * kStep);
      if (here) EXPECT_NEAR(found[i].item<double>(), slope, 1e-7) << one.name << " " << i;
    }
  }
}

class CollectiveFunctionsTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Worlds, CollectiveFunctionsTest, ::testing::Values(1, 2, 4));

TEST_P(CollectiveFunctionsTest, GradientsAreTheSlopes) {
  const std::vector<Case> cases = {
      {"copy", CopyToRanks, {2, 3}, /*same_input=*/true, false},
      {"reduce", ReduceFromRanks, {2, 3}, false, /*same_result=*/true},
      {"gather 0", [](const auto& x, auto& group) { return GatherAlong(x, 0, group); }, {2, 3}},
      {"gather -1", [](const auto& x, auto& group) { return GatherAlong(x, -1, group); }, {2, 3}},
      {"scatter 0", [](const auto& x, auto& group) { return ScatterSumAlong(x, 0, group); }, {4, 2}},
      {"scatter 1", [](const auto& x, auto& group) { return ScatterSumAlong(x, 1, group); }, {2, 4}},
      {"split", [](const auto& x, auto& group) { return SplitAlong(x, 1, group); }, {2, 4}, /*same_input=*/true, false},
      {"join", [](const auto& x, auto& group) { return JoinAlong(x, 1, group); }, {3, 2}, false, /*same_result=*/true},
  };
  RunRanks(GetParam(), /*shared_memory=*/true, [&](ProcessGroup* group) {
    for (const Case& one : cases) CheckGradient(one, *group);
  });
}

TEST_P(CollectiveFunctionsTest, RowsGoToTheirRanksAndGradientsBack) {
  const int world = GetParam();
  RunRanks(world, /*shared_memory=*/true, [&](ProcessGroup* group) {
    std::vector<int64_t> sent, received;
    int64_t rows = 0;
    for (int r = 0; r < world; ++r) {
      sent.push_back((group->rank() + 2 * r) % 3);  // none, one or two
      received.push_back((r + 2 * group->rank()) % 3);
      rows += sent.back();
    }
    if (world == 1) sent = received = {rows = 2};
    const Case exchange{
        "exchange", [&](const auto& x, auto& g) { return ExchangeRows(x, sent, received, g); }, {rows, 2}};
    // Ranks have different numbers of rows: each moves as many entries as the one that has most.
    torch::Tensor x = Drawn({rows, 2}, 5 + group->rank()).requires_grad_();
    const torch::Tensor result = exchange.apply(x, *group);
    const torch::Tensor weights = Drawn(result.sizes().vec(), 77 + group->rank());
    (result * weights).sum().backward();
    // The mirror: the weights sent back are the gradient.
    const torch::Tensor back = ExchangeRows(weights, received, sent, *group);
    EXPECT_TRUE(torch::equal(x.grad(), back));
    EXPECT_TRUE(torch::equal(ExchangeRows(result.detach(), received, sent, *group), x.detach()));
  });
}

TEST(CollectiveFunctions, AMessageIsAStepOfTheGraph) {
  RunRanks(2, /*shared_memory=*/false, [](ProcessGroup* group) {
    if (group->rank() == 0) {
      torch::Tensor x = Drawn({3, 2}, 5).requires_grad_();
      SendTo(x.square(), 1, 4, *group).sum().backward();
      EXPECT_TRUE(torch::allclose(x.grad(), 3 * 2 * x.detach()));
    } else {
      const torch::Tensor x = ReceiveFrom(torch::empty({3, 2}, torch::kDouble), 0, 4, *group);
      EXPECT_TRUE(torch::equal(x.detach(), Drawn({3, 2}, 5).square()));
      (3 * x).sum().backward();
    }
    EXPECT_TRUE(group->Barrier(absl::Seconds(20)).ok());
  });
}

TEST(CollectiveFunctions, WhatDoesNotDivideIsRefused) {
  RunRanks(2, /*shared_memory=*/true, [](ProcessGroup* group) {
    EXPECT_THROW(SplitAlong(torch::ones({3}), 0, *group), c10::ValueError);
    EXPECT_THROW(ScatterSumAlong(torch::ones({2, 3}), 1, *group), c10::ValueError);
    EXPECT_THROW(GatherAlong(torch::ones({3}), 1, *group), c10::IndexError);
  });
}

// Column- and row-parallel linear layers make one layer of both.
TEST_P(CollectiveFunctionsTest, ATensorParallelBlockEqualsOneProcess) {
  const torch::Tensor x0 = Drawn({5, 4}, 1), first = Drawn({8, 4}, 2), second = Drawn({3, 8}, 3);
  torch::Tensor x = x0.clone().requires_grad_(), a = first.clone().requires_grad_(),
                b = second.clone().requires_grad_();
  const torch::Tensor whole = torch::linear(torch::gelu(torch::linear(x, a)), b);
  whole.square().sum().backward();
  RunRanks(GetParam(), /*shared_memory=*/true, [&](ProcessGroup* group) {
    const int64_t part = 8 / group->world_size();
    torch::Tensor own = x0.clone().requires_grad_();
    torch::Tensor column = first.narrow(0, group->rank() * part, part).clone().requires_grad_();
    torch::Tensor row = second.narrow(1, group->rank() * part, part).clone().requires_grad_();
    const torch::Tensor out =
        ReduceFromRanks(torch::linear(torch::gelu(torch::linear(CopyToRanks(own, *group), column)), row), *group);
    EXPECT_TRUE(torch::allclose(out, whole.detach(), 1e-12, 1e-12));
    out.square().sum().backward();
    EXPECT_TRUE(torch::allclose(own.grad(), x.grad(), 1e-12, 1e-12));
    EXPECT_TRUE(torch::allclose(column.grad(), a.grad().narrow(0, group->rank() * part, part), 1e-12, 1e-12));
    EXPECT_TRUE(torch::allclose(row.grad(), b.grad().narrow(1, group->rank() * part, part), 1e-12, 1e-12));
  });
}

}  // namespace
}  // namespace athanor
