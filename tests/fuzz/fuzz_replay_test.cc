// Seeded random mutations of good inputs through every fuzz target. ATHANOR_FUZZ_ROUNDS (200000) and ATHANOR_FUZZ_SEED
// (1) choose them. A crash leaves its input behind, as fuzz-input in the test's folder.
#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <random>

#include "absl/strings/numbers.h"
#include "tests/fuzz/fuzz_seeds.h"
#include "tests/fuzz/fuzz_targets.h"

namespace athanor::fuzz {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  uint64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

std::string* current = nullptr;

// Async-signal-safe: only calls of the system.
void KeepInput(int number) {
  const int file = open("fuzz-input", O_CREAT | O_TRUNC | O_WRONLY, 0600);
  const bool kept = file >= 0 && current != nullptr &&
                    write(file, current->data(), current->size()) == static_cast<ssize_t>(current->size());
  constexpr char kSaid[] = "the input of this crash is in fuzz-input\n";
  if (kept && write(STDERR_FILENO, kSaid, sizeof(kSaid) - 1) < 0) _exit(1);
  std::signal(number, SIG_DFL);
  raise(number);
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}
  size_t Below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  void Mutate(std::string& text, const std::string& other) {
    static constexpr unsigned char kEdges[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '[', '\\', '\n', '/', '.'};
    const size_t at = Below(text.size());
    switch (Below(8)) {
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
      default:  // a long varint: a length or a number far outside
        text.insert(at, "\xff\xff\xff\xff\xff\xff\xff\xff\x7f");
    }
  }

 private:
  std::mt19937_64 random_;
};

class Replay : public testing::TestWithParam<NamedTarget> {};

TEST_P(Replay, SurvivesMutations) {
  const std::vector<std::string> seeds = SeedsOf(GetParam().name);
  ASSERT_FALSE(seeds.empty());
  const uint64_t rounds = FromEnvironment("ATHANOR_FUZZ_ROUNDS", 200000);
  Mutator mutator(FromEnvironment("ATHANOR_FUZZ_SEED", 1));
  google::protobuf::SetLogHandler(nullptr);  // it complains about each text that is no UTF-8
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(number, KeepInput);
  for (const std::string& seed : seeds) GetParam().run(seed);
  std::string input;
  current = &input;
  for (uint64_t round = 0; round < rounds; ++round) {
    input = seeds[mutator.Below(seeds.size())];
    for (size_t i = 0, count = 1 + mutator.Below(6); i < count; ++i)
      mutator.Mutate(input, seeds[mutator.Below(seeds.size())]);
    GetParam().run(input);
  }
  current = nullptr;
}

INSTANTIATE_TEST_SUITE_P(Targets, Replay, testing::ValuesIn(kTargets),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace athanor::fuzz
