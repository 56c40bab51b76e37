#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/utf8_text.h"
#include "client/commands/command.h"

namespace athanor {
namespace {

struct CheckpointArguments {
  std::string job, checkpoint, tag, expect;
  bool all = false, dry_run = false;
};

std::string State(const v1::Checkpoint& checkpoint) {
  return v1::CheckpointState_Name(checkpoint.state());
}

absl::Status Print(CommandContext& context, const v1::Checkpoint& checkpoint) {
  if (context.format() != OutputFormat::kTable) return PrintMessage(checkpoint, context.format());
  std::vector<std::vector<std::string>> rows = {{"checkpoint", checkpoint.name()},
                                                {"state", State(checkpoint)},
                                                {"aliases", absl::StrJoin(checkpoint.aliases(), ", ")},
                                                {"size", FormatBytes(checkpoint.bytes())},
                                                {"generation", absl::StrCat(checkpoint.generation())},
                                                {"committed", FormatTime(checkpoint.committed_at())},
                                                {"path", checkpoint.path()}};
  if (!checkpoint.note().empty()) rows.push_back({"note", checkpoint.note()});
  for (const auto& [name, value] :
       std::map<std::string, double>(checkpoint.metrics().begin(), checkpoint.metrics().end()))
    rows.push_back({name, absl::StrCat(value)});
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

absl::Status List(CommandContext& context, const CheckpointArguments& arguments) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::ListCheckpointsRequest request;
  request.set_job(arguments.job);
  request.set_all_states(arguments.all);
  request.set_page_size(1000);
  v1::ListCheckpointsResponse all;
  do {
    v1::ListCheckpointsResponse page;
    RETURN_IF_ERROR(client->Call(client->checkpoints(), &v1::CheckpointService::Stub::ListCheckpoints, request, &page));
    all.mutable_checkpoints()->MergeFrom(page.checkpoints());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (context.format() != OutputFormat::kTable) return PrintMessage(all, context.format());
  std::vector<std::vector<std::string>> rows = {{"CHECKPOINT", "STATE", "ALIASES", "GEN", "SIZE", "COMMITTED", "NOTE"}};
  for (const v1::Checkpoint& one : all.checkpoints()) {
    rows.push_back({one.name(), State(one), one.aliases().empty() ? "-" : absl::StrJoin(one.aliases(), ","),
                    absl::StrCat(one.generation()), FormatBytes(one.bytes()), FormatTime(one.committed_at()),
                    FirstColumns(StripControlChars(one.note()), 60)});
  }
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

absl::Status Show(CommandContext& context, const CheckpointArguments& arguments) {
  ASSIGN_OR_RETURN(const v1::Checkpoint checkpoint, GetCheckpoint(context, arguments.job, arguments.checkpoint));
  return Print(context, checkpoint);
}

template <typename Request>
absl::Status Expect(const std::string& text, Request& request) {
  if (text.empty()) return absl::OkStatus();
  int64_t step = -1;
  if (text != "none" && (!absl::SimpleAtoi(text, &step) || step < 0))
    return absl::InvalidArgumentError(absl::StrCat("--expect ", text, ": allowed: a step, or none"));
  request.set_compare(true);
  request.set_expected_step(step);
  return absl::OkStatus();
}

absl::Status Tag(CommandContext& context, const CheckpointArguments& arguments) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::TagCheckpointRequest request;
  request.set_job(arguments.job);
  request.set_checkpoint(arguments.checkpoint);
  request.set_tag(arguments.tag);
  request.set_request_key(CoordinatorClient::NewRequestKey());
  RETURN_IF_ERROR(Expect(arguments.expect, request));
  v1::Checkpoint checkpoint;
  RETURN_IF_ERROR(
      client->Call(client->checkpoints(), &v1::CheckpointService::Stub::TagCheckpoint, request, &checkpoint));
  return Print(context, checkpoint);
}

absl::Status Untag(CommandContext& context, const CheckpointArguments& arguments) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::UntagCheckpointRequest request;
  request.set_job(arguments.job);
  request.set_tag(arguments.tag);
  request.set_request_key(CoordinatorClient::NewRequestKey());
  RETURN_IF_ERROR(Expect(arguments.expect, request));
  v1::Checkpoint checkpoint;
  RETURN_IF_ERROR(
      client->Call(client->checkpoints(), &v1::CheckpointService::Stub::UntagCheckpoint, request, &checkpoint));
  return Print(context, checkpoint);
}

absl::Status Delete(CommandContext& context, const CheckpointArguments& arguments) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::DeleteCheckpointRequest request;
  request.set_job(arguments.job);
  request.set_checkpoint(arguments.checkpoint);
  request.set_dry_run(arguments.dry_run);
  request.set_request_key(CoordinatorClient::NewRequestKey());
  v1::DeleteCheckpointResponse response;
  RETURN_IF_ERROR(
      client->Call(client->checkpoints(), &v1::CheckpointService::Stub::DeleteCheckpoint, request, &response));
  if (context.format() != OutputFormat::kTable) return PrintMessage(response, context.format());
  std::cout << StripControlChars(response.message()) << "\n";
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::Checkpoint> GetCheckpoint(CommandContext& context, const std::string& job,
                                             const std::string& checkpoint) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::GetCheckpointRequest request;
  request.set_job(job);
  request.set_checkpoint(checkpoint);
  v1::Checkpoint found;
  RETURN_IF_ERROR(client->Call(client->checkpoints(), &v1::CheckpointService::Stub::GetCheckpoint, request, &found));
  return found;
}

void AddCheckpointCommands(CLI::App& app, CommandContext& context) {
  CLI::App* group =
      app.add_subcommand("checkpoint", "List, export, import, tag and delete checkpoints")->require_subcommand(1);
  auto arguments = std::make_shared<CheckpointArguments>();
  auto add = [&](const char* name, const char* help, const char* example,
                 absl::Status (*run)(CommandContext&, const CheckpointArguments&)) {
    CLI::App* command = group->add_subcommand(name, help);
    command->footer(absl::StrCat("Example:\n  ", example, "\n\n", kExitCodesHelp));
    command->callback([&context, arguments, run] { context.Report(run(context, *arguments)); });
    command->add_option("job", arguments->job, "Job id or name")->required();
    return command;
  };
  constexpr char kWhich[] = "A step, an alias (latest, best) or a tag";
  add("list", "List a job's checkpoints, newest first", "athanor checkpoint list digits", List)
      ->add_flag("--all", arguments->all, "Also unfinished and given-up ones");
  add("show", "Show one checkpoint", "athanor checkpoint show digits latest", Show)
      ->add_option("checkpoint", arguments->checkpoint, kWhich)
      ->required();
  AddConvertCommands(*group, context);
  CLI::App* tag = add("tag", "Point a tag at a checkpoint; it is then kept",
                      "athanor checkpoint tag digits best release-1 --expect none", Tag);
  tag->add_option("checkpoint", arguments->checkpoint, kWhich)->required();
  tag->add_option("tag", arguments->tag, "Name of the tag")->required();
  tag->add_option("--expect", arguments->expect, "Only if the tag now points at this step, or none");
  CLI::App* untag = add("untag", "Remove a tag", "athanor checkpoint untag digits release-1", Untag);
  untag->add_option("tag", arguments->tag, "Name of the tag")->required();
  untag->add_option("--expect", arguments->expect, "Only if the tag now points at this step");
  CLI::App* remove =
      add("delete", "Delete a checkpoint that nothing needs", "athanor checkpoint delete digits 120 --dry-run", Delete);
  remove->add_option("checkpoint", arguments->checkpoint, kWhich)->required();
  remove->add_flag("--dry-run", arguments->dry_run, "Say what would be deleted");
}

}  // namespace athanor
