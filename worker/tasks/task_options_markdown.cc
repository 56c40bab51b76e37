#include "worker/tasks/task_options_markdown.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "athanor/task/task.h"

namespace athanor {
namespace {

const std::map<std::string, std::string>& Purposes() {
  static const auto& purposes = *new std::map<std::string, std::string>{
      {"char_gpt",
       "A decoder-only transformer that predicts the next byte of a text. Splits `train` and `val`; metric "
       "`bits_per_char`."},
      {"digits_mlp", "A multi-layer perceptron for tables of numbers. Metric `accuracy`."},
      {"image_resnet", "A small residual network for images. Metric `accuracy`."},
      {"torchscript",
       "A module that Python saved with `torch.jit.save`. Metric `accuracy` with `classes`, and those of the module's "
       "own `metrics(output, target)`."},
      {"train_step",
       "A model and a loss of Python, compiled by `scripts/export_train_step.py`. CPU only; `runner.precision` is left "
       "out. Metric `accuracy` where the package tells classes apart, and those of the model's own `metrics()`."}};
  return purposes;
}

std::string Meaning(const std::string& task, const std::string& option) {
  for (const std::string& owner : {task, std::string()}) {
    const auto found = OptionMeanings().find({owner, option});
    if (found != OptionMeanings().end()) return found->second;
  }
  return "";
}

using Meanings = std::map<std::pair<std::string, std::string>, std::string>;

// Of the data options, which several tasks have.
Meanings DataMeanings() {
  return {
      {{"", "data"}, "`.csv`: one sample a line, the target in the last column; `.npy`: the first axis counts samples"},
      {{"", "target_file"}, "`.npy` of targets; needed with a `.npy` `data`, refused otherwise"},
      {{"", "val_data"}, "the split `val`, as `data`"},
      {{"", "val_target_file"}, "of `val_data`, as `target_file`"},
      {{"", "test_data"}, "the split `test`, as `data`"},
      {{"", "test_target_file"}, "of `test_data`, as `target_file`"},
      {{"", "test_every"},
       "the samples n, 2n, 3n … (counted from 1) of `data` are the split `test`; 0: none. With `val_data` or "
       "`test_data` the default is 0"},
      {{"", "scale"}, "the numbers of a sample are divided by it"},
      {{"", "sample_weights_file"},
       "`.npy`, a number for each sample of `data`: a pass draws samples with replacement, in proportion"},
      {{"", "balance_classes"}, "a pass draws samples with replacement, each class as often as the others"},
      {{"", "samples_per_epoch"}, "how many such a pass draws; 0: as many as there are"},
      {{"", "sampler_seed"}, "of these draws"},
      {{"", "classes"}, "how many classes the targets tell apart"},
      {{"", "metrics"}, "also measure `auroc`, `auprc`, `acc_macro`, `f1_macro` and `mcc`"},
      {{"", "input_files"},
       "`.npy` files of further inputs, by the names of forward's arguments, with a `.npy` `data`"},
      {{"", "val_input_files"}, "of `val_data`, as `input_files`"},
      {{"", "test_input_files"}, "of `test_data`, as `input_files`"},
      {{"", "token_bytes"}, "of tokens without a header: 2 or 4"},
  };
}

Meanings TaskMeanings() {
  return {
      {{"char_gpt", "data"}, "a text file; its different bytes are the vocabulary"},
      {{"char_gpt", "n_layer"}, "transformer blocks"},
      {{"char_gpt", "n_head"}, "attention heads"},
      {{"char_gpt", "n_embd"}, "width, a multiple of `n_head`"},
      {{"char_gpt", "block_size"}, "bytes of context"},
      {{"char_gpt", "dropout"}, "after the embedding, in attention and after each half of a block"},
      {{"char_gpt", "stride"}, "between training windows; half of `block_size` when it is not given"},
      {{"char_gpt", "val_share"}, "the end of the text that is held out"},
      {{"digits_mlp", "hidden"}, "widths of the hidden layers"},
      {{"digits_mlp", "dropout"}, "after each hidden layer"},
      {{"digits_mlp", "noise"}, "standard deviation of normal noise on the scaled inputs in training"},
      {{"digits_mlp", "inputs"}, "numbers a sample"},
      {{"image_resnet", "image"}, "[channels, height, width] of one image"},
      {{"image_resnet", "width"},
       "channels of the first stage, a multiple of 8; each further stage has twice as many at half the size"},
      {{"image_resnet", "blocks"}, "residual blocks in each stage"},
      {{"torchscript", "module"}, "the saved file"},
      {{"torchscript", "data"},
       "`.csv`: one sample a line, the target in the last column; `.npy`: the first axis counts samples; `.bin`: "
       "tokens"},
      {{"torchscript", "test_every"},
       "the samples n, 2n, 3n … (counted from 1) of `data` are the split `test`; 0: none. With `val_data`, `test_data` "
       "or tokens the default is 0"},
      {{"torchscript", "scale"}, "the numbers of a sample are divided by it; those of further inputs are not"},
      {{"torchscript", "block_size"}, "of tokens: length of a sample; its target is the same, one token further"},
      {{"torchscript", "loss"},
       "a mean over the batch; `module`: the module's own method `loss(output, target)`. `cross_entropy` and `nll` "
       "take "
       "class numbers as targets"},
      {{"torchscript", "loss_module"}, "in place of `loss`: a saved module whose `forward(output, target)` gives it"},
      {{"torchscript", "classes"},
       "how many the module tells apart, of tokens the vocabulary; needed with `cross_entropy` and `nll`. With a loss "
       "of "
       "one's own it adds the metrics of classes"},
      {{"torchscript", "sample_shape"}, "of one sample as `forward` expects it; as it lies in the file when not given"},
      {{"torchscript", "input_type"}, "`natural`: int64 where the file holds integers; tokens are int64 in any case"},
      {{"torchscript", "metrics"}, "with `classes`: also measure `auroc`, `auprc`, `acc_macro`, `f1_macro` and `mcc`"},
      {{"train_step", "data"},
       "`.csv`: one sample a line, the target in the last column; `.npy`: the first axis counts samples; `.bin`: "
       "tokens"},
      {{"train_step", "test_every"},
       "the samples n, 2n, 3n … (counted from 1) of `data` are the split `test`; 0: none. With `val_data`, `test_data` "
       "or tokens the default is 0"},
      {{"train_step", "scale"}, "the numbers of a sample are divided by it; those of further inputs are not"},
      {{"train_step", "block_size"}, "of tokens: length of a sample, the package's when it is not given"},
      {{"train_step", "package"}, "the folder that the script wrote; it fixes shapes, classes and precision"},
      {{"train_step", "metrics"},
       "where the package tells classes apart: also measure `auroc`, `auprc`, `acc_macro`, `f1_macro` and `mcc`"},
  };
}

}  // namespace

std::vector<TaskOptionNote> OptionsOf(const std::string& task) {
  const absl::StatusOr<std::unique_ptr<Task>> made = MakeTask(task);
  if (!made.ok()) return {};
  TaskOptionsProbe probe;
  (*made)->Setup({.options = nlohmann::json::object()}).IgnoreError();  // required options are missing: they are noted
  return probe.notes();
}

const std::map<std::pair<std::string, std::string>, std::string>& OptionMeanings() {
  static const Meanings& meanings = *new Meanings([] {
    Meanings all = DataMeanings();
    all.merge(TaskMeanings());
    return all;
  }());
  return meanings;
}

std::string TaskOptionsMarkdown() {
  std::string text =
      "# Options of the built-in tasks\n\nGenerated from the tasks (`tasks_test` with `ATHANOR_UPDATE_DOCS=1` writes "
      "it).\nA job file gives them as `task.options`; keys that end in `data`, `file`, `files`, `path`, `module` or "
      "`package` hold paths, relative to the job file.\n`athanor job submit FILE --dry-run` checks them where "
      "`athanor-trainer` is at hand. An unknown option is refused with the nearest name.\nTasks of your own: "
      "[tasks.md](tasks.md).\n";
  for (const char* task : kBuiltinTasks) {
    absl::StrAppend(&text, "\n## ", task, "\n\n", Purposes().at(task),
                    "\n\n| option | default | allowed | meaning |\n|---|---|---|---|\n");
    for (const TaskOptionNote& note : OptionsOf(task)) {
      absl::StrAppend(&text, "| `", note.name, "` | ", note.fallback, " | ", note.allowed, " | ",
                      Meaning(task, note.name), " |\n");
    }
  }
  return text;
}

}  // namespace athanor
