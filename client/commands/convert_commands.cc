// athanor checkpoint export and import: athanor-trainer does the work, on this machine.
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "athanor/base/json_text.h"
#include "athanor/base/run_program.h"
#include "athanor/base/status_macros.h"
#include "athanor/contract/exit_codes.h"
#include "client/byte_size.h"
#include "client/commands/command.h"
#include "client/trainer_program.h"

namespace athanor {
namespace {

// A model of hundreds of GiB at the speed of a slow disk.
constexpr absl::Duration kConvertLimit = absl::Hours(12);

struct ConvertArguments {
  std::string job, checkpoint, from, to;
  std::string format = "auto", dtype, content = "weights", max_shard_size;
  std::vector<std::string> rename;
  int64_t step = 0;
};

// Whoever exports `latest` shall know when that is not where the job is.
absl::Status SayHowFarBehind(CommandContext& context, const v1::Checkpoint& checkpoint) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::GetJobRequest request;
  request.set_job(checkpoint.job());
  v1::Job job;
  RETURN_IF_ERROR(client->Call(client->jobs(), &v1::JobService::Stub::GetJob, request, &job));
  if (!job.checkpoint_warning().empty())
    context.Say(absl::StrCat("warning: ", job.id(), ": ", StripControlChars(job.checkpoint_warning())));
  return absl::OkStatus();
}

std::string Described(const nlohmann::json& report) {
  return absl::StrCat(report.value("path", ""), " (", report.value("to", ""), ", ", report.value("tensors", int64_t{0}),
                      " tensors, ", FormatBytes(report.value("bytes", int64_t{0})), ")");
}

void SayWhatIsLeftOut(CommandContext& context, const nlohmann::json& report) {
  const auto skipped = report.value("skipped", std::vector<std::string>());
  if (skipped.empty()) return;
  constexpr size_t kShown = 5;
  const size_t shown = std::min(skipped.size(), kShown);
  const std::string more = shown < skipped.size() ? absl::StrCat(" and ", skipped.size() - shown, " more") : "";
  context.Say(absl::StrCat(
      "left out: ",
      StripControlChars(absl::StrJoin(skipped.begin(), skipped.begin() + static_cast<std::ptrdiff_t>(shown), ", ")),
      more));
}

absl::StatusOr<nlohmann::json> Convert(const std::string& from, const ConvertArguments& arguments,
                                       std::vector<std::string> options) {
  std::vector<std::string> command = {TrainerProgram(), "convert", from, arguments.to};
  command.insert(command.end(), options.begin(), options.end());
  if (!arguments.dtype.empty()) command.push_back(absl::StrCat("--dtype=", arguments.dtype));
  for (const std::string& rule : arguments.rename) command.push_back(absl::StrCat("--rename=", rule));
  ASSIGN_OR_RETURN(const ProgramOutput output, RunProgram(command, {.limit = kConvertLimit, .errors_too = true}));
  const std::string said(absl::StripPrefix(absl::StripAsciiWhitespace(output.text), "error: "));
  if (output.exit_code == kExitInvalid) return absl::InvalidArgumentError(said);
  nlohmann::json report = ParseJsonText(said);
  if (output.exit_code != 0 || !report.is_object())
    return absl::UnknownError(absl::StrCat("cannot convert ", from, ": ", said));
  return report;
}

absl::Status Export(CommandContext& context, const ConvertArguments& arguments) {
  std::vector<std::string> options = {absl::StrCat("--format=", arguments.format),
                                      absl::StrCat("--content=", arguments.content)};
  if (!arguments.max_shard_size.empty()) {
    const absl::StatusOr<int64_t> size = ParseByteSize(arguments.max_shard_size);
    if (!size.ok()) return absl::InvalidArgumentError(absl::StrCat("--max-shard-size: ", size.status().message()));
    options.push_back(absl::StrCat("--max-shard-bytes=", *size));
  }
  ASSIGN_OR_RETURN(const v1::Checkpoint checkpoint, GetCheckpoint(context, arguments.job, arguments.checkpoint));
  const absl::StatusOr<nlohmann::json> report = Convert(checkpoint.path(), arguments, options);
  if (!report.ok()) return report.status();
  if (context.format() != OutputFormat::kTable) {
    RETURN_IF_ERROR(PrintMessage(checkpoint, context.format()));
  } else {
    std::cout << checkpoint.name() << " -> " << Described(*report) << "\n";
  }
  return SayHowFarBehind(context, checkpoint);
}

absl::Status Import(CommandContext& context, const ConvertArguments& arguments) {
  ASSIGN_OR_RETURN(const nlohmann::json report,
                   Convert(arguments.from, arguments,
                           {"--format=athanor", "--content=all", absl::StrCat("--from-format=", arguments.format),
                            absl::StrCat("--step=", arguments.step)}));
  if (context.format() != OutputFormat::kTable) {
    std::cout << report.dump(2) << "\n";
  } else {
    std::cout << arguments.from << " (" << report.value("from", "") << ") -> " << Described(report) << "\n";
  }
  SayWhatIsLeftOut(context, report);
  return absl::OkStatus();
}

}  // namespace

void AddConvertCommands(CLI::App& checkpoint, CommandContext& context) {
  auto arguments = std::make_shared<ConvertArguments>();
  auto add = [&](const char* name, const char* help, const char* example,
                 absl::Status (*run)(CommandContext&, const ConvertArguments&)) {
    CLI::App* command = checkpoint.add_subcommand(name, help);
    command->footer(absl::StrCat("Example:\n  ", example, "\n\n", kExitCodesHelp));
    command->callback([&context, arguments, run] { context.Report(run(context, *arguments)); });
    return command;
  };
  CLI::App* exported =
      add("export", "Write a checkpoint for PyTorch, Hugging Face or torch.distributed.checkpoint",
          "athanor checkpoint export digits best digits.safetensors --dtype bf16\n  athanor checkpoint "
          "export digits latest digits-hf/ --format hf --max-shard-size 5GB",
          Export);
  exported->add_option("job", arguments->job, "Job id or name")->required();
  exported->add_option("checkpoint", arguments->checkpoint, "A step, an alias (latest, best) or a tag")->required();
  exported->add_option("file", arguments->to, "FILE.safetensors, FILE.pt, or with --format hf or dcp a folder")
      ->required();
  exported->add_option("--format", arguments->format, "safetensors, pt, hf, dcp, athanor; auto: by the ending [auto]");
  exported->add_option("--content", arguments->content, "weights (their average where there is one), or all [weights]");
  exported->add_option("--max-shard-size", arguments->max_shard_size, "Of a Hugging Face folder's files [5GiB]");
  CLI::App* imported = add("import", "Make a checkpoint of what other programs have saved",
                           "athanor checkpoint import digits-hf/ imported --rename '^model\\.='", Import);
  imported->add_option("source", arguments->from, "A file or a folder")->required();
  imported->add_option("folder", arguments->to, "Gets the checkpoint's folder, step-…")->required();
  imported->add_option("--format", arguments->format,
                       "safetensors, pt, hf, dcp, deepspeed; auto: by what is there [auto]");
  imported->add_option("--step", arguments->step, "Step that the checkpoint is of [0]");
  for (CLI::App* command : {exported, imported}) {
    command->add_option("--dtype", arguments->dtype, "Of floating-point weights: fp32, fp16, bf16, fp64");
    command->add_option("--rename", arguments->rename, "EXPRESSION=TEXT, applied to every name; several in order")
        ->expected(1)
        ->take_all();
  }
}

}  // namespace athanor
