#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/near_names.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/utf8_text.h"
#include "client/commands/command.h"
#include "client/follow_guard.h"
#include "client/job_file.h"
#include "client/log_printer.h"
#include "client/progress.h"
#include "client/standard_streams.h"
#include "client/trainer_program.h"

namespace athanor {
namespace {

struct JobArguments {
  std::string file, job, request_key, name, reason;
  std::vector<std::string> sets, labels, states, types;
  bool dry_run = false, watch = false, wait = false, follow = false, from_scratch = false;
  int32_t rank = -1, generation = 0, limit = 100;
  int64_t tail = 0;
};

absl::Status AddLabels(const std::vector<std::string>& pairs, google::protobuf::Map<std::string, std::string>& labels) {
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      return absl::InvalidArgumentError(absl::StrCat("--label ", pair, ": expected name=value"));
    if (FirstByteNotUtf8(pair) != std::string::npos)
      return absl::InvalidArgumentError(
          absl::StrCat("--label: byte ", FirstByteNotUtf8(pair) + 1, " is not UTF-8; allowed: UTF-8 text"));
    labels[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return absl::OkStatus();
}

int ResultOf(const v1::Job& job) {
  if (job.state() == v1::SUCCEEDED) return job.checkpoint_warning().empty() ? kOk : kCheckpointMissing;
  return job.state() == v1::CANCELLED ? kJobCancelled : kJobFailed;
}

// How a following command ends when it was not by itself: 130 and a word, or 141 without one.
absl::Status EndOfFollowing(CommandContext& context, const FollowGuard& guard, const absl::Status& status,
                            const std::string& detached) {
  if (guard.interrupted()) {
    context.Say(detached);
    context.exit_code = kDetached;
  } else if (guard.reader_gone()) {
    context.exit_code = kReaderGone;
  } else {
    return status;
  }
  return absl::OkStatus();
}

// Follows a job to its end; the exit code is the job's result. Ctrl-C detaches.
absl::Status WatchJob(CommandContext& context, const std::string& job, const std::string& announcement = "") {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  FollowGuard guard({STDOUT_FILENO, STDERR_FILENO});
  if (!announcement.empty()) context.Say(announcement);
  ProgressDisplay display(Terminal::Detect(context.no_color));
  v1::Job last;
  last.set_id(job);
  const absl::Status status =
      client->Watch(job, {.cancellation = &guard.cancellation()}, [&](const v1::WatchJobResponse& update) {
        if (update.has_job()) last = update.job();
        if (!context.quiet) display.Update(update);
        return true;
      });
  display.Close();
  if (guard.cancellation().cancelled()) {
    return EndOfFollowing(
        context, guard, status,
        absl::StrCat("detached; ", last.id(), " goes on. See it again with: athanor job watch ", last.id()));
  }
  RETURN_IF_ERROR(status);
  if (context.format() != OutputFormat::kTable) RETURN_IF_ERROR(PrintMessage(last, context.format()));
  context.exit_code = ResultOf(last);
  context.Say(absl::StrCat(last.id(), " ", absl::AsciiStrToLower(StateName(last.state())), ": ",
                           StripControlChars(last.reason())));
  return absl::OkStatus();
}

// The coordinator says the same, but hears only what fits into a message.
absl::Status CheckSpecSize(const v1::JobSpec& spec) {
  const size_t bytes = spec.ByteSizeLong();
  if (bytes <= static_cast<size_t>(kMaxSpecBytes)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the job: ", bytes, " bytes with all options and variables; allowed: ",
                                                 kMaxSpecBytes, ". Larger data belongs into files"));
}

absl::Status Submit(CommandContext& context, const JobArguments& arguments) {
  v1::SubmitJobRequest request;
  ASSIGN_OR_RETURN(*request.mutable_spec(), LoadJobFile(arguments.file, arguments.sets));
  if (!arguments.name.empty()) request.mutable_spec()->set_name(arguments.name);
  RETURN_IF_ERROR(AddLabels(arguments.labels, *request.mutable_spec()->mutable_labels()));
  request.set_dry_run(arguments.dry_run);
  request.set_request_key(arguments.request_key.empty() ? CoordinatorClient::NewRequestKey() : arguments.request_key);
  RETURN_IF_ERROR(CheckSpecSize(request.spec()));
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::SubmitJobResponse response;
  RETURN_IF_ERROR(client->Call(client->jobs(), &v1::JobService::Stub::SubmitJob, request, &response));
  std::string unchecked;
  if (arguments.dry_run) RETURN_IF_ERROR(CheckTaskOptions(request.spec(), unchecked));
  if (!unchecked.empty()) context.Say(absl::StrCat("task options were not checked: ", StripControlChars(unchecked)));
  if (arguments.watch && !arguments.dry_run) {
    return WatchJob(context, response.job(),
                    absl::StrCat(response.created() ? "submitted " : "exists already: ", response.job()));
  }
  if (context.format() != OutputFormat::kTable) return PrintMessage(response, context.format());
  if (!arguments.dry_run) {
    std::cout << response.job() << "\n";
    return absl::OkStatus();
  }
  std::cout << "valid; " << StripControlChars(response.placement()) << "\n";
  for (const v1::RankPlacement& rank : response.ranks())
    std::cout << "  rank " << rank.rank() << " on " << StripControlChars(rank.worker()) << ", slots "
              << absl::StrJoin(rank.slots(), ",") << "\n";
  return absl::OkStatus();
}

// A checkpoint that lags behind counts for more than what else is told of the job.
std::string ReasonOf(const v1::Job& job) {
  const std::string& warning = job.checkpoint_warning();
  return warning.empty() ? job.reason() : absl::StrCat("checkpoint: ", warning);
}

absl::Status List(CommandContext& context, const JobArguments& arguments) {
  v1::ListJobsRequest request;
  for (const std::string& name : arguments.states) {
    v1::JobState state;
    if (!v1::JobState_Parse(absl::AsciiStrToUpper(name), &state)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--state ", name,
          ": allowed: queued, running, backing_off, suspending, suspended, cancelling, succeeded, failed, cancelled"));
    }
    request.add_states(state);
  }
  RETURN_IF_ERROR(AddLabels(arguments.labels, *request.mutable_labels()));
  request.set_name(arguments.name);
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::ListJobsResponse all;
  while (all.jobs_size() < arguments.limit) {
    request.set_page_size(std::min(1000, arguments.limit - all.jobs_size()));
    v1::ListJobsResponse page;
    RETURN_IF_ERROR(client->Call(client->jobs(), &v1::JobService::Stub::ListJobs, request, &page));
    all.mutable_jobs()->MergeFrom(page.jobs());
    all.set_next_page_token(page.next_page_token());
    if (page.next_page_token().empty()) break;
    request.set_page_token(page.next_page_token());
  }
  if (context.format() != OutputFormat::kTable) return PrintMessage(all, context.format());
  std::vector<std::vector<std::string>> rows = {
      {"ID", "STATE", "STEP", "LOSS", "GEN", "RESTARTS", "PRIORITY", "AGE", "REASON"}};
  for (const v1::Job& job : all.jobs()) {
    const v1::JobProgress& progress = job.progress();
    rows.push_back(
        {job.id(), StateName(job.state()),
         absl::StrCat(progress.step(), progress.total_steps() > 0 ? absl::StrCat("/", progress.total_steps()) : ""),
         progress.step() > 0 && std::isfinite(progress.loss()) ? absl::StrCat(progress.loss()) : "-",
         absl::StrCat(job.generation()), absl::StrCat(progress.restarts()), absl::StrCat(job.spec().priority()),
         FormatAge(job.created_at(), absl::Now()), FirstColumns(StripControlChars(ReasonOf(job)), 60)});
  }
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

absl::StatusOr<v1::Job> FetchJob(CommandContext& context, const std::string& name) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::GetJobRequest request;
  request.set_job(name);
  v1::Job job;
  RETURN_IF_ERROR(client->Call(client->jobs(), &v1::JobService::Stub::GetJob, request, &job));
  return job;
}

