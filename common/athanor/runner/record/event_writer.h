// Writes scalars for TensorBoard: one event file (TFRecord framing, Event messages) that `tensorboard --logdir` shows.
//
//   ASSIGN_OR_RETURN(auto events, EventWriter::Create("runs/a/tensorboard/20261123-201500"));
//   RETURN_IF_ERROR(events->AddScalar("train/loss", 0.31, /*step=*/120));
//   RETURN_IF_ERROR(events->Flush());
//
// Layout of a record: u64 length, u32 masked CRC-32C of the length, the message, u32 masked CRC-32C of the message, all
// little-endian; mask(c) = rotate_right(c, 15) + 0xa282ead8. Not thread-safe. Errors name the file: RESOURCE_EXHAUSTED
// for a full disk, after which the writer goes on with later records (a reader skips nothing: a record is written
// whole or not at all).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace athanor {

class EventWriter {
 public:
  // Makes the folder and in it "events.out.tfevents.<seconds>.<host>.<pid>.<count>", with the file-version record.
  static absl::StatusOr<std::unique_ptr<EventWriter>> Create(const std::string& folder);
  ~EventWriter();  // flushes
  EventWriter(const EventWriter&) = delete;

  // `value` is kept as a 32-bit float, as TensorBoard's scalars are. NaN and infinities are written as they are.
  absl::Status AddScalar(absl::string_view tag, double value, int64_t step);
  absl::Status AddScalar(absl::string_view tag, double value, int64_t step, absl::Time when);
  // A run goes on here from `step`: readers drop what earlier files of this folder have of it and of later steps.
  absl::Status AddSessionStart(int64_t step);
  // Hands what was added to the file system; added records are kept in memory up to 64 KiB before that.
  absl::Status Flush();

  const std::string& path() const { return path_; }

 private:
  EventWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  absl::Status AddRecord(absl::string_view message);

  const std::string path_;
  const int fd_;
  int64_t size_ = 0;     // of the file's whole records
  std::string pending_;  // whole records
};

}  // namespace athanor
