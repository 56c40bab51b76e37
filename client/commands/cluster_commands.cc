#include <yaml-cpp/yaml.h>

#include <iostream>

#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/version.h"
#include "client/commands/command.h"

namespace athanor {
namespace {

absl::Status ListWorkers(CommandContext& context) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::ListWorkersRequest request;
  v1::ListWorkersResponse response;
  do {
    v1::ListWorkersResponse page;
    RETURN_IF_ERROR(client->Call(client->workers(), &v1::WorkerService::Stub::ListWorkers, request, &page));
    response.mutable_workers()->MergeFrom(page.workers());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (context.format() != OutputFormat::kTable) return PrintMessage(response, context.format());
  std::vector<std::vector<std::string>> rows = {
      {"WORKER", "STATE", "DEVICE", "SLOTS", "USED", "HEARTBEAT", "HOST", "REASON"}};
  for (const v1::Worker& worker : response.workers()) {
    rows.push_back(
        {worker.id(), v1::WorkerState_Name(worker.state()), worker.device(), absl::StrCat(worker.slots()),
         absl::StrCat(worker.used_size()),
         FormatSeconds(static_cast<double>(worker.heartbeat_age().seconds()) + worker.heartbeat_age().nanos() * 1e-9),
         worker.host(), worker.reason()});
  }
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

using WorkerMethod = grpc::Status (v1::WorkerService::Stub::*)(grpc::ClientContext*, const v1::WorkerVerbRequest&,
                                                               v1::Worker*);

absl::Status WorkerVerb(CommandContext& context, const std::string& name, WorkerMethod method) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::WorkerVerbRequest request;
  request.set_worker(name);
  request.set_request_key(CoordinatorClient::NewRequestKey());
  v1::Worker worker;
  RETURN_IF_ERROR(client->Call(client->workers(), method, request, &worker));
  if (context.format() != OutputFormat::kTable) return PrintMessage(worker, context.format());
  std::cout << worker.id() << " " << v1::WorkerState_Name(worker.state()) << "\n";
  return absl::OkStatus();
}

absl::Status Status(CommandContext& context) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::ClusterStatus status;
  RETURN_IF_ERROR(
      client->Call(client->cluster(), &v1::ClusterService::Stub::GetStatus, v1::GetStatusRequest(), &status));
  if (context.format() != OutputFormat::kTable) return PrintMessage(status, context.format());
  std::vector<std::vector<std::string>> rows = {
      {"version", absl::StrCat(status.version(), " (", status.commit(), ")")},
      {"started", FormatTime(status.started_at())},
      {"starts", absl::StrCat(status.epoch())},
      {"slots", absl::StrCat(status.slots_free(), " free of ", status.slots_total())},
      {"checkpoints", absl::StrCat(status.checkpoints())},
      {"store", status.store_writable() ? "writable" : status.store_error()}};
  for (const auto& [state, count] :
       std::map<std::string, int64_t>(status.jobs_by_state().begin(), status.jobs_by_state().end()))
    rows.push_back({"jobs " + state, absl::StrCat(count)});
  for (const auto& [state, count] :
       std::map<std::string, int64_t>(status.workers_by_state().begin(), status.workers_by_state().end())) {
    rows.push_back({"workers " + state, absl::StrCat(count)});
  }
  for (const v1::RecordPutAside& aside : status.records_put_aside())
    rows.push_back({"record put aside", absl::StrCat(FormatTime(aside.time()), "  ", aside.problem())});
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

}  // namespace

void AddClusterCommands(CLI::App& app, CommandContext& context) {
  CLI::App* group = app.add_subcommand("worker", "List and drain workers")->require_subcommand(1);
  CLI::App* list = group->add_subcommand("list", "List workers");
  list->footer("Example:\n  athanor worker list --output json");
  list->callback([&context] { context.Report(ListWorkers(context)); });
  auto name = std::make_shared<std::string>();
  auto verb = [&](const char* command, const char* help, WorkerMethod method) {
    CLI::App* one = group->add_subcommand(command, help);
    one->add_option("worker", *name, "Worker id")->required();
    one->footer(absl::StrCat("Example:\n  athanor worker ", command, " agent-0"));
    one->callback([&context, name, method] { context.Report(WorkerVerb(context, *name, method)); });
  };
  verb("drain", "Move its jobs away (after a save) and place nothing more", &v1::WorkerService::Stub::DrainWorker);
  verb("undrain", "Let it take ranks again, after a drain or out of quarantine",
       &v1::WorkerService::Stub::UndrainWorker);
  CLI::App* status = app.add_subcommand("status", "Show the coordinator and what it holds");
  status->footer("Example:\n  athanor status");
  status->callback([&context] { context.Report(Status(context)); });
  CLI::App* version = app.add_subcommand("version", "Print the version of this program");
  version->footer("Example:\n  athanor version");
  version->callback([] { std::cout << "athanor " << Version() << " (" << Commit() << ")\n"; });
}

}  // namespace athanor
