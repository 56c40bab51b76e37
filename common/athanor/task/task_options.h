// Reads a task's options out of the job file, each with its default and its limits, and refuses what is left over.
//
//   TaskOptions options("digits_mlp", context.options);
//   const std::string data = options.RequiredText("data");
//   const double dropout = options.Number("dropout", 0.0, 0.0, 0.95);
//   RETURN_IF_ERROR(options.Check());   // every mistake at once, unknown options by name with the nearest known one
//
// The getters never fail: after a mistake they give the default, and Check() tells. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/status.h"

namespace athanor {

// One option as a task asked for it: a row of docs/task-options.md.
struct TaskOptionNote {
  std::string name;
  std::string fallback;  // as text; empty: nothing
  std::string allowed;
};

// While it lives, TaskOptions::Check() on this thread notes the options that were asked for, and ends in a status of
// its own where they are good: Setup() then stops before it reads data. One at a time on a thread.
//
//   TaskOptionsProbe probe;
//   const absl::Status status = task->Setup({.options = options});
//   if (!TaskOptionsProbe::Stopped(status)) return status;   // what is wrong, or OK of a task without TaskOptions
class TaskOptionsProbe {
 public:
  TaskOptionsProbe();
  ~TaskOptionsProbe();
  TaskOptionsProbe(const TaskOptionsProbe&) = delete;
  TaskOptionsProbe& operator=(const TaskOptionsProbe&) = delete;

  // In the order in which the task asked.
  const std::vector<TaskOptionNote>& notes() const { return notes_; }
  // Whether Setup() ended with this status because a probe stopped it: the options are good.
  static bool Stopped(const absl::Status& status);

 private:
  friend class TaskOptions;
  std::vector<TaskOptionNote> notes_;
};

class TaskOptions {
 public:
  // `options` outlives this object; null counts as empty.
  TaskOptions(std::string task, const nlohmann::json& options);

  int64_t Integer(const std::string& name, int64_t fallback, int64_t min, int64_t max);
  double Number(const std::string& name, double fallback, double min, double max);
  bool Flag(const std::string& name, bool fallback);
  std::string Text(const std::string& name, const std::string& fallback);
  std::string RequiredText(const std::string& name);
  std::string Choice(const std::string& name, const std::string& fallback, const std::vector<std::string>& allowed);
  // One number, or a list of at most `max_count`.
  std::vector<int64_t> Integers(const std::string& name, std::vector<int64_t> fallback, int64_t min, int64_t max,
                                size_t max_count);
  // A mapping of names to texts. Default: empty.
  std::map<std::string, std::string> Texts(const std::string& name);
  // A mistake that only the task can see.
  void Complain(const std::string& name, const std::string& what);

  // INVALID_ARGUMENT with one part per mistake: "task.options.dropout: found 2 (integer); allowed: 0 to 0.95".
  // Under a TaskOptionsProbe good options give its status.
  absl::Status Check() const;
  // The same, and `look` opens the files that the options name, to refuse what no rank could use. Called only under a
  // TaskOptionsProbe and where the options are good. A NOT_FOUND is passed over: the files may be on the workers only.
  absl::Status Check(const std::function<absl::Status()>& look) const;

 private:
  // Null when it is not given. Notes it in either case.
  const nlohmann::json* Find(const std::string& name, const std::string& fallback, const std::string& allowed);
  // By what Find() was told.
  void RefuseLast(const nlohmann::json& found);

  const std::string task_;
  const nlohmann::json& options_;
  std::vector<TaskOptionNote> asked_;
  std::vector<std::string> mistakes_;
};

}  // namespace athanor
