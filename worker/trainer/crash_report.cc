#include "worker/trainer/crash_report.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#include "absl/debugging/symbolize.h"

namespace athanor {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
constexpr int kMostFrames = 64, kFramesInFile = 8;
constexpr size_t kStackBytes = 256 * 1024;  // symbol tables are read in pieces on it
constexpr size_t kNameBytes = 512, kShortNameBytes = 100;

char failure_file[4096] = "";
char fresh_file[4096 + 4] = "";

// Text in a buffer of fixed size; what does not fit is left out.
template <size_t kSize>
class FixedText {
 public:
  FixedText& operator<<(const char* text) {
    while (*text != '\0' && size_ < kSize) bytes_[size_++] = *text++;
    return *this;
  }
  FixedText& operator<<(int64_t number) {
    char digits[24];
    int at = sizeof digits;
    uint64_t rest = number < 0 ? -static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
    do digits[--at] = static_cast<char>('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (number < 0) digits[--at] = '-';
    return Append(digits + at, sizeof digits - static_cast<size_t>(at));
  }
  FixedText& Hex(uintptr_t number) {
    char digits[18];
    int at = sizeof digits;
    do digits[--at] = "0123456789abcdef"[number % 16];
    while ((number /= 16) > 0);
    return (*this << "0x").Append(digits + at, sizeof digits - static_cast<size_t>(at));
  }
  FixedText& Append(const char* bytes, size_t size) {
    for (size_t i = 0; i < size && size_ < kSize; ++i) bytes_[size_++] = bytes[i];
    return *this;
  }
  const char* data() const { return bytes_; }
  size_t size() const { return size_; }

 private:
  char bytes_[kSize];
  size_t size_ = 0;
};

void Write(int fd, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, bytes, size);
    if (written <= 0) return;
    bytes += written;
    size -= static_cast<size_t>(written);
  }
}

const char* NameOf(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "SIGSEGV";
    case SIGBUS:
      return "SIGBUS";
    case SIGILL:
      return "SIGILL";
    case SIGFPE:
      return "SIGFPE";
    case SIGABRT:
      return "SIGABRT";
    case SIGTRAP:
      return "SIGTRAP";
    default:
      return "SIGSYS";
  }
}

// Whole name with its parameters in the log, only the name in the file.
template <size_t kSize>
void AppendPlace(void* address, bool brief, FixedText<kSize>* text) {
  // Return addresses point behind the call, which may be the next function.
  auto* inside = static_cast<char*>(address) - 1;
  char name[kNameBytes];
  Dl_info object = {};
  const bool known = absl::Symbolize(inside, name, sizeof name);
  const bool found = dladdr(inside, &object) != 0 && object.dli_fname != nullptr;
  if (known && brief) {
    size_t length = strcspn(name, "(<");
    if (length == 0) length = strlen(name);  // "(anonymous namespace)::…"
    text->Append(name, length < kShortNameBytes ? length : kShortNameBytes);
    return;
  }
  if (known) *text << name << "  ";
  if (found) {
    const char* slash = strrchr(object.dli_fname, '/');
    *text << (slash == nullptr ? object.dli_fname : slash + 1) << "+";
    text->Hex(reinterpret_cast<uintptr_t>(inside) - reinterpret_cast<uintptr_t>(object.dli_fbase));
  } else if (!known) {
    text->Hex(reinterpret_cast<uintptr_t>(inside));
  }
}

