// Turns SIGTERM and SIGINT into a vote to stop at the next step boundary. A second signal ends the process at once (128
// + number).
//
//   ASSIGN_OR_RETURN(auto supervisor, Supervisor::Install());
//   supervisor->StopRequested();   // any thread
//
// One at a time per process; the earlier handlers come back when it is destroyed.
#pragma once

#include <memory>

#include "absl/status/statusor.h"

namespace athanor {

class Supervisor {
 public:
  // FAILED_PRECONDITION when one is installed already.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Install();
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;

  bool StopRequested() const;
  int signal() const;  // that asked; 0: none

 private:
  struct Handlers;
  explicit Supervisor(std::unique_ptr<Handlers> earlier);
  std::unique_ptr<Handlers> earlier_;
};

}  // namespace athanor
