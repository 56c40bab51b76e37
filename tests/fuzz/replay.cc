#include "tests/fuzz/replay.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace athanor::fuzz {
namespace {

constexpr double kSeconds = kSanitized ? 20 : 1;
constexpr int64_t kKilobytes = kSanitized ? int64_t{8} << 20 : int64_t{512} << 10;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  uint64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

const std::string* current = nullptr;

// Async-signal-safe: only calls of the system.
void KeepInput(int number) {
  const int file = open("fuzz-input", O_CREAT | O_TRUNC | O_WRONLY, 0600);
  const bool kept = file >= 0 && current != nullptr &&
                    write(file, current->data(), current->size()) == static_cast<ssize_t>(current->size());
  constexpr char kSaid[] = "the input of this crash or hang is in fuzz-input\n";
  if (kept && write(STDERR_FILENO, kSaid, sizeof(kSaid) - 1) < 0) _exit(1);
  std::signal(number, SIG_DFL);
  raise(number);
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// Runs inputs, and watches the processor time and the memory of each.
class Watch {
 public:
  Watch() {
    // An overflow of the stack leaves no stack to report it on.
    static char stack[1 << 16];
    const stack_t own = {.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
    sigaltstack(&own, nullptr);
    struct sigaction keep = {};
    keep.sa_handler = &KeepInput;
    keep.sa_flags = SA_ONSTACK;
    for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM}) sigaction(number, &keep, nullptr);
    getrusage(RUSAGE_SELF, &before_);
    start_kilobytes_ = before_.ru_maxrss;
  }
  ~Watch() {
    const itimerval off = {};
    setitimer(ITIMER_VIRTUAL, &off, nullptr);
    current = nullptr;
  }

  void Run(const NamedTarget& target, const std::string& input) {
    current = &input;
    const itimerval hang = {.it_interval = {}, .it_value = {.tv_sec = static_cast<time_t>(10 * kSeconds)}};
    setitimer(ITIMER_VIRTUAL, &hang, nullptr);
    target.run(input);
    rusage after = {};
    getrusage(RUSAGE_SELF, &after);
    const double took =
        Seconds(after.ru_utime) - Seconds(before_.ru_utime) + Seconds(after.ru_stime) - Seconds(before_.ru_stime);
    slowest_ = std::max(slowest_, took);
    Promise(took < kSeconds, "an input takes less than a second");
    Promise(after.ru_maxrss - start_kilobytes_ < kKilobytes, "a small input takes little memory");
    before_ = after;
    ++count_;
  }

  std::string Summary() const {
    return absl::StrCat(count_, " inputs, the slowest took ", static_cast<int64_t>(slowest_ * 1000), " ms, ",
                        (before_.ru_maxrss - start_kilobytes_) / 1024, " MiB");
  }

 private:
  rusage before_ = {};
  int64_t start_kilobytes_ = 0;
  double slowest_ = 0;
  uint64_t count_ = 0;
};

}  // namespace

uint64_t Mutator::Edge() {
  static constexpr uint64_t kEdges[] = {0,        1,        2,          0x7f,       0x80,       0xff,       0x100,
                                        0x7fff,   0xffff,   0x10000,    0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
                                        1u << 20, 1u << 28, 1ull << 40, 1ull << 62, ~0ull >> 1, 1ull << 63, ~0ull};
  const uint64_t edge = kEdges[Below(std::size(kEdges))];
  return Below(4) == 0 ? edge - Below(8) : edge;
}

void PutNumber(std::string& text, size_t at, size_t width, uint64_t value, bool big_endian) {
  for (size_t i = 0; i < width && at + i < text.size(); ++i)
    text[at + i] = static_cast<char>(value >> (8 * (big_endian ? width - 1 - i : i)));
}

uint64_t GetNumber(const std::string& text, size_t at, size_t width, bool big_endian) {
  uint64_t value = 0;
  for (size_t i = 0; i < width && at + i < text.size(); ++i)
    value |= uint64_t{static_cast<unsigned char>(text[at + i])} << (8 * (big_endian ? width - 1 - i : i));
  return value;
}

// A number in binary, or the decimal one that begins here.
void Mutator::Overwrite(std::string& text, size_t at) {
  const size_t digit = text.find_first_of("0123456789", at);
  if (digit != std::string::npos && Below(2) == 0) {
    const size_t end = std::min(text.find_first_not_of("0123456789", digit), text.size());
    text.replace(digit, end - digit, Below(4) == 0 ? "-1" : absl::StrCat(Edge()));
    return;
  }
  PutNumber(text, at, size_t{1} << Below(4), Edge(), Below(2) == 0);
}

void Mutator::Mutate(std::string& text, const std::string& other) {
  static constexpr unsigned char kEdges[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '[', '\\', '\n', '/', '.', ',', ':'};
  const size_t at = Place(text.size());
  switch (Below(10)) {
    case 0:
      if (!text.empty()) text[at] ^= static_cast<char>(1u << Below(8));
      return;
    case 1:
      if (!text.empty()) text[at] = static_cast<char>(kEdges[Below(std::size(kEdges))]);
      return;
    case 2:
      text.insert(at, 1 + Below(4), static_cast<char>(kEdges[Below(std::size(kEdges))]));
      return;
    case 3:
      if (!text.empty()) text.erase(at, 1 + Below(8));
      return;
    case 4:
      text.resize(at);
      return;
    case 5:  // a piece twice
      text.insert(at, text.substr(Below(text.size()), Below(32)));
      return;
    case 6:  // a piece of another input
      if (!other.empty()) text.insert(at, other.substr(Below(other.size()), Below(64)));
      return;
    case 7:  // a long varint: a length or a number far outside
      text.insert(at, "\xff\xff\xff\xff\xff\xff\xff\xff\x7f");
      return;
    case 8:  // two inputs that meet
      if (!other.empty()) text = text.substr(0, at) + other.substr(std::min(at, other.size()));
      return;
    default:
      Overwrite(text, at);
  }
}

void Replay(const NamedTarget& target, const std::vector<std::string>& seeds,
            const std::vector<std::string>& failures) {
  const uint64_t rounds = FromEnvironment("ATHANOR_FUZZ_ROUNDS", target.rounds);
  Mutator mutator(FromEnvironment("ATHANOR_FUZZ_SEED", 1));
  Watch watch;
  for (const std::string& seed : seeds) watch.Run(target, seed);
  for (const std::string& failure : failures) watch.Run(target, failure);
  std::string input;
  for (uint64_t round = 0; round < rounds; ++round) {
    input = seeds[mutator.Below(seeds.size())];
    for (size_t i = 0, count = 1 + mutator.Below(6); i < count; ++i) {
      if (target.mutate != nullptr && mutator.Below(2) == 0) {
        target.mutate(mutator, input);
      } else {
        mutator.Mutate(input, seeds[mutator.Below(seeds.size())]);
      }
    }
    watch.Run(target, input);
  }
  std::printf("%s: %s\n", target.name, watch.Summary().c_str());
}

}  // namespace athanor::fuzz
