// A piece of anonymous memory (memfd) that processes of one machine share. Its owner tells the others an address; they
// map it through /proc. Nothing is left behind whatever dies when.
//
//   ASSIGN_OR_RETURN(auto own, SharedSegment::Create(1 << 20));       // one process
//   ASSIGN_OR_RETURN(auto theirs, SharedSegment::Map(own->address(), 1 << 20));   // another one of the same machine
//   own->Seal();   // when everybody has mapped it: nobody else can
//
// The first 8 bytes hold a nonce and belong to this class. Threads: none of its own; calls on one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace athanor {

class SharedSegment {
 public:
  static constexpr size_t kReserved = 8;  // bytes at the start that hold the nonce

  // Zeroed memory of `bytes`. UNAVAILABLE when the system refuses it.
  static absl::StatusOr<std::unique_ptr<SharedSegment>> Create(size_t bytes);
  // UNAVAILABLE: another machine or PID namespace, no access, another size, or the process is another one by now.
  static absl::StatusOr<std::unique_ptr<SharedSegment>> Map(const std::string& address, size_t bytes);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  void* data() const { return data_; }
  // "<machine> <pid> <descriptor> <nonce>".
  const std::string& address() const { return address_; }
  int64_t pid() const { return pid_; }  // of the owner
  void Seal();

 private:
  SharedSegment(void* data, size_t bytes) : data_(data), bytes_(bytes) {}

  void* data_;
  size_t bytes_;
  int memory_fd_ = -1;  // the owner's, until Seal()
  int64_t pid_ = 0;
  std::string address_;
};

}  // namespace athanor
