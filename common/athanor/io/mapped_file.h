// A file mapped for reading. Movable; unmapped at destruction.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace athanor {

class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  const char* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  MappedFile(const char* data, int64_t size) : data_(data), size_(size) {}
  const char* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace athanor
