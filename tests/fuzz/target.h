// A reader of bytes that others wrote, as one function of those bytes. It must neither crash nor take long nor fill the
// memory, whatever it gets; it aborts with a message when a promise of the code is broken.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace athanor::fuzz {

class Mutator;

using Target = void (*)(std::string_view input);
// Changes an input where the structure of its format makes changes interesting.
using Mutation = void (*)(Mutator& random, std::string& input);

struct NamedTarget {
  const char* name;
  Target run;
  uint64_t rounds = 200000;  // in `make test`
  Mutation mutate = nullptr;
};

inline void Promise(bool kept, const char* what) {
  if (kept) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

}  // namespace athanor::fuzz
