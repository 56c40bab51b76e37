// docs/task-options.md: the built-in tasks and their options, as the tasks themselves ask for them.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "athanor/task/task_options.h"

namespace athanor {

inline constexpr const char* kBuiltinTasks[] = {"char_gpt", "digits_mlp", "image_resnet", "torchscript", "train_step"};

// The options that a built-in task asks for, in its order; of another task none.
std::vector<TaskOptionNote> OptionsOf(const std::string& task);
// What each option means, by task and name; "" stands for every task.
const std::map<std::pair<std::string, std::string>, std::string>& OptionMeanings();
// docs/task-options.md, whole.
std::string TaskOptionsMarkdown();

}  // namespace athanor
