// Reductions, statistics and scans over NestedTensors. Padding never takes part.
//
//   nested::sum(x)                 over all entries            -> dense scalar
//   nested::sum(x, -1, true)       one dim of every element    -> dense B x … where all results have one shape,
//                                                                 else nested
//   nested::mean(x, 0)             the BATCH dim (batch_first): every element to one number -> dense of length B
//   nested::sum(x, {0, 1})         a list with the batch dim: across the samples, on the padded view
//
// Mind the third form: for sum, mean, prod, max, min, any and all the batch dim means "all but the batch"; `keepdim`
// puts a dim of size 1 where the batch dim was. Only sum takes a list with the batch dim; every other function refuses
// the batch dim (c10::ValueError "Cannot translate the batch dimension"). A keepdim without dims gives a tensor of as
// many dims, all of size 1. Indices (max, sort, topk …) are those within the element; over the whole element they count
// its entries in row-major order. Integer means are an error, as in torch. Any number of varying dims. `dtype` is that
// of the result, sums of integers are int64 without one. Differentiable where torch's function is, any number of times.
//
// Without entries: sum is 0, prod 1, mean and var NaN; max, min, amax, amin, argmax and argmin are a c10::IndexError
// that names the element. softmax gives NaN for all entries of an element with an infinite maximum, as torch does.
// Reductions of all varying dims (sum, mean, var, std, extremes) are one call for the whole batch on a GPU, and on a
// CPU where elements are small.
#pragma once

#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

#include "athanor/nested/tensor.h"

namespace athanor::nested {

// Nothing, one dim or a list of dims.
class Dims {
 public:
  // NOLINTBEGIN(google-explicit-constructor)
  Dims() = default;
  Dims(std::nullopt_t) {}
  Dims(int dim) : dims_({dim}), given_(true) {}
  Dims(int64_t dim) : dims_({dim}), given_(true) {}
  Dims(std::initializer_list<int64_t> dims) : Dims(std::vector<int64_t>(dims)) {}
  Dims(std::vector<int64_t> dims) : dims_(std::move(dims)), given_(!dims_.empty()), list_(given_) {}  // {}: all of them
  // NOLINTEND(google-explicit-constructor)
  bool given() const { return given_; }
  bool list() const { return list_; }
  const std::vector<int64_t>& dims() const { return dims_; }

 private:
  std::vector<int64_t> dims_;
  bool given_ = false;
  bool list_ = false;
};

using ValuesAndIndices = std::pair<NestedValue, NestedValue>;

NestedValue sum(const NestedTensor& x, const Dims& dims = {}, bool keepdim = false,
                std::optional<torch::Dtype> dtype = {});
NestedValue mean(const NestedTensor& x, const Dims& dims = {}, bool keepdim = false,
                 std::optional<torch::Dtype> dtype = {});
NestedValue prod(const NestedTensor& x, const Dims& dim = {}, bool keepdim = false,
                 std::optional<torch::Dtype> dtype = {});
NestedValue any(const NestedTensor& x, const Dims& dims = {}, bool keepdim = false);
NestedValue all(const NestedTensor& x, const Dims& dims = {}, bool keepdim = false);
torch::Tensor max(const NestedTensor& x);
torch::Tensor min(const NestedTensor& x);
ValuesAndIndices max(const NestedTensor& x, int64_t dim, bool keepdim = false);
ValuesAndIndices min(const NestedTensor& x, int64_t dim, bool keepdim = false);

// Without dims over all entries.
NestedValue nansum(const NestedTensor& x, const Dims& dims = {}, bool keepdim = false);
NestedValue nanmean(const NestedTensor& x, const Dims& dims = {}, bool keepdim = false);
NestedValue count_nonzero(const NestedTensor& x, const Dims& dims = {});
NestedValue amax(const NestedTensor& x, const Dims& dims = {}, bool keepdim = false);
NestedValue amin(const NestedTensor& x, const Dims& dims = {}, bool keepdim = false);
std::pair<NestedValue, NestedValue> aminmax(const NestedTensor& x, std::optional<int64_t> dim = {},
                                            bool keepdim = false);
NestedValue logsumexp(const NestedTensor& x, const Dims& dims, bool keepdim = false);
NestedValue var(const NestedTensor& x, const Dims& dims = {}, int64_t correction = 1, bool keepdim = false);
NestedValue std(const NestedTensor& x, const Dims& dims = {}, int64_t correction = 1, bool keepdim = false);
std::pair<NestedValue, NestedValue> var_mean(const NestedTensor& x, const Dims& dims = {}, int64_t correction = 1,
                                             bool keepdim = false);
std::pair<NestedValue, NestedValue> std_mean(const NestedTensor& x, const Dims& dims = {}, int64_t correction = 1,
                                             bool keepdim = false);
// Without dims: of every element, nested scalars. (Of everything: torch::norm(x.values()).)
NestedValue norm(const NestedTensor& x, const torch::Scalar& p = 2, const Dims& dims = {}, bool keepdim = false);
NestedValue argmax(const NestedTensor& x, std::optional<int64_t> dim = {}, bool keepdim = false);
NestedValue argmin(const NestedTensor& x, std::optional<int64_t> dim = {}, bool keepdim = false);
torch::Tensor median(const NestedTensor& x);
torch::Tensor nanmedian(const NestedTensor& x);
ValuesAndIndices median(const NestedTensor& x, int64_t dim, bool keepdim = false);
ValuesAndIndices nanmedian(const NestedTensor& x, int64_t dim, bool keepdim = false);
ValuesAndIndices mode(const NestedTensor& x, int64_t dim = -1, bool keepdim = false);
ValuesAndIndices kthvalue(const NestedTensor& x, int64_t k, int64_t dim = -1, bool keepdim = false);
NestedValue quantile(const NestedTensor& x, double q, std::optional<int64_t> dim = {}, bool keepdim = false,
                     const std::string& interpolation = "linear");
NestedValue nanquantile(const NestedTensor& x, double q, std::optional<int64_t> dim = {}, bool keepdim = false,
                        const std::string& interpolation = "linear");

// Same shape as x.
NestedTensor softmax(const NestedTensor& x, int64_t dim, std::optional<torch::Dtype> dtype = {});
NestedTensor log_softmax(const NestedTensor& x, int64_t dim, std::optional<torch::Dtype> dtype = {});
NestedTensor softmin(const NestedTensor& x, int64_t dim);
NestedTensor cumsum(const NestedTensor& x, int64_t dim, std::optional<torch::Dtype> dtype = {});
NestedTensor cumprod(const NestedTensor& x, int64_t dim, std::optional<torch::Dtype> dtype = {});
NestedTensor logcumsumexp(const NestedTensor& x, int64_t dim);
std::pair<NestedTensor, NestedTensor> cummax(const NestedTensor& x, int64_t dim);
std::pair<NestedTensor, NestedTensor> cummin(const NestedTensor& x, int64_t dim);
std::pair<NestedTensor, NestedTensor> sort(const NestedTensor& x, int64_t dim = -1, bool descending = false,
                                           bool stable = false);
NestedTensor argsort(const NestedTensor& x, int64_t dim = -1, bool descending = false, bool stable = false);
// Always nested, also when all elements end up with one shape.
std::pair<NestedTensor, NestedTensor> topk(const NestedTensor& x, int64_t k, int64_t dim = -1, bool largest = true,
                                           bool sorted = true);

}  // namespace athanor::nested
