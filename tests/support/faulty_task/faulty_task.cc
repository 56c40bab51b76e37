// The digits task with a fault of choice, for end-to-end tests. Options besides those of digits_mlp:
//
//   throw_at_step    throws "as asked by throw_at_step"         nan_from_step   the loss is NaN from this step on
//   oom_at_step      asks for more memory than there is         hang_at_step    never comes back
//   exit_code_at_step, exit_code (default 20)                   ends the process with this code
//   exit_in_evaluation_after    the same, in the first evaluation after this step
//   eat_at_step      takes and touches 16 GiB, page by page, so that a memory limit of the kernel ends the process
//   crash_at_step    reads an address that is not there
//   say              prints this and a newline with printf in each step, and flushes nothing
//   bar              1: prints "\rbar <step>" in each step, and flushes it
//   orphan_file      leaves a process with a session and a parent of its own, whose pid it writes there
//   hold_at_step, hold_fifo    waits at this step until something opens the named pipe for writing
//   hold_in_evaluation_after   the same, at each batch of the first evaluation after this step
//   rank             the rank that is faulty; -1 (default): all
//   once_file        the fault happens only while this file does not exist, and makes it
//
// A step here is a forward pass in train mode of this process, from 1.
#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdio>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "athanor/task/task.h"

namespace {

class FaultyTask : public athanor::Task {
 public:
  absl::Status Setup(const athanor::TaskContext& context) override {
    nlohmann::json options = context.options;
    throw_at_ = Take(options, "throw_at_step", 0);
    nan_from_ = Take(options, "nan_from_step", 0);
    oom_at_ = Take(options, "oom_at_step", 0);
    eat_at_ = Take(options, "eat_at_step", 0);
    hang_at_ = Take(options, "hang_at_step", 0);
    hold_at_ = Take(options, "hold_at_step", 0);
    hold_in_evaluation_after_ = Take(options, "hold_in_evaluation_after", 0);
    crash_at_ = Take(options, "crash_at_step", 0);
    bar_ = Take(options, "bar", 0);
    say_ = options.value("say", "");
    options.erase("say");
    orphan_file_ = options.value("orphan_file", "");
    options.erase("orphan_file");
    hold_fifo_ = options.value("hold_fifo", "");
    options.erase("hold_fifo");
    exit_at_ = Take(options, "exit_code_at_step", 0);
    exit_code_ = Take(options, "exit_code", 20);
    exit_in_evaluation_after_ = Take(options, "exit_in_evaluation_after", 0);
    const int64_t rank = Take(options, "rank", -1);
    faulty_ = rank < 0 || rank == context.rank;
    once_file_ = options.value("once_file", "");
    options.erase("once_file");
    absl::StatusOr<std::unique_ptr<athanor::Task>> digits = athanor::MakeTask("digits_mlp");
    if (!digits.ok()) return digits.status();
    digits_ = *std::move(digits);
    athanor::TaskContext inner = context;
    inner.options = options;
    return digits_->Setup(inner);
  }

  std::shared_ptr<torch::nn::Module> Model() override { return digits_->Model(); }
  std::map<std::string, std::shared_ptr<athanor::Dataset>> Datasets() override { return digits_->Datasets(); }

  athanor::StepOutput Forward(const athanor::Batch& batch) override {
    athanor::StepOutput output = digits_->Forward(batch);
    if (!faulty_) return output;
    if (!digits_->Model()->is_training()) {
      const bool exit = exit_in_evaluation_after_ > 0 && step_ >= exit_in_evaluation_after_;
      if (exit && Armed()) _exit(static_cast<int>(exit_code_));
      const bool hold = hold_in_evaluation_after_ > 0 && step_ >= hold_in_evaluation_after_ && !evaluated_;
      if (hold && Armed()) Hold();
      return output;
    }
    evaluated_ = evaluated_ || (hold_in_evaluation_after_ > 0 && step_ >= hold_in_evaluation_after_);
    ++step_;
    if (!say_.empty()) std::printf("%s\n", say_.c_str());
    if (bar_ > 0) {
      std::printf("\rbar %ld", static_cast<long>(step_));
      std::fflush(stdout);
    }
    if (!orphan_file_.empty() && step_ == 1) LeaveOrphan();
    if (step_ == crash_at_ && Armed()) Crash();
    if (step_ == throw_at_ && Armed()) throw std::runtime_error("as asked by throw_at_step");
    if (step_ == oom_at_ && Armed()) output.loss = output.loss + torch::empty({int64_t{1} << 50}).sum();
    if (step_ == eat_at_ && Armed()) Eat();
    if (step_ == exit_at_ && Armed()) _exit(static_cast<int>(exit_code_));
    if (step_ == hold_at_ && Armed()) Hold();
    if (step_ == hang_at_ && Armed()) {
      while (true) pause();
    }
    if (nan_from_ > 0 && step_ >= nan_from_ && Armed())
      output.loss = output.loss * std::numeric_limits<float>::quiet_NaN();
    return output;
  }

 private:
  static int64_t Take(nlohmann::json& options, const char* name, int64_t fallback) {
    const int64_t value = options.value(name, fallback);
    options.erase(name);
    return value;
  }

  // Opening a named pipe for reading blocks until it is opened for writing.
  void Hold() const {
    const int pipe = open(hold_fifo_.c_str(), O_RDONLY | O_CLOEXEC);
    if (pipe < 0) throw std::runtime_error("hold_fifo '" + hold_fifo_ + "' cannot be opened");
    char byte = 0;
    while (read(pipe, &byte, 1) > 0) {  // until it is closed again: one opening lets one step pass
    }
    close(pipe);
  }

  __attribute__((noinline)) static void Crash() { *reinterpret_cast<volatile int*>(16) = 1; }

  void LeaveOrphan() const {
    if (fork() != 0) return;
    setsid();
    const pid_t orphan = fork();
    if (orphan == 0) {
      while (true) pause();
    }
    const std::string fresh = orphan_file_ + ".new";
    if (std::FILE* file = std::fopen(fresh.c_str(), "w")) {
      std::fprintf(file, "%d", static_cast<int>(orphan));
      std::fclose(file);
      std::rename(fresh.c_str(), orphan_file_.c_str());
    }
    _exit(0);
  }

  static void Eat() {
    std::vector<torch::Tensor> eaten;
    for (int block = 0; block < 256; ++block) eaten.push_back(torch::ones({16 << 20}));  // 64 MiB each
    throw std::runtime_error("eat_at_step: no limit stopped it");
  }

  bool Armed() {
    if (once_file_.empty() || fired_) return true;
    const int file = open(once_file_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (file >= 0) close(file);
    return fired_ = file >= 0;
  }

  std::unique_ptr<athanor::Task> digits_;
  int64_t throw_at_ = 0, nan_from_ = 0, oom_at_ = 0, eat_at_ = 0, hang_at_ = 0, exit_at_ = 0, exit_code_ = 20,
          exit_in_evaluation_after_ = 0, hold_at_ = 0, hold_in_evaluation_after_ = 0, crash_at_ = 0, bar_ = 0,
          step_ = 0;
  bool faulty_ = false, fired_ = false, evaluated_ = false;
  std::string once_file_, hold_fifo_, say_, orphan_file_;
};

}  // namespace

ATHANOR_REGISTER_TASK("faulty", FaultyTask);
