// Matrix products and linear algebra on NestedTensors. Products with a dense right side are one call on the packed
// values when the contracted dim is static; everything else goes element by element.
//
//   NestedTensor scores = nested::matmul(q, nested::mT(k));                   // elements L x E, S x E -> L x S
//   NestedTensor mixed = nested::einsum("bij,jk->bik", {x, weight});
//
// An operand is nested (one for each element) or dense (the same for all); at least one is nested (c10::TypeError).
// Batch sizes that differ are a c10::ValueError; sizes that do not fit and matrices without a solution are torch's own
// errors (c10::Error, c10::LinAlgError). dtypes: floating and complex, those of the operands alike. Results are nested,
// also when all elements end up with one shape; "nested scalars" are elements of rank 0.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "athanor/nested/tensor.h"

namespace athanor::nested {

// As torch::matmul of every element with its partner (nested: the element; dense: the same for all).
NestedTensor matmul(const NestedValue& a, const NestedValue& b);
NestedTensor mm(const NestedValue& a, const NestedValue& b);   // n x k, k x m -> n x m
NestedTensor bmm(const NestedValue& a, const NestedValue& b);  // as mm; a dense operand is B x n x k itself
NestedTensor mv(const NestedValue& a, const NestedValue& b);   // n x k, k -> n
NestedTensor dot(const NestedValue& a, const NestedValue& b);  // n, n -> nested scalars
NestedTensor vdot(const NestedValue& a, const NestedValue& b);
NestedTensor inner(const NestedValue& a, const NestedValue& b);  // … x k, … x k -> … x …
NestedTensor outer(const NestedValue& a, const NestedValue& b);  // n, m -> n x m
inline NestedTensor ger(const NestedValue& a, const NestedValue& b) {
  return outer(a, b);
}
// Every element times a matrix of its own: elements n x k; b nested k x m, or dense B x k x m -> n x m, in `out_dtype`
// or the operands' dtype.
NestedTensor grouped_mm(const NestedTensor& a, const NestedValue& b, std::optional<torch::Dtype> out_dtype = {});
// The packed rows times one matrix in float8: elements n x k, b k x m column-major, scales float32 (one number each, or
// total n x 1 and 1 x m), as torch's scaled matrix product, with its requirements of sizes and devices (c10::Error)
// -> n x m in `out_dtype`. No gradient.
NestedTensor scaled_mm(const NestedTensor& a, const torch::Tensor& b, const torch::Tensor& scale_a,
                       const torch::Tensor& scale_b, const std::optional<torch::Tensor>& bias = {},
                       torch::Dtype out_dtype = torch::kBFloat16);
// beta * x + alpha * (a b): addmm and baddbmm n x k, k x m; addr n, m (outer); addmv n x k, k.
NestedTensor addmm(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta = 1,
                   const torch::Scalar& alpha = 1);
NestedTensor baddbmm(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta = 1,
                     const torch::Scalar& alpha = 1);
NestedTensor addr(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta = 1,
                  const torch::Scalar& alpha = 1);
NestedTensor addmv(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta = 1,
                   const torch::Scalar& alpha = 1);
NestedTensor dist(const NestedValue& a, const NestedValue& b, const torch::Scalar& p = 2);  // nested scalars
NestedTensor cdist(const NestedValue& a, const NestedValue& b, double p = 2);               // n x k, m x k -> n x m
NestedTensor pdist(const NestedTensor& x, double p = 2);                                    // n x k -> n (n - 1) / 2
// `equation` names the batch dim first in every nested operand and in the result: "bij,bjk->bik", "bij,jk->bik".
// c10::ValueError: no "->", another number of terms than operands, a batch letter that is missing, or is in a dense
// operand.
NestedTensor einsum(const std::string& equation, const std::vector<NestedValue>& operands);

// Elements n x n but where it says so.
NestedTensor matrix_exp(const NestedTensor& x);
NestedTensor matrix_power(const NestedTensor& x, int64_t n);
NestedTensor inverse(const NestedTensor& x);
NestedTensor det(const NestedTensor& x);                                          // nested scalars
NestedTensor cholesky(const NestedTensor& x);                                     // positive definite -> lower triangle
NestedTensor solve(const NestedTensor& a, const NestedValue& b);                  // a y = b; b n or n x m
NestedTensor vector_norm(const NestedTensor& x, const torch::Scalar& order = 2);  // any shape -> nested scalars
NestedTensor matrix_norm(const NestedTensor& x, const std::string& order = "fro");  // n x m -> nested scalars; or "nuc"
// Decompositions; an empty batch is a c10::ValueError.
std::pair<NestedTensor, NestedTensor> eigh(const NestedTensor& x);                 // symmetric -> n ascending, n x n
std::pair<NestedTensor, NestedTensor> qr(const NestedTensor& x);                   // n x m -> n x k, k x m
std::vector<NestedTensor> svd(const NestedTensor& x, bool full_matrices = false);  // U, S, Vh

}  // namespace athanor::nested
