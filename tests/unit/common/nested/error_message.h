// The text of the error that a call throws.
#pragma once

#include <functional>
#include <string>

namespace athanor {

template <class Error>
std::string MessageOf(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what_without_backtrace();
  }
  return "nothing was thrown";
}

}  // namespace athanor
