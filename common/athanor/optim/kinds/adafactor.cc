// Adafactor (Shazeer and Stern 2018) as torch.optim has it: second moments of matrices as a row and a column.
#include <algorithm>
#include <cmath>
#include <limits>

#include "athanor/optim/kinds/optimizer_kinds.h"

namespace athanor {
namespace {

double Epsilon(torch::ScalarType dtype) {
  switch (dtype) {
    case torch::kDouble:
      return std::numeric_limits<double>::epsilon();
    case torch::kHalf:
      return 0x1p-10;
    case torch::kBFloat16:
      return 0x1p-7;
    default:
      return std::numeric_limits<float>::epsilon();
  }
}

torch::Tensor RootMeanSquare(const torch::Tensor& tensor) {
  return tensor.norm() / std::sqrt(static_cast<double>(tensor.numel()));
}

class Adafactor final : public Optimizer {
 public:
  Adafactor() : Optimizer("adafactor") {}
  // Rows and columns of a matrix are every rank's.
  bool DividesState() const override { return false; }

 private:
  void Update(const OptimGroupOptions& o, const Work& work) override {
    for (size_t i = 0; i < work.parameters.size(); ++i) UpdateOne(o, work.grads[i], work.steps, work.parameters[i]);
  }

  // All scalars that depend on tensors stay on the device.
  void UpdateOne(const OptimGroupOptions& o, const torch::Tensor& own, int64_t steps, Parameter* parameter) const {
    const torch::Tensor& value = parameter->tensor;
    const torch::Tensor grad = Optimizer::Whole(*parameter, own);
    const double eps1 = o.eps1 >= 0 ? o.eps1 : Epsilon(value.scalar_type());
    const double share = std::pow(static_cast<double>(steps), o.beta2_decay);
    const double rho = std::min(o.lr, 1 / std::sqrt(static_cast<double>(steps)));
    const torch::Tensor alpha = ValueSize(*parameter).clamp_min(o.eps) * rho;
    if (o.weight_decay != 0) value.mul_(1 - o.lr * o.weight_decay);
    torch::Tensor update =
        grad.dim() > 1 ? Factored(grad, share, eps1, parameter) : Elementwise(grad, share, parameter);
    update.clamp_min_(eps1 * eps1).rsqrt_().mul_(grad);
    const torch::Tensor denominator = (RootMeanSquare(update) / o.clip_threshold).clamp_min(1.0);
    value.sub_(OwnOf(*parameter, update.mul_(alpha / denominator)));
  }

  // The root mean square of the whole parameter.
  torch::Tensor ValueSize(const Parameter& parameter) const {
    if (!parameter.part.has_value()) return RootMeanSquare(parameter.tensor);
    torch::Tensor squares = parameter.tensor.square().sum();
    SumOverParts(squares);
    return (squares / c10::multiply_integers(ShapeOf(parameter))).sqrt();
  }

  torch::Tensor Factored(const torch::Tensor& grad, double share, double eps1, Parameter* parameter) const {
    const auto mean = [&](int64_t dim) { return grad.norm(2, {dim}, true).square_().div_(grad.size(dim)); };
    torch::Tensor &rows = Slot("row_var", parameter), &columns = Slot("col_var", parameter);
    rows.lerp_(mean(-1), share);
    columns.lerp_(mean(-2), share);
    return rows.matmul(columns).div_(rows.mean(-2, true).clamp_min_(eps1));
  }

  torch::Tensor Elementwise(const torch::Tensor& grad, double share, Parameter* parameter) const {
    torch::Tensor& variance = Slot("variance", parameter);
    variance.lerp_(grad * grad, share);
    return variance.clone();
  }

  torch::Tensor& Slot(const std::string& name, Parameter* parameter) const {
    torch::Tensor& slot = parameter->slots[name];
    if (!slot.defined())
      slot = torch::zeros(SlotSizes(name, ShapeOf(*parameter)), parameter->tensor.options().requires_grad(false));
    return slot;
  }

  std::vector<std::string> SlotNames() const override { return {"row_var", "col_var", "variance"}; }
  bool NeedsWhole() const override { return true; }
  std::vector<std::string> RequiredSlots(at::IntArrayRef shape) const override {
    return shape.size() > 1 ? std::vector<std::string>{"row_var", "col_var"} : std::vector<std::string>{"variance"};
  }
  std::vector<int64_t> SlotSizes(const std::string& slot, at::IntArrayRef shape) const override {
    std::vector<int64_t> sizes = shape.vec();
    if (slot == "row_var" && sizes.size() > 1) sizes.back() = 1;
    if (slot == "col_var" && sizes.size() > 1) sizes[sizes.size() - 2] = 1;
    return sizes;
  }
  double* MomentumOf(OptimGroupOptions*) const override { return nullptr; }
};

}  // namespace

std::unique_ptr<Optimizer> MakeAdafactor() {
  return std::make_unique<Adafactor>();
}

}  // namespace athanor
