// The makers of the optimizer types. Internal to the module.
#pragma once

#include <memory>
#include <string>

#include "athanor/optim/optimizer.h"

namespace athanor {

// Null when the type is not of this family.
std::unique_ptr<Optimizer> MakeFusedOptimizer(const std::string& type);    // sgd, adam, adamw, adagrad
std::unique_ptr<Optimizer> MakeForeachOptimizer(const std::string& type);  // nadam, radam, rmsprop, lion, muon
std::unique_ptr<Optimizer> MakeClassicOptimizer(const std::string& type);  // adadelta, adamax, asgd, rprop
std::unique_ptr<Optimizer> MakeAdafactor();
std::unique_ptr<Optimizer> MakeLbfgs(const OptimConfig& config);

}  // namespace athanor
