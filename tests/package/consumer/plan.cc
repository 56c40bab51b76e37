// The core component alone: checks a configuration and prints its learning rates. Must not link LibTorch.
#include <athanor/config/config_loader.h>
#include <athanor/optim/lr_schedule.h>

#include <cstdio>

int main() {
  athanor::RunnerConfig config;
  const auto problems = athanor::CheckRunnerConfig({{"steps", 10}, {"optim", {{"type", "sgd"}, {"lr", -1}}}}, &config);
  if (problems.size() != 1 || problems[0].path != "optim.lr") return 1;
  std::printf("%s: %s\n", problems[0].path.c_str(), problems[0].message.c_str());
  return 0;
}