absl::Status Get(CommandContext& context, const JobArguments& arguments) {
  ASSIGN_OR_RETURN(const v1::Job job, FetchJob(context, arguments.job));
  if (context.format() != OutputFormat::kTable) return PrintMessage(job, context.format());
  std::vector<std::vector<std::string>> rows = {{"id", job.id()},
                                                {"state", StateName(job.state())},
                                                {"reason", job.reason()},
                                                {"progress", ProgressLine(job, 200)},
                                                {"created", FormatTime(job.created_at())},
                                                {"started", FormatTime(job.started_at())},
                                                {"ended", FormatTime(job.ended_at())},
                                                {"resumed from", job.progress().resume_source()},
                                                {"checkpoints", job.job_dir()}};
  if (!job.checkpoint_warning().empty()) rows.push_back({"warning", job.checkpoint_warning()});
  for (const auto& [name, value] :
       std::map<std::string, double>(job.progress().metrics().begin(), job.progress().metrics().end()))
    rows.push_back({name, absl::StrCat(value)});
  const v1::Goodput& split = job.goodput();
  rows.push_back({"goodput", absl::StrCat("productive ", FormatSeconds(split.productive_seconds()), ", recomputed ",
                                          FormatSeconds(split.recomputed_seconds()), ", checkpoint ",
                                          FormatSeconds(split.checkpoint_seconds()), ", recovery ",
                                          FormatSeconds(split.recovery_seconds()), ", queue ",
                                          FormatSeconds(split.queue_seconds()), ", suspended ",
                                          FormatSeconds(split.suspended_seconds()))});
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

// After a verb with --wait: until the job is where the verb takes it.
absl::Status WaitForState(CommandContext& context, const std::string& job, std::initializer_list<v1::JobState> states) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  const absl::Duration limit = context.timeout_given ? context.timeout : absl::Minutes(2);
  FollowGuard guard({STDOUT_FILENO});
  const WatchOptions options{.after_event = std::numeric_limits<int64_t>::max() - 1,
                             .deadline = absl::Now() + limit,
                             .cancellation = &guard.cancellation()};
  v1::Job last;
  const absl::Status status = client->Watch(job, options, [&](const v1::WatchJobResponse& update) {
    last = update.job();
    return std::find(states.begin(), states.end(), last.state()) == states.end();
  });
  if (guard.cancellation().cancelled())
    return EndOfFollowing(context, guard, status, absl::StrCat("no longer waiting; the request for ", job, " stands"));
  if (absl::IsDeadlineExceeded(status) && last.state() != v1::JOB_STATE_UNSPECIFIED)
    return absl::DeadlineExceededError(absl::StrCat(last.id(), " is still ", StateName(last.state()), " after ",
                                                    absl::FormatDuration(limit), " (--timeout); the request stands"));
  RETURN_IF_ERROR(status);
  if (std::find(states.begin(), states.end(), last.state()) != states.end()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(last.id(), " is ", StateName(last.state())));
}

