// Submits jobs over gRPC, as many clients at once as asked, each call after the answer of the one before. A coordinator
// answers when the job is durable.
//
//   bench_submit_load '{"server": "127.0.0.1:7070", "calls": 500, "clients": 8}'
//   -> {"latency": {"p50_ms": ..}, "per_second": .., "samples_ms": [..]}
#include <grpcpp/client_context.h>

#include <mutex>
#include <thread>

#include "athanor/base/status_macros.h"
#include "athanor/v1/job_service.grpc.pb.h"
#include "bench/programs/program.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"

namespace athanor::bench {
namespace {

constexpr auto kCallTimeout = std::chrono::seconds(20);

v1::SubmitJobRequest Request(const std::string& key) {
  v1::SubmitJobRequest request;
  request.set_request_key(key);
  v1::JobSpec& spec = *request.mutable_spec();
  spec.set_name("bench-submit");
  spec.mutable_task()->set_name("digits_mlp");
  spec.mutable_task()->set_options_json(R"({"data": "/data/digits.csv", "hidden": [256, 256]})");
  spec.mutable_resources()->set_ranks(2);
  spec.set_runner_json(R"({"steps": 1000, "optim": {"type": "adamw", "lr": 0.001}, "dataloader": {"batch_size": 32}})");
  (*spec.mutable_labels())["purpose"] = "bench";
  return request;
}

// The calls of one client: their latencies in seconds.
absl::StatusOr<std::vector<double>> Submit(const std::string& server, const std::string& prefix, int64_t calls) {
  ASSIGN_OR_RETURN(const auto channel, MakeChannel(server, {}));
  const auto stub = v1::JobService::NewStub(channel);
  std::vector<double> seconds;
  for (int64_t i = -1; i < calls; ++i) {  // the first call connects, and is not counted
    const v1::SubmitJobRequest request = Request(absl::StrCat(prefix, "-", i));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
    context.set_wait_for_ready(true);
    v1::SubmitJobResponse response;
    const Clock::time_point began = Clock::now();
    RETURN_IF_ERROR(FromGrpc(stub->SubmitJob(&context, request, &response)));
    if (i >= 0) seconds.push_back(SecondsSince(began));
    if (!response.created()) return absl::InternalError(absl::StrCat("the key of call ", i, " was in use"));
  }
  return seconds;
}

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  const int64_t clients = settings["clients"];
  const int64_t calls = std::max<int64_t>(1, settings["calls"].get<int64_t>() / clients);
  const auto prefix = absl::StrCat("bench-", std::chrono::system_clock::now().time_since_epoch().count());
  std::mutex mutex;
  std::vector<double> all;
  absl::Status failed;
  std::vector<std::thread> threads;
  const Clock::time_point began = Clock::now();
  for (int64_t client = 0; client < clients; ++client) {
    threads.emplace_back([&, client] {
      const auto seconds = Submit(settings["server"], absl::StrCat(prefix, "-", client), calls);
      std::lock_guard lock(mutex);
      if (!seconds.ok()) {
        failed = seconds.status();
        return;
      }
      all.insert(all.end(), seconds->begin(), seconds->end());
    });
  }
  for (std::thread& thread : threads) thread.join();
  RETURN_IF_ERROR(failed);
  const double elapsed = SecondsSince(began);
  std::vector<double> milliseconds;
  for (const double second : all) milliseconds.push_back(std::round(second * 1e6) / 1e3);
  return nlohmann::json{{"latency", Distribution(all)},
                        {"per_second", static_cast<double>((calls + 1) * clients) / elapsed},
                        {"samples_ms", milliseconds}};
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(argc, argv, {{"server", ""}, {"calls", 500}, {"clients", 1}}, athanor::bench::Run);
}
