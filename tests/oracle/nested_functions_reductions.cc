// Reductions, scans and sorts of NestedTensor for recorded expressions.
#include "athanor/nested/ops/arithmetic.h"
#include "athanor/nested/ops/reduce.h"
#include "tests/oracle/python_value.h"

namespace athanor::oracle {
namespace {

// torch.std(x, dim, unbiased, keepdim, *, correction)
int64_t CorrectionOf(const Arguments& a, size_t unbiased, size_t correction) {
  if (a.given(correction)) return a.integer(correction);
  return a.given(unbiased) && !a.flag(unbiased) ? 0 : 1;
}

void DefineSums() {
#define ATHANOR_DEFINE(name)                           \
  Define(#name, "x dim=None keepdim=False dtype=None", \
         [](const Arguments& a) { return nested::name(a.nested(0), a.dims(1), a.flag(2), a.dtype(3)); });
  ATHANOR_DEFINE(sum)
  ATHANOR_DEFINE(mean)
  ATHANOR_DEFINE(prod)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                \
  Define(#name, "x dim=None keepdim=False", \
         [](const Arguments& a) { return nested::name(a.nested(0), a.dims(1), a.flag(2)); });
  ATHANOR_DEFINE(any)
  ATHANOR_DEFINE(all)
  ATHANOR_DEFINE(nansum)
  ATHANOR_DEFINE(nanmean)
  ATHANOR_DEFINE(amax)
  ATHANOR_DEFINE(amin)
#undef ATHANOR_DEFINE
  Define("count_nonzero", "x dim=None",
         [](const Arguments& a) { return nested::count_nonzero(a.nested(0), a.dims(1)); });
  Define("logsumexp", "x dim keepdim=False",
         [](const Arguments& a) { return nested::logsumexp(a.nested(0), a.dims(1), a.flag(2)); });
  Define("norm", "x p=2 dim=None keepdim=False", [](const Arguments& a) {
    return nested::norm(a.nested(0), a[1].is<std::string>() ? torch::Scalar(2) : a.scalar(1), a.dims(2), a.flag(3));
  });
}

void DefineMoments() {
  const char* const kSignature = "x dim=None unbiased=None keepdim=False correction=None";
#define ATHANOR_DEFINE(name) \
  Define(#name, kSignature,  \
         [](const Arguments& a) { return nested::name(a.nested(0), a.dims(1), CorrectionOf(a, 2, 4), a.flag(3)); });
  ATHANOR_DEFINE(var)
  ATHANOR_DEFINE(std)
  ATHANOR_DEFINE(var_mean)
  ATHANOR_DEFINE(std_mean)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                                                                  \
  Define(#name, "x q dim=None keepdim=False interpolation='linear'", [](const Arguments& a) { \
    return nested::name(a.nested(0), a.number(1), a.maybe_integer(2), a.flag(3), a.text(4));  \
  });
  ATHANOR_DEFINE(quantile)
  ATHANOR_DEFINE(nanquantile)
#undef ATHANOR_DEFINE
}

void DefineExtremes() {
#define ATHANOR_DEFINE(name, pointwise)                                            \
  Define(#name, "x dim=None keepdim=False", [](const Arguments& a) -> Value {      \
    if (!a.given(1)) return nested::name(a.nested(0));                             \
    if (!a[1].is<int64_t>()) return nested::pointwise(a.operand(0), a.operand(1)); \
    return nested::name(a.nested(0), a.integer(1), a.flag(2));                     \
  });
  ATHANOR_DEFINE(max, maximum)
  ATHANOR_DEFINE(min, minimum)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                                                  \
  Define(#name, "x dim=None keepdim=False", [](const Arguments& a) -> Value { \
    if (!a.given(1)) return nested::name(a.nested(0));                        \
    return nested::name(a.nested(0), a.integer(1), a.flag(2));                \
  });
  ATHANOR_DEFINE(median)
  ATHANOR_DEFINE(nanmedian)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                \
  Define(#name, "x dim=None keepdim=False", \
         [](const Arguments& a) -> Value { return nested::name(a.nested(0), a.maybe_integer(1), a.flag(2)); });
  ATHANOR_DEFINE(argmax)
  ATHANOR_DEFINE(argmin)
  ATHANOR_DEFINE(aminmax)
#undef ATHANOR_DEFINE
  Define("mode", "x dim=-1 keepdim=False",
         [](const Arguments& a) { return Value(nested::mode(a.nested(0), a.integer(1), a.flag(2))); });
  Define("kthvalue", "x k dim=-1 keepdim=False", [](const Arguments& a) {
    return Value(nested::kthvalue(a.nested(0), a.integer(1), a.integer(2), a.flag(3)));
  });
}

void DefineScans() {
#define ATHANOR_DEFINE(name)        \
  Define(#name, "x dim dtype=None", \
         [](const Arguments& a) { return nested::name(a.nested(0), a.integer(1), a.dtype(2)); });
  ATHANOR_DEFINE(softmax)
  ATHANOR_DEFINE(log_softmax)
  ATHANOR_DEFINE(cumsum)
  ATHANOR_DEFINE(cumprod)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name) \
  Define(#name, "x dim", [](const Arguments& a) { return Value(nested::name(a.nested(0), a.integer(1))); });
  ATHANOR_DEFINE(softmin)
  ATHANOR_DEFINE(logcumsumexp)
  ATHANOR_DEFINE(cummax)
  ATHANOR_DEFINE(cummin)
#undef ATHANOR_DEFINE
#define ATHANOR_DEFINE(name)                              \
  Define(#name, "x dim=-1 descending=False stable=False", \
         [](const Arguments& a) { return Value(nested::name(a.nested(0), a.integer(1), a.flag(2), a.flag(3))); });
  ATHANOR_DEFINE(sort)
  ATHANOR_DEFINE(argsort)
#undef ATHANOR_DEFINE
  Define("topk", "x k dim=-1 largest=True sorted=True", [](const Arguments& a) {
    return Value(nested::topk(a.nested(0), a.integer(1), a.integer(2), a.flag(3), a.flag(4)));
  });
}

}  // namespace

void DefineNestedReductions() {
  DefineSums();
  DefineMoments();
  DefineExtremes();
  DefineScans();
}

}  // namespace athanor::oracle
