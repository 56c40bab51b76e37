// Ranks that enter different collectives learn of it before they do: through the group, and through the backend that
// LibTorch's own code calls.
#include "athanor/parallel/checked_backend.h"

#include <torch/torch.h>

#include <mutex>
#include <thread>

#include "athanor/parallel/gradient_reducer.h"
#include "athanor/parallel/group_backend.h"
#include "athanor/torch/status.h"
#include "gmock/gmock.h"
#include "tests/unit/common/parallel/rank_threads.h"

namespace athanor {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Outside of the unnamed namespace: their names are what is found.
[[gnu::noinline]] absl::Status SumsGradients(ProcessGroup& group, const torch::Tensor& tensor) {
  const absl::Status status = group.AllReduceSum(tensor);
  return status.ok() ? status : absl::Status(status.code(), status.message());
}

[[gnu::noinline]] absl::Status TellsTheBest(ProcessGroup& group, const torch::Tensor& tensor) {
  const absl::Status status = group.Broadcast(tensor, 0);
  return status.ok() ? status : absl::Status(status.code(), status.message());
}

namespace {

class CheckedBackendTest : public ::testing::TestWithParam<std::string> {
 protected:
  static void Run(int ranks, const std::function<void(ProcessGroup&)>& body,
                  absl::Duration timeout = absl::Seconds(20)) {
    ProcessGroupOptions options;
    options.backend = GetParam();
    options.check = true;
    options.timeout = timeout;
    RunRanks(ranks, options, [&](ProcessGroup* group) { body(*group); });
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, CheckedBackendTest, ::testing::Values("host", "gloo"));

TEST_P(CheckedBackendTest, WhatIsAlikePasses) {
  Run(4, [](ProcessGroup& group) {
    torch::Tensor ones = torch::ones({3, 5});
    ASSERT_TRUE(group.AllReduceSum(ones).ok());
    EXPECT_EQ(ones.sum().item<float>(), 60.0f);
    const auto all = group.AllGather(torch::full({2}, group.rank()));
    ASSERT_TRUE(all.ok());
    EXPECT_EQ((*all)[3][0].item<int64_t>(), 3);
    std::vector<torch::Tensor> rows = {torch::zeros({4 - group.rank() % 2})};  // as each pair agrees
    torch::Tensor in = torch::arange(4.0f), out = torch::zeros({4});
    std::vector<int64_t> even;
    BackendOf(group).alltoall_base(out, in, even, even, {})->wait();
    EXPECT_EQ(out.sum().item<float>(), 4.0f * static_cast<float>(group.rank()));
    torch::Tensor part = torch::zeros({2}), whole = torch::ones({8});
    BackendOf(group)._reduce_scatter_base(part, whole, {})->wait();
    EXPECT_EQ(part.sum().item<float>(), 8.0f);
    ASSERT_TRUE(group.Barrier(absl::Seconds(20)).ok());
  });
}

TEST_P(CheckedBackendTest, AnotherOrderNamesBothCallsAndBothPlaces) {
  Run(2, [](ProcessGroup& group) {
    const torch::Tensor tensor = torch::ones({3, 5});
    const absl::Status status = group.rank() == 0 ? SumsGradients(group, tensor) : TellsTheBest(group, tensor);
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("rank 0: all_reduce (sum) of Float [3, 5] in athanor::SumsGradients"),
                      HasSubstr("rank 1: broadcast (from rank 0) of Float [3, 5] in athanor::TellsTheBest")));
    EXPECT_EQ(tensor.sum().item<float>(), 15.0f);  // nothing was entered
  });
}

TEST_P(CheckedBackendTest, ShapesAndDtypesOfRanksAreCompared) {
  for (const bool dtype : {true, false}) {
    Run(3, [&](ProcessGroup& group) {
      const bool odd = group.rank() == 2;
      const torch::Tensor tensor =
          dtype ? torch::ones({6}, odd ? torch::kDouble : torch::kFloat) : torch::ones({odd ? 5 : 6});
      EXPECT_THAT(
          std::string(SumsGradients(group, tensor).message()),
          AllOf(HasSubstr("ranks 0, 1: all_reduce (sum) of Float [6]"),
                HasSubstr(dtype ? "rank 2: all_reduce (sum) of Double [6]" : "rank 2: all_reduce (sum) of Float [5]")));
    });
  }
}

TEST_P(CheckedBackendTest, ARankThatDoesNotComeIsNamedWithThePlaceThatWaits) {
  Run(
      2,
      [](ProcessGroup& group) {
        static std::mutex both;
        if (group.rank() == 1) {
          const std::lock_guard stays(both);  // until rank 0 has its error
          return;
        }
        const std::lock_guard lock(both);
        EXPECT_THAT(
            std::string(SumsGradients(group, torch::ones({2})).message()),
            AllOf(HasSubstr("before all_reduce (sum) of Float [2] in athanor::SumsGradients"), HasSubstr("rank 1")));
      },
      absl::Seconds(2));
}

TEST_P(CheckedBackendTest, LibTorchsReducerIsCheckedToo) {
  Run(2, [](ProcessGroup& group) {
    torch::manual_seed(1);
    torch::nn::Linear model(4, 2);
    auto reducer = GradientReducer::Create(*model, Membership(&group), {});
    ASSERT_TRUE(reducer.ok()) << reducer.status();
    const torch::Tensor loss = model->forward(torch::ones({3, 4})).sum();
    std::string error;
    if (group.rank() == 0) {
      error = std::string(group.Barrier(absl::Seconds(20)).message());
    } else {
      error = std::string(RunTorch("backward", [&] {
                            (*reducer)->PrepareForBackward(loss);
                            loss.backward();
                            (*reducer)->FinishBackward();
                          }).message());
    }
    EXPECT_THAT(error, AllOf(HasSubstr("rank 0: all_reduce (sum) of Float [1] in athanor::"),
                             HasSubstr("rank 1: all_reduce (sum) of Float")));
  });
}

}  // namespace
}  // namespace athanor