using VerbMethod = grpc::Status (v1::JobService::Stub::*)(grpc::ClientContext*, const v1::JobVerbRequest&,
                                                          v1::JobVerbResponse*);

absl::Status Verb(CommandContext& context, const JobArguments& arguments, VerbMethod method,
                  std::initializer_list<v1::JobState> goal) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::JobVerbRequest request;
  request.set_job(arguments.job);
  request.set_reason(arguments.reason);
  request.set_from_scratch(arguments.from_scratch);
  request.mutable_set()->Add(arguments.sets.begin(), arguments.sets.end());
  request.set_request_key(arguments.request_key.empty() ? CoordinatorClient::NewRequestKey() : arguments.request_key);
  v1::JobVerbResponse response;
  RETURN_IF_ERROR(client->Call(client->jobs(), method, request, &response));
  if (arguments.wait) RETURN_IF_ERROR(WaitForState(context, response.job(), goal));
  if (context.exit_code != kOk) return absl::OkStatus();
  if (context.format() != OutputFormat::kTable) return PrintMessage(response, context.format());
  if (!response.message().empty()) context.Say(StripControlChars(response.message()));
  std::cout << response.job() << "\n";
  return absl::OkStatus();
}

absl::Status Logs(CommandContext& context, const JobArguments& arguments) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::ReadLogsRequest request;
  request.set_job(arguments.job);
  request.set_rank(arguments.rank);
  request.set_generation(arguments.generation);
  request.set_follow(arguments.follow);
  request.set_tail_bytes(arguments.tail);
  FollowGuard guard({STDOUT_FILENO});
  LogPrinter printer({.merged = arguments.rank < 0 || arguments.generation == 0,
                      .terminal = isatty(STDOUT_FILENO) != 0,
                      .format = context.format()});
  bool any = false;
  const absl::Status status = client->ReadLogs(request, &guard.cancellation(), [&](const v1::LogChunk& chunk) {
    any = true;
    printer.Print(chunk);
    return OutputIsGood();
  });
  printer.Close();
  if (status.ok() && !any && !guard.cancellation().cancelled())
    context.Say(absl::StrCat("athanor: ", arguments.job, " has printed nothing"));
  return EndOfFollowing(context, guard, status, "no longer following; the job goes on");
}

absl::Status Explain(CommandContext& context, const JobArguments& arguments) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  v1::GetJobRequest request;
  request.set_job(arguments.job);
  v1::ExplainJobResponse response;
  RETURN_IF_ERROR(client->Call(client->jobs(), &v1::JobService::Stub::ExplainJob, request, &response));
  if (context.format() != OutputFormat::kTable) return PrintMessage(response, context.format());
  for (const std::string& line : response.chain()) std::cout << StripControlChars(line) << "\n";
  return absl::OkStatus();
}

