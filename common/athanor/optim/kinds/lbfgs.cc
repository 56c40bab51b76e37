// L-BFGS: LibTorch's own, with its state by name.
#include <deque>

#include "absl/strings/str_cat.h"
#include "athanor/optim/kinds/optimizer_kinds.h"

namespace athanor {
namespace {

using State = torch::optim::LBFGSParamState;
using Tensors = std::vector<torch::Tensor>;

constexpr char kPrefix[] = "optim.lbfgs.";

torch::Tensor Stacked(const std::deque<torch::Tensor>& tensors) {
  return torch::stack(Tensors(tensors.begin(), tensors.end()));
}

std::deque<torch::Tensor> Rows(const torch::Tensor& stacked) {
  std::deque<torch::Tensor> rows;
  for (const torch::Tensor& row : stacked.unbind(0)) rows.push_back(row.clone());
  return rows;
}

class Lbfgs final : public Optimizer {
 public:
  explicit Lbfgs(const OptimConfig& config) : Optimizer("lbfgs"), settings_(config.lr.value_or(1)) {
    if (config.max_iter) settings_.max_iter(*config.max_iter);
    settings_.max_eval(config.max_eval.value_or(settings_.max_iter() * 5 / 4));
    if (config.tolerance_grad) settings_.tolerance_grad(*config.tolerance_grad);
    if (config.tolerance_change) settings_.tolerance_change(*config.tolerance_change);
    if (config.history_size) settings_.history_size(*config.history_size);
    if (config.line_search_fn) settings_.line_search_fn(*config.line_search_fn);
  }

  bool needs_closure() const override { return true; }

  torch::Tensor Step(const LossClosure& closure) override {
    if (solver_ == nullptr) solver_ = std::make_unique<torch::optim::LBFGS>(parameters(), settings_);
    static_cast<torch::optim::LBFGSOptions&>(solver_->param_groups()[0].options()).lr(lr());
    return solver_->step([&] {
      const torch::AutoGradMode grad(true);
      ZeroGrad();
      return closure();
    });
  }

  TensorMap StateTensors() const override {
    TensorMap tensors;
    const State* state = Find();
    if (state == nullptr || !state->d().defined()) return tensors;
    const auto name = [](const char* slot) { return absl::StrCat(kPrefix, slot); };
    tensors[name("d")] = state->d();
    tensors[name("h_diag")] = state->H_diag();
    tensors[name("prev_flat_grad")] = state->prev_flat_grad();
    if (!state->old_dirs().empty()) {
      tensors[name("old_dirs")] = Stacked(state->old_dirs());
      tensors[name("old_stps")] = Stacked(state->old_stps());
      tensors[name("ro")] = Stacked(state->ro());
    }
    return tensors;
  }

  nlohmann::json StateScalars() const override {
    nlohmann::json scalars = {{"type", type()}, {"lr", lr()}};
    if (const State* state = Find()) {
      scalars["state"] = {{"func_evals", state->func_evals()},
                          {"n_iter", state->n_iter()},
                          {"t", state->t()},
                          {"prev_loss", state->prev_loss()}};
    }
    return scalars;
  }

  absl::Status LoadState(const TensorMap& tensors, const nlohmann::json& scalars) override {
    const torch::NoGradGuard no_grad;
    int64_t numbers = 0;
    for (const torch::Tensor& parameter : parameters()) numbers += parameter.numel();
    auto state = std::make_unique<State>();
    double rate = 0;
    try {
      if (scalars.at("type") != type())
        return absl::InvalidArgumentError(
            absl::StrCat("optimizer state: found type ", scalars.at("type").dump(), "; allowed: lbfgs"));
      rate = scalars.at("lr").get<double>();
      if (!scalars.contains("state")) {
        SetLr(0, rate);
        solver_.reset();
        return absl::OkStatus();
      }
      const nlohmann::json& numbers_of = scalars.at("state");
      state->func_evals(numbers_of.at("func_evals").get<int64_t>());
      state->n_iter(numbers_of.at("n_iter").get<int64_t>());
      state->t(numbers_of.at("t").get<double>());
      state->prev_loss(numbers_of.at("prev_loss").get<double>());
    } catch (const nlohmann::json::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat("optimizer state is damaged: ", error.what()));
    }
    if (absl::Status status = TakeTensors(tensors, numbers, state.get()); !status.ok()) return status;
    SetLr(0, rate);
    solver_ = std::make_unique<torch::optim::LBFGS>(parameters(), settings_);
    solver_->state()[parameters().front().unsafeGetTensorImpl()] = std::move(state);
    return absl::OkStatus();
  }

 private:
  void Update(const OptimGroupOptions&, const Work&) override {
    TORCH_CHECK(false, "lbfgs evaluates the loss several times an update: call Step(closure)");
  }
  std::vector<std::string> SlotNames() const override { return {}; }
  double* MomentumOf(OptimGroupOptions*) const override { return nullptr; }

  const State* Find() const {
    if (solver_ == nullptr) return nullptr;
    const auto& states = solver_->state();
    const auto found = states.find(parameters().front().unsafeGetTensorImpl());
    return found == states.end() ? nullptr : static_cast<const State*>(found->second.get());
  }

  // Vectors as long as all parameters together, and the history, one row each.
  static absl::Status TakeTensors(const TensorMap& tensors, int64_t numbers, State* state) {
    const auto find = [&](const char* slot) {
      const auto found = tensors.find(absl::StrCat(kPrefix, slot));
      return found == tensors.end() ? torch::Tensor() : found->second;
    };
    const torch::Tensor d = find("d"), grad = find("prev_flat_grad"), diagonal = find("h_diag");
    const torch::Tensor dirs = find("old_dirs"), steps = find("old_stps"), ro = find("ro");
    const auto fits = [&](const torch::Tensor& tensor) { return tensor.defined() && tensor.numel() == numbers; };
    const bool history =
        !dirs.defined() || (steps.defined() && ro.defined() && dirs.dim() == 2 && dirs.size(1) == numbers &&
                            steps.sizes() == dirs.sizes() && ro.size(0) == dirs.size(0));
    if (!fits(d) || !fits(grad) || !diagonal.defined() || !history) {
      return absl::InvalidArgumentError(
          absl::StrCat("optimizer state: ", kPrefix, "* is missing or not of ", numbers, " numbers"));
    }
    state->d(d.clone());
    state->prev_flat_grad(grad.clone());
    state->H_diag(diagonal.clone());
    if (dirs.defined()) {
      state->old_dirs(Rows(dirs));
      state->old_stps(Rows(steps));
      state->ro(Rows(ro));
    }
    return absl::OkStatus();
  }

  torch::optim::LBFGSOptions settings_;
  std::unique_ptr<torch::optim::LBFGS> solver_;
};

}  // namespace

std::unique_ptr<Optimizer> MakeLbfgs(const OptimConfig& config) {
  return std::make_unique<Lbfgs>(config);
}

}  // namespace athanor
