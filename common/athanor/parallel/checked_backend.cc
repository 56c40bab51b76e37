#include "athanor/parallel/checked_backend.h"

#include <execinfo.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/debugging/symbolize.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"

namespace athanor {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr size_t kTextBytes = 1024;  // of a call and its place, where they are told
constexpr size_t kCallBytes = 300;   // of a call in it
constexpr int kFrames = 48;
constexpr size_t kPlaces = 3;

std::string Call(absl::string_view name, const Tensors& tensors) {
  std::string text(name);
  for (const at::Tensor& tensor : tensors) {
    absl::StrAppend(&text, &tensor == tensors.data() ? " of " : ", ", c10::toString(tensor.scalar_type()), " [",
                    absl::StrJoin(tensor.sizes(), ", "), "]");
  }
  return text;
}

std::string Call(absl::string_view name, const c10d::ReduceOp& reduction, const Tensors& tensors) {
  constexpr std::array<absl::string_view, 10> kNames = {"sum", "avg", "product", "min",        "max",
                                                        "and", "or",  "xor",     "premul_sum", "unused"};
  const size_t index = std::min<size_t>(static_cast<uint8_t>(reduction.op_), kNames.size() - 1);
  return Call(absl::StrCat(name, " (", kNames[index], ")"), tensors);
}

// Who called: the innermost functions that are neither LibTorch's nor what passes the call on to it.
std::string Place() {
  std::array<void*, kFrames> frames;
  const int count = backtrace(frames.data(), kFrames);
  std::vector<std::string> places;
  for (int i = 0; i < count && places.size() < kPlaces; ++i) {
    char buffer[512];
    if (!absl::Symbolize(static_cast<char*>(frames[static_cast<size_t>(i)]) - 1, buffer, sizeof(buffer))) continue;
    const std::string whole = absl::StrReplaceAll(buffer, {{"(anonymous namespace)::", ""}});
    const absl::string_view name = absl::string_view(whole).substr(0, whole.find_first_of("(<["));
    constexpr std::array<absl::string_view, 14> kPassers = {"athanor::CheckedBackend",
                                                            "athanor::ProcessGroup",
                                                            "athanor::RunTorch",
                                                            "athanor::internal::",
                                                            "c10::",
                                                            "c10d::",
                                                            "at::",
                                                            "torch::",
                                                            "std::",
                                                            "__",
                                                            "absl::",
                                                            "void ",
                                                            "decltype",
                                                            "_"};
    const bool passes =
        std::ranges::any_of(kPassers, [&](absl::string_view prefix) { return absl::StartsWith(name, prefix); });
    if (!passes && !name.empty()) places.emplace_back(name);
  }
  return places.empty() ? "a place without a name" : absl::StrJoin(places, " < ");
}

}  // namespace

CheckedBackend::CheckedBackend(c10::intrusive_ptr<c10d::Backend> checked, std::unique_ptr<Peers> peers,
                               absl::Duration timeout)
    : c10d::Backend(checked->getRank(), checked->getSize()),
      checked_(std::move(checked)),
      collectives_(std::move(peers), timeout) {}

void CheckedBackend::setTimeout(std::chrono::milliseconds timeout) {
  {
    const std::lock_guard lock(mutex_);
    collectives_.SetTimeout(absl::FromChrono(timeout));
  }
  checked_->setTimeout(timeout);
}

void CheckedBackend::abort() {
  collectives_.Abort();
  checked_->abort();
}

void CheckedBackend::shutdown() {
  collectives_.Abort();
  checked_->shutdown();
}

std::vector<std::string> CheckedBackend::Tell(const std::string& mine, size_t bytes, const std::string& call) {
  std::string padded = mine.substr(0, bytes);
  padded.resize(bytes, ' ');
  const auto ranks = static_cast<size_t>(getSize());
  std::vector<std::string> texts(ranks, std::string(bytes, ' '));
  std::vector<void*> places;
  for (std::string& text : texts) places.push_back(text.data());
  const std::vector<int64_t> counts(ranks, static_cast<int64_t>(bytes));
  const std::lock_guard lock(mutex_);
  const absl::Status status = collectives_.AllGather(padded.data(), places, counts, c10::ScalarType::Byte);
  TORCH_CHECK_WITH(DistBackendError, status.ok(), "before ", call.substr(0, kCallBytes), " in ", Place(), ": ",
                   std::string(status.message()));
  return texts;
}