bool IsOneOf(const std::string& type, const std::vector<std::string>& types) {
  return types.empty() ||
         std::any_of(types.begin(), types.end(), [&](const auto& one) { return absl::EqualsIgnoreCase(type, one); });
}

// Whoever asks for a type that no event has may have mistyped it.
class EventTypes {
 public:
  void Add(const v1::JobEvent& event) { seen_.insert(event.type()); }
  void SayMissing(const CommandContext& context, const std::vector<std::string>& wanted) const {
    const std::vector<std::string> all(seen_.begin(), seen_.end());
    for (const std::string& type : wanted) {
      if (std::any_of(all.begin(), all.end(), [&](const auto& one) { return absl::EqualsIgnoreCase(type, one); }))
        continue;
      const std::string near = NearestName(type, all);
      context.Say(absl::StrCat("athanor: no event of type '", type, "'",
                               near.empty() ? "" : absl::StrCat(", did you mean '", near, "'?"),
                               "; the job has: ", absl::StrJoin(all, ", ")));
    }
  }

 private:
  std::set<std::string> seen_;
};

// One line each; one JSON object a line where JSON is asked for.
absl::Status FollowEvents(CommandContext& context, CoordinatorClient& client, const JobArguments& arguments) {
  FollowGuard guard({STDOUT_FILENO});
  absl::Status printed;
  EventTypes types;
  const absl::Status status =
      client.Watch(arguments.job, {.cancellation = &guard.cancellation()}, [&](const v1::WatchJobResponse& update) {
        for (const v1::JobEvent& event : update.events()) {
          types.Add(event);
          if (!IsOneOf(event.type(), arguments.types)) continue;
          if (context.format() == OutputFormat::kTable) {
            std::cout << EventLine(event, false) << "\n";
          } else {
            printed.Update(PrintMessageLine(event, context.format()));
          }
        }
        std::cout << std::flush;
        return OutputIsGood() && printed.ok();
      });
  if (status.ok() && !guard.cancellation().cancelled()) types.SayMissing(context, arguments.types);
  return EndOfFollowing(context, guard, printed.ok() ? status : printed, "no longer following; the job goes on");
}

absl::StatusOr<v1::ListEventsResponse> FetchEvents(CoordinatorClient& client, const std::string& job,
                                                   const std::vector<std::string>& types) {
  v1::ListEventsResponse all;
  v1::ListEventsRequest request;
  request.set_job(job);
  request.set_limit(1000);
  request.mutable_types()->Add(types.begin(), types.end());
  while (true) {
    v1::ListEventsResponse page;
    RETURN_IF_ERROR(client.Call(client.jobs(), &v1::JobService::Stub::ListEvents, request, &page));
    all.mutable_events()->MergeFrom(page.events());
    if (page.next_after() == 0) return all;
    request.set_after(page.next_after());
  }
}

absl::Status Events(CommandContext& context, const JobArguments& arguments) {
  ASSIGN_OR_RETURN(CoordinatorClient * client, context.Client());
  if (arguments.follow) return FollowEvents(context, *client, arguments);
  ASSIGN_OR_RETURN(v1::ListEventsResponse all, FetchEvents(*client, arguments.job, arguments.types));
  if (!arguments.types.empty() && all.events().empty()) {
    ASSIGN_OR_RETURN(const v1::ListEventsResponse others, FetchEvents(*client, arguments.job, {}));
    EventTypes types;
    for (const v1::JobEvent& event : others.events()) types.Add(event);
    types.SayMissing(context, arguments.types);
  }
  if (context.format() != OutputFormat::kTable) return PrintMessage(all, context.format());
  for (const v1::JobEvent& event : all.events()) std::cout << EventLine(event, false) << "\n";
  return absl::OkStatus();
}

void AddSubmitOptions(CLI::App& submit, JobArguments& arguments) {
  submit.add_option("file", arguments.file, "Job file, YAML or JSON; - reads standard input")->required();
  submit.add_option("--set", arguments.sets, "field=value in place of the file's, several")->allow_extra_args(false);
  submit.add_flag("--dry-run", arguments.dry_run, "Only check, task options too, and say where it would run");
  submit.add_flag("--watch", arguments.watch, "Follow to the end; the exit code is the job's result");
  submit.add_option("--request-key", arguments.request_key, "The same key twice is one job");
  submit.add_option("--name", arguments.name, "Name in place of the file's");
  submit.add_option("--label", arguments.labels, "name=value, several")->allow_extra_args(false);
}

}  // namespace

