// Seeded random mutations of good inputs through one target. ATHANOR_FUZZ_ROUNDS (the target's own number) and
// ATHANOR_FUZZ_SEED (1) choose them. A crash, a broken promise or a hang leaves its input behind, as fuzz-input in the
// test's folder.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/target.h"

namespace athanor::fuzz {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}
  size_t Below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  // A place in a text of `size` bytes; one in four lies at its beginning, where formats say what follows.
  size_t Place(size_t size) { return Below(4) == 0 ? Below(size < 64 ? size : 64) : Below(size); }
  uint64_t Edge();  // a number at which a width, a sign or a limit ends
  void Mutate(std::string& text, const std::string& other);

 private:
  void Overwrite(std::string& text, size_t at);
  std::mt19937_64 random_;
};

// Writes `width` bytes of `value` at `at`, as far as the text goes.
void PutNumber(std::string& text, size_t at, size_t width, uint64_t value, bool big_endian = false);
uint64_t GetNumber(const std::string& text, size_t at, size_t width, bool big_endian = false);

// `seeds` are where mutations start; `failures` are inputs that once broke something, and run once each. Prints how
// many inputs ran.
void Replay(const NamedTarget& target, const std::vector<std::string>& seeds,
            const std::vector<std::string>& failures = {});

}  // namespace athanor::fuzz