void CheckedBackend::Check(const std::string& call) {
  // Of the same program on every rank, so of the same hash.
  const std::string digest = absl::StrCat(absl::Hex(std::hash<std::string>()(call), absl::kZeroPad16));
  const std::vector<std::string> digests = Tell(digest, digest.size(), call);
  if (std::ranges::all_of(digests, [&](const std::string& other) { return other == digest; })) return;
  const std::vector<std::string> texts =
      Tell(absl::StrCat(call.substr(0, kCallBytes), " in ", Place()), kTextBytes, call);
  std::map<std::string, std::vector<size_t>> ranks;  // by what they say
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    ranks[std::string(absl::StripTrailingAsciiWhitespace(texts[rank]))].push_back(rank);
  }
  std::vector<std::string> sides;
  for (const auto& [text, those] : ranks) {
    sides.push_back(absl::StrCat(those.size() == 1 ? "rank " : "ranks ", absl::StrJoin(those, ", "), ": ", text));
  }
  TORCH_CHECK_VALUE(false, "ranks enter different collectives; ", absl::StrJoin(sides, "; "));
}

CheckedBackend::WorkPtr CheckedBackend::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  Check(Call(absl::StrCat("broadcast (from rank ", options.rootRank, ")"), tensors));
  return checked_->broadcast(tensors, options);
}

CheckedBackend::WorkPtr CheckedBackend::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  Check(Call("all_reduce", options.reduceOp, tensors));
  return checked_->allreduce(tensors, options);
}

CheckedBackend::WorkPtr CheckedBackend::allreduce_coalesced(Tensors& tensors,
                                                            const c10d::AllreduceCoalescedOptions& options) {
  Check(Call("all_reduce", options.reduceOp, tensors));
  return checked_->allreduce_coalesced(tensors, options);
}

CheckedBackend::WorkPtr CheckedBackend::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  Check(Call(absl::StrCat("reduce to rank ", options.rootRank), options.reduceOp, tensors));
  return checked_->reduce(tensors, options);
}

CheckedBackend::WorkPtr CheckedBackend::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                                  const c10d::AllgatherOptions& options) {
  Check(Call("all_gather", outputs.empty() ? Tensors() : outputs[0]));
  return checked_->allgather(outputs, inputs, options);
}

CheckedBackend::WorkPtr CheckedBackend::_allgather_base(at::Tensor& output, at::Tensor& input,
                                                        const c10d::AllgatherOptions& options) {
  Check(Call("all_gather (one tensor)", {output}));
  return checked_->_allgather_base(output, input, options);
}

CheckedBackend::WorkPtr CheckedBackend::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                        const c10d::AllgatherOptions& options) {
  Check(Call("all_gather (one tensor)", outputs));
  return checked_->allgather_into_tensor_coalesced(outputs, inputs, options);
}

CheckedBackend::WorkPtr CheckedBackend::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                                               const c10d::GatherOptions& options) {
  Check(Call(absl::StrCat("gather (to rank ", options.rootRank, ")"), inputs));
  return checked_->gather(outputs, inputs, options);
}

CheckedBackend::WorkPtr CheckedBackend::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                                const c10d::ScatterOptions& options) {
  Check(Call(absl::StrCat("scatter (from rank ", options.rootRank, ")"), outputs));
  return checked_->scatter(outputs, inputs, options);
}

CheckedBackend::WorkPtr CheckedBackend::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                                       const c10d::ReduceScatterOptions& options) {
  Check(Call("reduce_scatter", options.reduceOp, inputs.empty() ? Tensors() : inputs[0]));
  return checked_->reduce_scatter(outputs, inputs, options);
}

CheckedBackend::WorkPtr CheckedBackend::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                                             const c10d::ReduceScatterOptions& options) {
  Check(Call("reduce_scatter (one tensor)", options.reduceOp, {input}));
  return checked_->_reduce_scatter_base(output, input, options);
}

CheckedBackend::WorkPtr CheckedBackend::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                                        const c10d::ReduceScatterOptions& options) {
  Check(Call("reduce_scatter (one tensor)", options.reduceOp, inputs));
  return checked_->reduce_scatter_tensor_coalesced(outputs, inputs, options);
}

// What each rank sends to each other one is theirs to agree on: only the call and the dtype are alike.
CheckedBackend::WorkPtr CheckedBackend::alltoall_base(at::Tensor& output, at::Tensor& input,
                                                      std::vector<int64_t>& output_splits,
                                                      std::vector<int64_t>& input_splits,
                                                      const c10d::AllToAllOptions& options) {
  Check(absl::StrCat("all_to_all of ", c10::toString(input.scalar_type())));
  return checked_->alltoall_base(output, input, output_splits, input_splits, options);
}

CheckedBackend::WorkPtr CheckedBackend::alltoall(Tensors& outputs, Tensors& inputs,
                                                 const c10d::AllToAllOptions& options) {
  Check(absl::StrCat("all_to_all of ", inputs.empty() ? "nothing" : c10::toString(inputs[0].scalar_type())));
  return checked_->alltoall(outputs, inputs, options);
}

CheckedBackend::WorkPtr CheckedBackend::barrier(const c10d::BarrierOptions& options) {
  Check("barrier");
  return checked_->barrier(options);
}

}  // namespace athanor
