// Errors that must not end the program: a wrapped call that answers with a status, and one that stops in the debugger.
// The decorators of Python become functions that take a function; options have defaults, so there is no counterpart to
// a decorator that works with and without brackets.
//
//   absl::Status saved = Catch("saving", [&] { Save(state); });                        // any std::exception
//   absl::StatusOr<int> value = Catch<std::runtime_error>("reading", [&] { return Read(); });
//   auto kept = Catch<std::exception, std::bad_alloc>("saving", save, [&](const CaughtError& e) { log(e.message); });
//   DebugOnError([&] { Train(); });                            // under a debugger: stops where the error arrives
//
// Thread-safe.
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace athanor {

struct CaughtError {
  std::string what;     // what was attempted
  std::string message;  // of the exception, its first line
};
using ErrorCallback = std::function<void(const CaughtError&)>;

// "saving: no space left" to stderr.
void PrintCaughtError(const CaughtError& error);

// A class that nothing throws.
struct NoException {};

namespace catch_internal {
absl::Status ToStatus(const std::string& what, const std::exception& error, const ErrorCallback& callback);
void StopInDebugger(const std::exception& error);  // no debugger: prints the error
}  // namespace catch_internal

// What `function` returns (absl::Status for void), or UNKNOWN with "<what>: <message>" for an exception of type Error,
// after `callback`. One of type Exclude, and any other, passes through.
template <class Error = std::exception, class Exclude = NoException, class Function>
auto Catch(const std::string& what, Function&& function, const ErrorCallback& callback = PrintCaughtError) {
  using Result = std::invoke_result_t<Function>;
  using Answer = std::conditional_t<std::is_void_v<Result>, absl::Status, absl::StatusOr<Result>>;
  try {
    if constexpr (std::is_void_v<Result>) {
      std::forward<Function>(function)();
      return absl::OkStatus();
    } else {
      return Answer(std::forward<Function>(function)());
    }
  } catch (const Exclude&) {
    throw;
  } catch (const Error& error) {
    return Answer(catch_internal::ToStatus(what, error, callback));
  }
}

// Runs `function`; an exception of type Error stops the program in the debugger that is attached, if one is, and goes
// on its way. Off: a plain call.
template <class Error = std::exception, class Exclude = NoException, class Function>
auto DebugOnError(Function&& function, bool enable = true) -> std::invoke_result_t<Function> {
  if (!enable) return std::forward<Function>(function)();
  try {
    return std::forward<Function>(function)();
  } catch (const Exclude&) {
    throw;
  } catch (const Error& error) {
    catch_internal::StopInDebugger(error);
    throw;
  }
}

}  // namespace athanor
