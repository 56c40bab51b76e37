#include "athanor/nested/ops/linalg.h"

#include <algorithm>

#include "athanor/nested/pack.h"

namespace athanor::nested {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

template <class Fn>
NestedTensor Each(const NestedValue& a, const NestedValue& b, const Fn& fn) {
  return PerElement({a, b}, [&](const Tensors& t) { return fn(t[0], t[1]); });
}

template <class Fn>
std::vector<NestedTensor> Several(const NestedTensor& x, const Fn& fn) {
  std::vector<NestedTensor> results;
  for (const Tensors& column : EachElement({x}, [&](const Tensors& t) { return fn(t[0]); })) {
    results.push_back(Repack(column, x));
  }
  TORCH_CHECK_VALUE(!results.empty(), "a decomposition needs at least one element");
  return results;
}

// "bij" of the batch dim `batch` -> "ij".
std::string WithoutBatch(const std::string& term, char batch) {
  TORCH_CHECK_VALUE(!term.empty() && term[0] == batch, "einsum: every nested operand and the result must name the ",
                    "batch dim first, got '", term, "' where '", batch, "' is the batch dim");
  return term.substr(1);
}

}  // namespace

NestedTensor matmul(const NestedValue& a, const NestedValue& b) {
  const bool dense_right = a.is_nested() && !b.is_nested() && b.dense().dim() >= 1 && b.dense().dim() <= 2;
  if (dense_right && a.nested().structure()->HasStaticTail(1)) {
    return OnTail(a.nested(), 1, [&](const Tensor& t) { return torch::matmul(t, b.dense()); });
  }
  return PerElement({a, b}, [](const Tensors& t) { return torch::matmul(t[0], t[1]); }, DenseOperands::kWhole);
}

NestedTensor mm(const NestedValue& a, const NestedValue& b) {
  return matmul(a, b);
}

NestedTensor bmm(const NestedValue& a, const NestedValue& b) {
  const NestedTensor first = FirstNested({a, b});
  TORCH_CHECK(first.dim() == 3, "bmm needs elements of rank 2, got ", first.dim() - 1);
  if (a.is_nested() && b.is_nested()) {
    return Each(a, b, [](const Tensor& s, const Tensor& t) { return torch::mm(s, t); });
  }
  // A dense operand is a batch of matrices itself.
  const auto batch = [&](const NestedValue& v) {
    return v.is_nested() ? v : NestedValue(NestedTensor(v.dense().unbind(0), NestedOptions{first.view()}));
  };
  return Each(batch(a), batch(b), [](const Tensor& s, const Tensor& t) { return torch::mm(s, t); });
}

NestedTensor grouped_mm(const NestedTensor& a, const NestedValue& b, std::optional<torch::Dtype> out_dtype) {
  const NestedTensor product = bmm(a, b);
  return out_dtype ? product.to(*out_dtype) : product;
}

NestedTensor scaled_mm(const NestedTensor& a, const Tensor& b, const Tensor& scale_a, const Tensor& scale_b,
                       const std::optional<Tensor>& bias, torch::Dtype out_dtype) {
  TORCH_CHECK_VALUE(a.structure()->rank() == 2 && a.structure()->HasStaticTail(1),
                    "scaled_mm needs elements n x k of one k, got shape ", torch::IntArrayRef(a.shape()));
  return OnTail(a, 1, [&](const Tensor& t) {
    return at::_scaled_mm(t, b, scale_a, scale_b, bias, /*scale_result=*/std::nullopt, out_dtype);
  });
}

NestedTensor mv(const NestedValue& a, const NestedValue& b) {
  return matmul(a, b);
}

NestedTensor dot(const NestedValue& a, const NestedValue& b) {
  return Each(a, b, [](const Tensor& s, const Tensor& t) { return torch::dot(s, t); });
}

NestedTensor vdot(const NestedValue& a, const NestedValue& b) {
  return Each(a, b, [](const Tensor& s, const Tensor& t) { return torch::vdot(s, t); });
}

NestedTensor inner(const NestedValue& a, const NestedValue& b) {
  return Each(a, b, [](const Tensor& s, const Tensor& t) { return torch::inner(s, t); });
}

NestedTensor outer(const NestedValue& a, const NestedValue& b) {
  return Each(a, b, [](const Tensor& s, const Tensor& t) { return torch::outer(s, t); });
}

#define ATHANOR_NESTED_DEFINE(name, call)                                                                        \
  NestedTensor name(const NestedValue& x, const NestedValue& a, const NestedValue& b, const torch::Scalar& beta, \
                    const torch::Scalar& alpha) {                                                                \
    return PerElement({x, a, b}, [&](const Tensors& t) { return torch::call(t[0], t[1], t[2], beta, alpha); });  \
  }
