// How the ranks of a group find each other: each opens a listener, tells its address, and connects to the ranks before
// it. Used by Peers; not meant for direct use. Threads: one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace athanor {

class MeshListener {
 public:
  // Listens on a port that the system chooses. UNAVAILABLE when `host` cannot be resolved or bound.
  static absl::StatusOr<std::unique_ptr<MeshListener>> Open(const std::string& host);
  ~MeshListener();
  MeshListener(const MeshListener&) = delete;
  MeshListener& operator=(const MeshListener&) = delete;

  // "<host> <port> <nonce>". The nonce lets in those who were told it, and nobody else.
  const std::string& address() const { return address_; }
  // Connected, non-blocking sockets by rank; -1 at this rank's place. `addresses`: of all ranks. UNAVAILABLE names the
  // rank that cannot be reached; DEADLINE_EXCEEDED the ranks that have not come.
  absl::StatusOr<std::vector<int>> Connect(int rank, const std::vector<std::string>& addresses, absl::Time deadline);

 private:
  MeshListener(int fd, uint64_t nonce, std::string address);
  absl::Status AcceptLater(int rank, std::vector<int>& sockets, absl::Time deadline);

  const int fd_;
  const uint64_t nonce_;
  const std::string address_;
};

// Moves exactly `bytes` over a non-blocking socket. DEADLINE_EXCEEDED, UNAVAILABLE.
absl::Status SendAll(int fd, const void* data, size_t bytes, absl::Time deadline);
absl::Status ReceiveAll(int fd, void* data, size_t bytes, absl::Time deadline);

}  // namespace athanor