void AddJobCommands(CLI::App& app, CommandContext& context) {
  CLI::App* job = app.add_subcommand("job", "Submit, follow and steer jobs")->require_subcommand(1);
  auto arguments = std::make_shared<JobArguments>();
  auto add = [&](const char* name, const char* help, const char* example, const std::function<absl::Status()>& run) {
    CLI::App* command = job->add_subcommand(name, help);
    command->footer(absl::StrCat("Example:\n  ", example, "\n\n", kExitCodesHelp));
    command->callback([&context, run] { context.Report(run()); });
    return command;
  };
  CLI::App* submit = add("submit", "Submit a job file",
                         "athanor job submit examples/jobs/digits.yaml --watch --set runner.optim.lr=0.01",
                         [&context, arguments] { return Submit(context, *arguments); });
  AddSubmitOptions(*submit, *arguments);

  CLI::App* list = add("list", "List jobs, newest first", "athanor job list --state running -l team=vision",
                       [&context, arguments] { return List(context, *arguments); });
  list->add_option("--state", arguments->states, "Only these states, several")->allow_extra_args(false);
  list->add_option("-l,--label", arguments->labels, "Only jobs with this name=value, several")->allow_extra_args(false);
  list->add_option("--name", arguments->name, "Only jobs of this name");
  list->add_option("--limit", arguments->limit, "At most so many")->capture_default_str()->check(CLI::Range(1, 100000));

  auto named = [&](CLI::App* command) {
    command->add_option("job", arguments->job, "Job id, or a name that stands for one job")->required();
    return command;
  };
  named(add("get", "Show one job", "athanor job get digits -o json",
            [&context, arguments] { return Get(context, *arguments); }));
  named(add("watch", "Follow a job to its end; the exit code is its result", "athanor job watch digits",
            [&context, arguments] { return WatchJob(context, arguments->job); }));
  named(add("explain", "Why is the job where it is: decisions, first failure, its last lines",
            "athanor job explain digits", [&context, arguments] { return Explain(context, *arguments); }));
  auto verb = [&](const char* name, const char* help, VerbMethod method, const std::vector<v1::JobState>& goal) {
    CLI::App* command = named(add(name, help, absl::StrCat("athanor job ", name, " digits --wait").c_str(),
                                  [&context, arguments, method, goal] {
                                    if (goal.size() == 1) return Verb(context, *arguments, method, {goal[0]});
                                    return Verb(context, *arguments, method, {goal[0], goal[1], goal[2]});
                                  }));
    command->add_flag("--wait", arguments->wait, "Until it is done (--timeout, default 2 minutes)");
    command->add_option("--reason", arguments->reason, "Kept in the job's events");
    command->add_option("--request-key", arguments->request_key, "The same key twice is one request");
    return command;
  };
  verb("cancel", "Stop a job for good", &v1::JobService::Stub::CancelJob, {v1::CANCELLED});
  verb("suspend", "Save at one step boundary and give the slots back", &v1::JobService::Stub::SuspendJob,
       {v1::SUSPENDED});
  CLI::App* remove =
      named(add("delete", "Forget a job that is over; its files stay", "athanor job delete digits",
                [&context, arguments] { return Verb(context, *arguments, &v1::JobService::Stub::DeleteJob, {}); }));
  remove->add_option("--request-key", arguments->request_key, "The same key twice is one request");
  CLI::App* resume = verb("resume", "Continue a suspended job", &v1::JobService::Stub::ResumeJob,
                          {v1::RUNNING, v1::QUEUED, v1::SUCCEEDED});
  resume->add_flag("--from-scratch", arguments->from_scratch,
                   "Begin again: its checkpoints are set aside (and kept), also when they cannot be read");
  resume
      ->add_option("--set", arguments->sets,
                   "field=value to go on with, several: resources.ranks, parallel.axes.shard and other options "
                   "of the runner that its checkpoints allow")
      ->allow_extra_args(false);
  CLI::App* logs = named(add("logs", "Print the output of ranks", "athanor job logs digits --rank 1 --follow",
                             [&context, arguments] { return Logs(context, *arguments); }));
  logs->add_option("--rank", arguments->rank, "Only this rank [all]");
  logs->add_option("--generation", arguments->generation, "Only this generation [all]");
  logs->add_flag("-f,--follow", arguments->follow, "Go on, over restarts, until the job is over");
  logs->add_option("--tail", arguments->tail, "Only the last BYTES of each log");
  CLI::App* events = named(add("events", "Print a job's history with the reasons", "athanor job events digits",
                               [&context, arguments] { return Events(context, *arguments); }));
  events->add_flag("-f,--follow", arguments->follow, "Go on until the job is over");
  events->add_option("--type", arguments->types, "Only events of this type, such as RankFailed, several")
      ->allow_extra_args(false);
}

}  // namespace athanor
