// What the benchmark programs share: settings from one JSON argument, results as one JSON line on stdout.
//
//   int main(int argc, char** argv) {
//     return athanor::bench::Main(argc, argv, {{"calls", 500}}, Run);  // StatusOr<json> Run(const json& settings)
//   }
//
//   $ bench_submit_load '{"server": "127.0.0.1:7070", "calls": 100}'
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace athanor::bench {

using Clock = std::chrono::steady_clock;

inline double SecondsSince(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

// `samples` in seconds, any order. Nearest rank: p99 of 100 samples is the 99th smallest. Times in the result are in
// milliseconds.
inline nlohmann::json Distribution(std::vector<double> samples) {
  if (samples.empty()) return {{"count", 0}};
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    const double rank = std::ceil(share * static_cast<double>(samples.size()));
    return samples[static_cast<size_t>(std::max(rank, 1.0)) - 1] * 1e3;
  };
  double sum = 0;
  for (const double sample : samples) sum += sample;
  return {{"count", samples.size()},
          {"min_ms", samples.front() * 1e3},
          {"p50_ms", at(0.5)},
          {"p90_ms", at(0.9)},
          {"p99_ms", at(0.99)},
          {"p999_ms", at(0.999)},
          {"max_ms", samples.back() * 1e3},
          {"mean_ms", sum * 1e3 / static_cast<double>(samples.size())}};
}

// Reads the settings over `defaults` (unknown keys are refused), runs, prints. The process's exit code.
inline int Main(int argc, char** argv, nlohmann::json defaults,
                const std::function<absl::StatusOr<nlohmann::json>(const nlohmann::json&)>& run) {
  const auto fail = [&](const std::string& why, int code) {
    std::fprintf(stderr, "%s: %s\n", argv[0], why.c_str());
    return code;
  };
  const nlohmann::json given = nlohmann::json::parse(argc == 2 ? argv[1] : "{}", nullptr, /*allow_exceptions=*/false);
  if (argc > 2 || !given.is_object()) return fail("expected one JSON object of settings", 2);
  for (const auto& [key, value] : given.items()) {
    if (!defaults.contains(key) || defaults[key].is_number() != value.is_number()) {
      return fail(absl::StrCat("setting '", key, "' is unknown or of another type; the settings are ", defaults.dump()),
                  2);
    }
    defaults[key] = value;
  }
  const absl::StatusOr<nlohmann::json> result = run(defaults);
  if (!result.ok()) return fail(std::string(result.status().message()), 1);
  std::printf("%s\n", result->dump().c_str());
  return 0;
}

}  // namespace athanor::bench
