// Matrix products and linear algebra on NestedTensors. Products with a dense right side are one call on the packed
// values when the contracted dim is static; everything else goes element by element.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "athanor/tensor/nested_tensor.h"

namespace athanor::nested {

// As torch::matmul of every element with its partner (nested: the element; dense: the same for all).
NestedTensor matmul(const NestedValue& a, const NestedValue& b);
NestedTensor mm(const NestedValue& a, const NestedValue& b);   // elements of rank 2
NestedTensor bmm(const NestedValue& a, const NestedValue& b);  // the batch is that of the elements, of rank 2
NestedTensor mv(const NestedValue& a, const NestedValue& b);   // matrix times vector
NestedTensor dot(const NestedValue& a, const NestedValue& b);  // nested scalars
NestedTensor vdot(const NestedValue& a, const NestedValue& b);
NestedTensor inner(const NestedValue& a, const NestedValue& b);
NestedTensor outer(const NestedValue& a, const NestedValue& b);
inline NestedTensor ger(const NestedValue& a, const NestedValue& b) {
  return outer(a, b);
}
NestedTensor addmm(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta = 1,
                   const torch::Scalar& alpha = 1);
NestedTensor baddbmm(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta = 1,
                     const torch::Scalar& alpha = 1);
NestedTensor addr(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta = 1,
                  const torch::Scalar& alpha = 1);
NestedTensor addmv(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta = 1,
                   const torch::Scalar& alpha = 1);
NestedTensor dist(const NestedValue& a, const NestedValue& b, const torch::Scalar& p = 2);  // nested scalars
NestedTensor cdist(const NestedValue& a, const NestedValue& b, double p = 2);
NestedTensor pdist(const NestedTensor& x, double p = 2);
// `equation` names the batch dim first in every nested operand and in the result: "bij,bjk->bik", "bij,jk->bik".
NestedTensor einsum(const std::string& equation, const std::vector<NestedValue>& operands);

NestedTensor matrix_exp(const NestedTensor& x);
NestedTensor matrix_power(const NestedTensor& x, int64_t n);
NestedTensor inverse(const NestedTensor& x);
NestedTensor det(const NestedTensor& x);
NestedTensor cholesky(const NestedTensor& x);
NestedTensor solve(const NestedTensor& a, const NestedValue& b);
NestedTensor vector_norm(const NestedTensor& x, const torch::Scalar& order = 2);
NestedTensor matrix_norm(const NestedTensor& x, const std::string& order = "fro");
std::pair<NestedTensor, NestedTensor> eigh(const NestedTensor& x);
std::pair<NestedTensor, NestedTensor> qr(const NestedTensor& x);
std::vector<NestedTensor> svd(const NestedTensor& x, bool full_matrices = false);  // U, S, Vh

}  // namespace athanor::nested