uintptr_t ProgramCounter(const void* context) {
  const auto& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  return static_cast<uintptr_t>(machine.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return static_cast<uintptr_t>(machine.pc);
#else
  return 0;
#endif
}

// The frames from where the signal struck; those of this file and of the C library's trampoline are left out.
int Frames(const void* context, void** frames) {
  void* all[kMostFrames + 8];
  const int count = backtrace(all, kMostFrames + 8);
  const uintptr_t struck = ProgramCounter(context);
  int first = 0;
  for (int i = 0; i < count; ++i) {
    if (reinterpret_cast<uintptr_t>(all[i]) == struck) first = i;
  }
  int kept = 0;
  for (int i = first; i < count && kept < kMostFrames; ++i) frames[kept++] = all[i];
  // The first is where it struck, not where it would return to.
  if (first > 0) frames[0] = static_cast<char*>(frames[0]) + 1;
  return kept;
}

void Report(int signal, const siginfo_t* info, const void* context) {
  char thread[32] = "?";
  pthread_getname_np(pthread_self(), thread, sizeof thread);
  const bool has_address = signal == SIGSEGV || signal == SIGBUS;
  FixedText<512> head;
  head << NameOf(signal);
  if (has_address) (head << " at address ").Hex(reinterpret_cast<uintptr_t>(info->si_addr));
  head << " in thread " << thread;
  FixedText<640> title;
  (title << "*** ").Append(head.data(), head.size()) << ", pid " << int64_t{getpid()} << "; its stack:\n";
  Write(STDERR_FILENO, title.data(), title.size());
  void* frames[kMostFrames];
  const int count = Frames(context, frames);
  FixedText<1000> brief;
  for (int i = 0; i < count; ++i) {
    FixedText<1024> line;
    line << "  #" << int64_t{i} << "  ";
    AppendPlace(frames[i], /*brief=*/false, &line);
    line << "\n";
    Write(STDERR_FILENO, line.data(), line.size());
    if (i >= kFramesInFile) continue;
    brief << (i == 0 ? "" : " < ");
    AppendPlace(frames[i], /*brief=*/true, &brief);
  }
  if (failure_file[0] == '\0') return;
  const int file = open(fresh_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return;
  FixedText<4096> json;
  json << R"({"kind": "signal", "detail": ")";
  for (const auto* part : {head.data(), brief.data()}) {
    const size_t size = part == head.data() ? head.size() : brief.size();
    if (part == brief.data()) json << ": ";
    for (size_t i = 0; i < size; ++i) {
      const char c = part[i];
      if (c == '"' || c == '\\') json << "\\";
      if (c >= ' ') json.Append(&c, 1);
    }
  }
  json << "\"}\n";
  Write(file, json.data(), json.size());
  close(file);
  rename(fresh_file, failure_file);
}

void OnSignal(int signal, siginfo_t* info, void* context) {
  static std::atomic<pid_t> reporting{0};
  const auto self = static_cast<pid_t>(syscall(SYS_gettid));
  pid_t nobody = 0;
  if (reporting.compare_exchange_strong(nobody, self)) {
    alarm(10);  // a report that hangs, for instance in the loader's lock, ends by SIGALRM
    Report(signal, info, context);
  } else if (reporting.load() != self) {
    while (true) pause();  // another thread is at it; it ends this one too
  }
  // A second crash while reporting ends here as well.
  struct sigaction fallback = {};
  fallback.sa_handler = SIG_DFL;
  sigaction(signal, &fallback, nullptr);
  syscall(SYS_tgkill, getpid(), self, signal);
}

}  // namespace

void SetUpCrashStack() {
  static thread_local char* memory = nullptr;
  if (memory != nullptr) return;
  memory = new char[kStackBytes];  // for the thread's life; threads that call this live as long as the process
  stack_t stack = {};
  stack.ss_sp = memory;
  stack.ss_size = kStackBytes;
  sigaltstack(&stack, nullptr);
}

void InstallCrashReport(const std::string& path) {
  if (path.size() < sizeof failure_file) {
    std::memcpy(failure_file, path.c_str(), path.size() + 1);
    std::memcpy(fresh_file, (path + ".tmp").c_str(), path.size() + 5);
    if (path.empty()) fresh_file[0] = '\0';
  }
  absl::InitializeSymbolizer("/proc/self/exe");
  void* frame = nullptr;
  backtrace(&frame, 1);  // loads the unwinder, which takes memory
  SetUpCrashStack();
  struct sigaction action = {};
  action.sa_sigaction = OnSignal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

}  // namespace athanor
