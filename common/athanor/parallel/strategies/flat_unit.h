// Several parameters in one flat buffer that is there only while it is needed; each rank owns one slice of it, its
// shard.
//
// Parameters begin at multiples of 64 bytes, and the buffer is padded so that shards are equal and aligned:
//
//   | parameter 0 | pad | parameter 1 | pad | ...            | pad |
//   | shard of rank 0         | shard of rank 1              |
//
// The storage object lives as long as the unit: memory comes and goes under it, so that parameters, their views and
// what autograd saved stay valid. A unit can also stay (FlatUnitOptions::stays): then its shard is a part of the
// buffer. Used by ShardedParameters. Threads: one.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "athanor/parallel/strategies/parameter_watch.h"

namespace athanor {

struct NamedParameter {
  std::string name;
  torch::Tensor tensor;
};

struct FlatUnitOptions {
  int rank = 0, ranks = 1;
  bool stays = false;                               // the buffer is always there, and is not watched
  std::optional<torch::ScalarType> parameter_type;  // of the buffer, where it is not that of the shard
  std::optional<torch::Device> shard_device;        // where it is not that of the buffer
};

class FlatUnit {
 public:
  struct Slot {
    std::string name;
    torch::Tensor parameter;
    int64_t offset = 0;  // in elements of the flat buffer
    std::vector<int64_t> shape;
    int64_t elements = 0;
    bool trainable = false;
  };
  // The part of a parameter that lies in a shard.
  struct Overlap {
    int64_t in_shard = 0;      // first element, counted in the shard
    int64_t in_parameter = 0;  // the same, counted in the flattened parameter
    int64_t elements = 0;      // 0: none
  };

  // Takes the parameters over: their values go into the shard of the rank, and their memory is given back. All have one
  // dtype and device.
  FlatUnit(std::string name, const std::vector<NamedParameter>& parameters, const FlatUnitOptions& options,
           ParameterWatch* watch);

  const std::string& name() const { return name_; }
  const std::vector<Slot>& slots() const { return slots_; }
  int64_t trainable() const { return trainable_; }
  int64_t flat_elements() const { return flat_elements_; }
  int64_t shard_elements() const { return shard_elements_; }
  const torch::Tensor& shard() const { return shard_; }  // 1-D, this rank's
  // What a gather sends: the shard in the type and on the device of the buffer.
  torch::Tensor Sent() const { return shard_.to(full_.options()); }
  Overlap OverlapOf(const Slot& slot) const;

  bool present() const { return present_; }
  // Memory for all values; what is in it is undefined until a gather has filled it.
  void Allocate();
  void Free();
  torch::Tensor full() const { return full_; }  // 1-D and unmarked: writing to it counts as no use

 private:
  void Place(const torch::TensorOptions& options, ParameterWatch* watch);

  const std::string name_;
  const FlatUnitOptions options_;
  std::vector<Slot> slots_;
  int64_t trainable_ = 0;
  int64_t flat_elements_ = 0;
  int64_t shard_elements_ = 0;
  bool present_ = false;
  c10::Storage storage_;
  torch::Tensor full_, shard_;
  std::unique_ptr<WatchedStorage> watched_;
};

}  // namespace athanor
