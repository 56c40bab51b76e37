// Shape operations, indexing functions, products and linear algebra of NestedTensor for recorded expressions.
#include "athanor/nested/ops/linalg.h"
#include "athanor/nested/ops/shape.h"
#include "tests/oracle/python_value.h"

namespace athanor::oracle {
namespace {

// A function that takes its sizes one by one or as one tuple: x.view(3, -1), x.view((3, -1)).
#define ATHANOR_DEFINE_VARIADIC(name) \
  Define(#name, "x *sizes", [](const Arguments& a) { return nested::name(a.nested(0), a.ints(1)); });

void DefineDims() {
  for (const char* name : {"transpose", "swapaxes", "swapdims"}) {
    Define(name, "x dim0 dim1",
           [](const Arguments& a) { return nested::transpose(a.nested(0), a.integer(1), a.integer(2)); });
  }
  ATHANOR_DEFINE_VARIADIC(permute)
  ATHANOR_DEFINE_VARIADIC(reshape)
  ATHANOR_DEFINE_VARIADIC(view)
  ATHANOR_DEFINE_VARIADIC(expand)
  for (const char* name : {"movedim", "moveaxis"}) {
    Define(name, "x source destination",
           [](const Arguments& a) { return nested::movedim(a.nested(0), a.dims(1), a.dims(2)); });
  }
  Define("unsqueeze", "x dim", [](const Arguments& a) { return nested::unsqueeze(a.nested(0), a.integer(1)); });
  Define("squeeze", "x dim=None", [](const Arguments& a) { return nested::squeeze(a.nested(0), a.dims(1)); });
  Define("unflatten", "x dim sizes",
         [](const Arguments& a) { return nested::unflatten(a.nested(0), a.integer(1), a.ints(2)); });
  Define("flatten", "x start_dim=0 end_dim=-1",
         [](const Arguments& a) { return Value(nested::flatten(a.nested(0), a.integer(1), a.integer(2))); });
  Define("unbind", "x dim=0", [](const Arguments& a) {
    List parts;
    for (const torch::Tensor& part : nested::unbind(a.nested(0), a.integer(1))) parts.emplace_back(part);
    return parts;
  });
}

Value Listed(const std::vector<NestedTensor>& tensors) {
  List list;
  for (const NestedTensor& tensor : tensors) list.emplace_back(tensor);
  return list;
}

void DefineJoins() {
  for (const char* name : {"cat", "concat", "concatenate_tensors"}) {
    Define(name, "tensors dim=0", [](const Arguments& a) { return nested::cat(a.operands(0), a.integer(1)); });
  }
  Define("stack", "tensors dim=0", [](const Arguments& a) { return nested::stack(a.operands(0), a.integer(1)); });
  Define("split", "x size dim=0", [](const Arguments& a) {
    return a[1].is_list() ? Listed(nested::split(a.nested(0), a.ints(1), a.integer(2)))
                          : Listed(nested::split(a.nested(0), a.integer(1), a.integer(2)));
  });
  Define("chunk", "x chunks dim=0",
         [](const Arguments& a) { return Listed(nested::chunk(a.nested(0), a.integer(1), a.integer(2))); });
  Define("repeat_interleave", "x repeats dim=None",
         [](const Arguments& a) { return nested::repeat_interleave(a.nested(0), a.integer(1), a.maybe_integer(2)); });
}

void DefineMoves() {
  Define("flip", "x dims", [](const Arguments& a) { return nested::flip(a.nested(0), a.ints(1)); });
  Define("roll", "x shifts dims=None", [](const Arguments& a) {
    return nested::roll(a.nested(0), a.sizes(1), a.given(2) ? a.sizes(2) : std::vector<int64_t>{});
  });
  Define("rot90", "x k=1 dims=None", [](const Arguments& a) {
    return a.given(2) ? nested::rot90(a.nested(0), a.integer(1), a.ints(2)) : nested::rot90(a.nested(0), a.integer(1));
  });
#define ATHANOR_DEFINE(name) \
  Define(#name, "x diagonal=0", [](const Arguments& a) { return nested::name(a.nested(0), a.integer(1)); });
  ATHANOR_DEFINE(tril)
  ATHANOR_DEFINE(triu)
  ATHANOR_DEFINE(diag)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name) \
  Define(#name, "x offset=0", [](const Arguments& a) { return nested::name(a.nested(0), a.integer(1)); });
  ATHANOR_DEFINE(diagflat)
  ATHANOR_DEFINE(diag_embed)
#undef ATHANOR_DEFINE
  Define("diagonal", "x offset=0 dim1=-2 dim2=-1",
         [](const Arguments& a) { return nested::diagonal(a.nested(0), a.integer(1), a.integer(2), a.integer(3)); });
#define ATHANOR_DEFINE(name) Define(#name, "x", [](const Arguments& a) { return nested::name(a.nested(0)); });
  ATHANOR_DEFINE(trace)
  ATHANOR_DEFINE(nonzero)
#undef ATHANOR_DEFINE
}

void DefineSelections() {
  Define("gather", "x dim index",
         [](const Arguments& a) { return nested::gather(a.nested(0), a.integer(1), a.operand(2)); });
  Define("take_along_dim", "x index dim",
         [](const Arguments& a) { return nested::take_along_dim(a.nested(0), a.operand(1), a.integer(2)); });
  Define("take", "x index", [](const Arguments& a) { return nested::take(a.nested(0), a.operand(1)); });
#define ATHANOR_DEFINE(name)       \
  Define(#name, "x dim index src", \
         [](const Arguments& a) { return nested::name(a.nested(0), a.integer(1), a.operand(2), a.operand(3)); });
  ATHANOR_DEFINE(scatter)
  ATHANOR_DEFINE(scatter_add)
  ATHANOR_DEFINE(index_copy)
#undef ATHANOR_DEFINE
  Define("scatter_reduce", "x dim index src reduce include_self=True", [](const Arguments& a) {
    return nested::scatter_reduce(a.nested(0), a.integer(1), a.operand(2), a.operand(3), a.text(4), a.flag(5));
  });
  Define("index_select", "x dim index",
         [](const Arguments& a) { return nested::index_select(a.nested(0), a.integer(1), a.operand(2)); });
  Define("index_add", "x dim index source alpha=1", [](const Arguments& a) {
    return nested::index_add(a.nested(0), a.integer(1), a.operand(2), a.operand(3), a.scalar(4));
  });
  Define("index_fill", "x dim index value",
         [](const Arguments& a) { return nested::index_fill(a.nested(0), a.integer(1), a.operand(2), a.scalar(3)); });
  Define("index_put", "x indices values accumulate=False",
         [](const Arguments& a) { return nested::index_put(a.nested(0), a.operands(1), a.operand(2), a.flag(3)); });
  Define("masked_select", "x mask",
         [](const Arguments& a) { return nested::masked_select(a.nested(0), a.operand(1)); });
  Define("masked_scatter", "x mask source",
         [](const Arguments& a) { return nested::masked_scatter(a.nested(0), a.operand(1), a.operand(2)); });
  Define("searchsorted", "sorted_sequence values right=False",
         [](const Arguments& a) { return nested::searchsorted(a.operand(0), a.operand(1), a.flag(2)); });
}

void DefineProducts() {
#define ATHANOR_DEFINE(name) \
  Define(#name, "a b", [](const Arguments& a) { return nested::name(a.operand(0), a.operand(1)); });
  ATHANOR_DEFINE(matmul)
  ATHANOR_DEFINE(mm)
  ATHANOR_DEFINE(bmm)
  ATHANOR_DEFINE(mv)
  ATHANOR_DEFINE(dot)
  ATHANOR_DEFINE(vdot)
  ATHANOR_DEFINE(inner)
  ATHANOR_DEFINE(outer)
  ATHANOR_DEFINE(ger)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                                                                 \
  Define(#name, "x a b beta=1 alpha=1", [](const Arguments& a) {                             \
    return nested::name(a.operand(0), a.operand(1), a.operand(2), a.scalar(3), a.scalar(4)); \
  });
  ATHANOR_DEFINE(addmm)
  ATHANOR_DEFINE(baddbmm)
  ATHANOR_DEFINE(addr)
  ATHANOR_DEFINE(addmv)
#undef ATHANOR_DEFINE
  Define("dist", "a b p=2", [](const Arguments& a) { return nested::dist(a.operand(0), a.operand(1), a.scalar(2)); });
  Define("cdist", "a b p=2", [](const Arguments& a) { return nested::cdist(a.operand(0), a.operand(1), a.number(2)); });
  Define("pdist", "x p=2", [](const Arguments& a) { return nested::pdist(a.nested(0), a.number(1)); });
  Define("einsum", "equation *operands", [](const Arguments& a) { return nested::einsum(a.text(0), a.operands(1)); });
  Define("matrix_power", "x n", [](const Arguments& a) { return nested::matrix_power(a.nested(0), a.integer(1)); });
}

void DefineLinearAlgebra() {
#define ATHANOR_DEFINE(name, function)                                                         \
  Define(#name, "x", [](const Arguments& a) { return Value(nested::function(a.nested(0))); }); \
  Define("linalg." #name, "x", [](const Arguments& a) { return Value(nested::function(a.nested(0))); });
  ATHANOR_DEFINE(matrix_exp, matrix_exp)
  ATHANOR_DEFINE(inv, inverse)
  ATHANOR_DEFINE(inverse, inverse)
  ATHANOR_DEFINE(det, det)
  ATHANOR_DEFINE(cholesky, cholesky)
  ATHANOR_DEFINE(eigh, eigh)
  ATHANOR_DEFINE(qr, qr)
#undef ATHANOR_DEFINE
  Define("linalg.solve", "a b", [](const Arguments& a) { return nested::solve(a.nested(0), a.operand(1)); });
  Define("linalg.svd", "x full_matrices=True",
         [](const Arguments& a) { return Listed(nested::svd(a.nested(0), a.flag(1))); });
  Define("linalg.norm", "x ord=2", [](const Arguments& a) { return nested::vector_norm(a.nested(0), a.scalar(1)); });
}

}  // namespace

void DefineNestedShapes() {
  DefineDims();
  DefineJoins();
  DefineMoves();
  DefineSelections();
  DefineProducts();
  DefineLinearAlgebra();
}

}  // namespace athanor::oracle