ATHANOR_NESTED_DEFINE(addmm, addmm)
ATHANOR_NESTED_DEFINE(baddbmm, addmm)
ATHANOR_NESTED_DEFINE(addr, addr)
ATHANOR_NESTED_DEFINE(addmv, addmv)
#undef ATHANOR_NESTED_DEFINE

NestedTensor dist(const NestedValue& a, const NestedValue& b, const torch::Scalar& p) {
  return Each(a, b, [&](const Tensor& s, const Tensor& t) { return torch::dist(s, t, p); });
}

NestedTensor cdist(const NestedValue& a, const NestedValue& b, double p) {
  return Each(a, b, [&](const Tensor& s, const Tensor& t) { return torch::cdist(s, t, p); });
}

NestedTensor pdist(const NestedTensor& x, double p) {
  return PerElement(x, [&](const Tensor& t) { return torch::pdist(t, p); });
}

NestedTensor einsum(const std::string& equation, const std::vector<NestedValue>& operands) {
  std::string text = equation;
  text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
  const size_t arrow = text.find("->");
  TORCH_CHECK_VALUE(arrow != std::string::npos, "einsum on NestedTensors needs '->' in the equation, got '", equation,
                    "'");
  std::vector<std::string> terms = {""};
  for (const char letter : text.substr(0, arrow)) {
    if (letter == ',')
      terms.emplace_back();
    else
      terms.back() += letter;
  }
  TORCH_CHECK_VALUE(terms.size() == operands.size(), "einsum: the equation has ", terms.size(), " terms for ",
                    operands.size(), " operands");
  char batch = 0;
  for (size_t i = 0; i < operands.size() && batch == 0; ++i) {
    if (operands[i].is_nested() && !terms[i].empty()) batch = terms[i][0];
  }
  std::string inner;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!operands[i].is_nested()) {
      TORCH_CHECK_VALUE(terms[i].find(batch) == std::string::npos,
                        "einsum: a dense operand cannot have the batch dim '", batch, "'");
    }
    if (i > 0) inner += ',';
    inner += operands[i].is_nested() ? WithoutBatch(terms[i], batch) : terms[i];
  }
  inner += "->";
  inner += WithoutBatch(text.substr(arrow + 2), batch);
  return PerElement(operands, [&](const Tensors& t) { return torch::einsum(inner, t); }, DenseOperands::kWhole);
}

NestedTensor matrix_exp(const NestedTensor& x) {
  return PerElement(x, [](const Tensor& t) { return torch::matrix_exp(t); });
}

NestedTensor matrix_power(const NestedTensor& x, int64_t n) {
  return PerElement(x, [&](const Tensor& t) { return torch::matrix_power(t, n); });
}

NestedTensor inverse(const NestedTensor& x) {
  return PerElement(x, [](const Tensor& t) { return torch::inverse(t); });
}

NestedTensor det(const NestedTensor& x) {
  return PerElement(x, [](const Tensor& t) { return torch::linalg_det(t); });
}

NestedTensor cholesky(const NestedTensor& x) {
  return PerElement(x, [](const Tensor& t) { return torch::linalg_cholesky(t); });
}

NestedTensor solve(const NestedTensor& a, const NestedValue& b) {
  return Each(a, b, [](const Tensor& s, const Tensor& t) { return torch::linalg_solve(s, t); });
}

NestedTensor vector_norm(const NestedTensor& x, const torch::Scalar& order) {
  return PerElement(x, [&](const Tensor& t) { return torch::linalg_vector_norm(t, order); });
}

NestedTensor matrix_norm(const NestedTensor& x, const std::string& order) {
  return PerElement(x, [&](const Tensor& t) { return torch::linalg_matrix_norm(t, order); });
}

std::pair<NestedTensor, NestedTensor> eigh(const NestedTensor& x) {
  const auto both = Several(x, [](const Tensor& t) {
    const auto [values, vectors] = torch::linalg_eigh(t);
    return Tensors{values, vectors};
  });
  return {both[0], both[1]};
}

std::pair<NestedTensor, NestedTensor> qr(const NestedTensor& x) {
  const auto both = Several(x, [](const Tensor& t) {
    const auto [q, r] = torch::linalg_qr(t);
    return Tensors{q, r};
  });
  return {both[0], both[1]};
}

std::vector<NestedTensor> svd(const NestedTensor& x, bool full_matrices) {
  return Several(x, [&](const Tensor& t) {
    const auto [u, s, vh] = torch::linalg_svd(t, full_matrices);
    return Tensors{u, s, vh};
  });
}

}  // namespace athanor::nested
