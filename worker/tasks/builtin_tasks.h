// The tasks that every trainer knows by name. Their options are described in the source of each.
#pragma once

#include <memory>

#include "athanor/task/task.h"

namespace athanor {

std::unique_ptr<Task> MakeDigitsMlp();        // "digits_mlp": a multi-layer perceptron for tables of numbers
std::unique_ptr<Task> MakeImageResNet();      // "image_resnet": a small residual network for images
std::unique_ptr<Task> MakeCharGpt();          // "char_gpt": a transformer that continues text, byte by byte
std::unique_ptr<Task> MakeTorchScriptTask();  // "torchscript": a module saved from Python with torch.jit.save
std::unique_ptr<Task> MakeTrainStepTask();    // "train_step": a model and its loss, compiled from Python

}  // namespace athanor
