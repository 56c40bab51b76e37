// Times the collectives of HostBackend (shared memory, sockets) beside Gloo's, in the same processes and in turn: for
// each collective and size the fastest and the median of `rounds` calls of rank 0, in microseconds.
//
//   bench_collectives '{"ranks": 2, "bytes": [1024, 65536], "rounds": 50}'
//
// `bytes`: of the whole tensor (what each rank has at the end of an all-gather, or gives to a reduce-scatter).
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <memory>

#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "absl/status/status.h"
#include "athanor/base/status_macros.h"
#include "athanor/parallel/transport/host_backend.h"
#include "bench/programs/program.h"

namespace athanor::bench {
namespace {

using Backend = c10::intrusive_ptr<c10d::Backend>;
using Store = c10::intrusive_ptr<c10d::Store>;

AddressExchange Over(Store store, int rank, int ranks) {
  return [=, round = 0](const std::string& mine) mutable -> absl::StatusOr<std::vector<std::string>> {
    const std::string prefix = absl::StrCat(round++, "/");
    store->set(absl::StrCat(prefix, rank), std::vector<uint8_t>(mine.begin(), mine.end()));
    std::vector<std::string> all;
    for (int peer = 0; peer < ranks; ++peer) all.push_back(store->get_to_str(absl::StrCat(prefix, peer)));
    return all;
  };
}

absl::StatusOr<std::map<std::string, Backend>> Connect(const Store& store, int rank, int ranks) {
  std::map<std::string, Backend> backends;
  for (const bool memory : {true, false}) {
    const std::string name = memory ? "memory" : "sockets";
    ASSIGN_OR_RETURN(backends[name],
                     HostBackend::Create({.rank = rank, .world_size = ranks, .shared_memory = memory},
                                         Over(c10::make_intrusive<c10d::PrefixStore>(name, store), rank, ranks)));
  }
  auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::seconds(60));
  options->threads = 1;
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  backends["gloo"] = c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>("gloo", store),
                                                                 rank, ranks, options);
  return backends;
}

struct Tensors {
  torch::Tensor whole, part, other;
};

c10::intrusive_ptr<c10d::Work> Start(const std::string& collective, c10d::Backend& backend, Tensors& tensors) {
  std::vector<torch::Tensor> whole = {tensors.whole};
  if (collective == "all_reduce") return backend.allreduce(whole);
  if (collective == "broadcast") return backend.broadcast(whole);
  if (collective == "all_gather") return backend._allgather_base(tensors.whole, tensors.part);
  if (collective == "reduce_scatter") return backend._reduce_scatter_base(tensors.part, tensors.whole);
  if (collective == "all_to_all") {
    std::vector<int64_t> even;
    return backend.alltoall_base(tensors.other, tensors.whole, even, even);
  }
  return backend.barrier();
}

void SendAndReceive(c10d::Backend& backend, Tensors& tensors) {
  std::vector<torch::Tensor> whole = {tensors.whole};
  if (backend.getRank() > 1) return;
  // There and back: the time of two messages.
  if (backend.getRank() == 0) backend.send(whole, 1, 0)->wait();
  if (backend.getRank() == 1) backend.recv(whole, 0, 0)->wait();
  if (backend.getRank() == 1) backend.send(whole, 0, 1)->wait();
  if (backend.getRank() == 0) backend.recv(whole, 1, 1)->wait();
}

nlohmann::json Measure(std::map<std::string, Backend>& backends, const std::string& collective, int64_t bytes,
                       int64_t rounds, int ranks) {
  const int64_t part = std::max<int64_t>(1, bytes / 4 / ranks);
  Tensors tensors{torch::ones({part * ranks}), torch::ones({part}), torch::ones({part * ranks})};
  std::map<std::string, std::vector<double>> seconds;
  for (int64_t round = -2; round < rounds; ++round) {  // two to warm up
    for (auto& [name, backend] : backends) {
      backend->barrier()->wait();
      const Clock::time_point began = Clock::now();
      if (collective == "send_receive") {
        SendAndReceive(*backend, tensors);
      } else {
        Start(collective, *backend, tensors)->wait();
      }
      if (round >= 0) seconds[name].push_back(SecondsSince(began) * 1e6);
    }
  }
  nlohmann::json result = {{"collective", collective}, {"bytes", bytes}};
  for (auto& [name, samples] : seconds) {
    std::ranges::sort(samples);
    result[name] = {{"best", samples.front()}, {"median", samples[samples.size() / 2]}};
  }
  return result;
}

absl::StatusOr<nlohmann::json> Rank(const nlohmann::json& settings, const std::string& file, int rank) {
  torch::set_num_threads(1);
  const int ranks = settings["ranks"];
  auto store = c10::make_intrusive<c10d::FileStore>(file, ranks);
  ASSIGN_OR_RETURN(auto backends, Connect(store, rank, ranks));
  nlohmann::json rows = nlohmann::json::array();
  for (const std::string& collective : settings["collectives"].get<std::vector<std::string>>()) {
    for (const int64_t bytes : settings["bytes"].get<std::vector<int64_t>>()) {
      if (collective == "barrier" && !rows.empty() && rows.back()["collective"] == collective) continue;
      const int64_t rounds = bytes >= (8 << 20) ? std::max<int64_t>(3, settings["rounds"].get<int64_t>() / 8)
                                                : settings["rounds"].get<int64_t>();
      rows.push_back(Measure(backends, collective, bytes, rounds, ranks));
    }
  }
  for (auto& [name, backend] : backends) backend->barrier()->wait();
  return nlohmann::json{{"ranks", ranks}, {"microseconds", rows}};
}

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  const char* folder = std::getenv("TMPDIR");
  std::string file = absl::StrCat(folder != nullptr ? folder : "/tmp", "/athanor-bench-XXXXXX");
  const int fd = mkstemp(file.data());
  if (fd < 0) return absl::UnavailableError("no temporary file for the ranks' store");
  close(fd);
  std::vector<pid_t> others;
  for (int rank = 1; rank < settings["ranks"].get<int>(); ++rank) {
    const pid_t child = fork();
    if (child == 0) _exit(Rank(settings, file, rank).ok() ? 0 : 1);
    others.push_back(child);
  }
  absl::StatusOr<nlohmann::json> rows = Rank(settings, file, 0);
  bool well = true;
  for (const pid_t other : others) {
    int status = 0;
    waitpid(other, &status, 0);
    well = well && status == 0;
  }
  unlink(file.c_str());
  if (rows.ok() && !well) return absl::InternalError("another rank failed");
  return rows;
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(
      argc, argv,
      {{"ranks", 2},
       {"rounds", 60},
       {"bytes", {1024, 65536, 1 << 20, 4 << 20, 64 << 20}},
       {"collectives",
        {"all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send_receive", "barrier"}}},
      athanor::bench::Run);
}
