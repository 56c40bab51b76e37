// The shape side of a NestedTensor: which sizes its elements have and where each lies in the packed values.
//
// A batch of B elements of one rank R. Dims whose size is the same in all elements are static, the others varying; when
// all elements have one shape, dim 0 counts as varying. An element is packed by moving its varying dims to the front
// (both groups keep their order), flattening them to rows and appending the rows to those of the elements before it:
//
//   packed values: rows x static sizes…      rows of element b = product of its varying sizes
//   shapes {2,3},{1,3}  -> varying {0}, static {1}, values 3 x 3, offsets {0,2,3}
//   shapes {3,2},{3,1}  -> varying {1}, static {0}, values 3 x 3, permutation {1,0}
//   shapes {2,3},{3,2}  -> varying {0,1},           values 12,   offsets {0,6,12}
//   shapes {},{}        -> rank 0: one row each,    values 2
//
// A batch without elements still knows the rank, which dims vary and the sizes of the static ones: it is made by taking
// all elements away from another batch (WithoutElements) or out of that knowledge (MakeEmpty).
//
// Immutable and shared between the tensors that have this structure; all methods are thread-safe.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace athanor {

class NestedStructure {
 public:
  using Ptr = std::shared_ptr<const NestedStructure>;
  // `sizes` holds B x rank numbers, element after element. Throws c10::ValueError for a negative size. When the rows
  // are those of `like`, what that has on devices is shared: operations that keep the rows then copy nothing there.
  static Ptr Make(int64_t batch_size, int64_t rank, std::vector<int64_t> sizes, const NestedStructure* like = nullptr);
  // Throws c10::ValueError when the ranks differ (naming both).
  static Ptr Make(const std::vector<std::vector<int64_t>>& shapes);
  // No elements. `dims`: the size of each static dim, -1 for those that vary.
  static Ptr MakeEmpty(std::vector<int64_t> dims);

  int64_t batch_size() const { return batch_size_; }
  int64_t rank() const { return rank_; }  // of one element
  torch::IntArrayRef sizes(int64_t element) const {
    return torch::IntArrayRef(sizes_).slice(static_cast<size_t>(element * rank_), static_cast<size_t>(rank_));
  }
  std::vector<std::vector<int64_t>> Shapes() const;
  const std::vector<int64_t>& varying_dims() const { return varying_dims_; }
  const std::vector<int64_t>& static_dims() const { return static_dims_; }
  const std::vector<int64_t>& static_sizes() const { return static_sizes_; }
  const std::vector<int64_t>& permutation() const { return permutation_; }    // varying dims, then static dims
  const std::vector<int64_t>& packed_sizes() const { return packed_sizes_; }  // rows of each element
  const std::vector<int64_t>& max_sizes() const { return max_sizes_; }        // per element dim, over the batch
  bool IsStatic(int64_t dim) const;
  bool AllSame() const { return all_same_; }  // every element has one shape (true for an empty batch)
  // True when the last `count` dims of the elements are static: they are then the last dims of the packed values too.
  bool HasStaticTail(int64_t count) const;

  int64_t rows() const { return rows_; }
  int64_t numel() const { return numel_; }
  int64_t FirstRow(int64_t element) const { return first_rows_[static_cast<size_t>(element)]; }
  torch::Tensor Offsets() const;                           // int64 (B+1) on the CPU: first row of each element, rows()
  torch::Tensor PhysicalShape() const;                     // int64 B x rank on the CPU: permuted sizes
  std::vector<torch::Tensor> HierarchicalOffsets() const;  // one per varying dim: where its runs begin
  std::vector<int64_t> PaddedSizes() const;                // B x max sizes, batch first
  std::vector<int64_t> Dims() const;                       // size of each static dim, -1 for those that vary
  bool SameAs(const NestedStructure& other) const;         // equal shapes; of batches without elements, equal Dims()

  // Packed row -> its place in the padded view flattened over (B, varying dims…); int64, cached for each device.
  torch::Tensor PaddedRows(const torch::Device& device) const;
  // Packed row -> its element; int64, cached for each device.
  torch::Tensor ElementOfRow(const torch::Device& device) const;
  // packed_sizes() and Offsets() as int64 tensors, cached for each device: the first call on a device copies from the
  // host, later ones neither copy nor wait.
  torch::Tensor PackedSizes(const torch::Device& device) const;
  torch::Tensor Offsets(const torch::Device& device) const;

  // The same rows with the last `count` (static) dims of every element replaced by `tail`.
  Ptr WithTail(int64_t count, torch::IntArrayRef tail) const;
  // The same rows with other sizes of the static dims, in their order.
  Ptr WithStaticSizes(torch::IntArrayRef sizes) const;
  Ptr WithoutElements() const;

 private:
  NestedStructure() = default;
  void Derive();
  void DeriveFrom(const std::vector<bool>& varies, torch::IntArrayRef sizes);
  using ByDevice = std::map<std::pair<int, int>, torch::Tensor>;  // key: device type and index
  struct OnDevices {
    std::mutex mutex;
    ByDevice padded_rows, element_of_row, packed_sizes, offsets;
  };
  template <class Compute>
  torch::Tensor Cached(ByDevice* cache, const torch::Device& device, const Compute& compute) const;
  bool HasRowsOf(const NestedStructure& other) const;  // elements have equal varying sizes
  std::vector<int64_t> ComputePaddedRows() const;

  int64_t batch_size_ = 0;
  int64_t rank_ = 0;
  std::vector<int64_t> sizes_;
  std::vector<int64_t> varying_dims_, static_dims_, static_sizes_, permutation_, packed_sizes_, first_rows_, max_sizes_;
  bool all_same_ = true;
  int64_t rows_ = 0;
  int64_t numel_ = 0;
  std::shared_ptr<OnDevices> on_devices_ = std::make_shared<OnDevices>();  // derived from the varying sizes only
};

}  // namespace athanor
