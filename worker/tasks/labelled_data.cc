#include "worker/tasks/labelled_data.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/formats/npy.h"
#include "athanor/data/formats/token_dataset.h"
#include "athanor/data/tensor_dataset.h"
#include "athanor/data/weighted_dataset.h"

namespace athanor {
namespace {

using Splits = std::map<std::string, std::shared_ptr<Dataset>>;

struct Table {
  torch::Tensor input;
  torch::Tensor target;
  std::map<std::string, torch::Tensor> more;
};

bool IsTokens(const std::string& path) {
  return absl::EndsWith(path, ".bin");
}

std::string ShapeText(const torch::Tensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ", "), "]");
}

// Integers as int64, bool as it is, everything else as float32.
torch::Tensor Natural(const torch::Tensor& tensor) {
  if (tensor.scalar_type() == torch::kBool) return tensor;
  return tensor.to(tensor.is_floating_point() || tensor.is_complex() ? torch::kFloat32 : torch::kInt64);
}

absl::StatusOr<Table> ReadTable(const LabelledDataOptions& options, const LabelledFiles& files) {
  if (absl::EndsWith(files.data, ".csv")) {
    ASSIGN_OR_RETURN(CsvTable csv, ReadCsv(files.data, {.integer_target = options.classes > 0}));
    return Table{csv.features, csv.target, {}};
  }
  Table table;
  ASSIGN_OR_RETURN(table.input, ReadNpy(files.data));
  ASSIGN_OR_RETURN(table.target, ReadNpy(files.target_file));
  for (const auto& [name, path] : files.input_files) {
    ASSIGN_OR_RETURN(torch::Tensor input, ReadNpy(path));
    table.more[name] = Natural(input);
  }
  const int64_t samples = table.input.dim() == 0 ? 0 : table.input.size(0);
  const auto fits = [&](const torch::Tensor& tensor) { return tensor.dim() > 0 && tensor.size(0) == samples; };
  if (samples == 0 || !fits(table.target)) {
    return absl::DataLossError(absl::StrCat(files.data, " has shape ", ShapeText(table.input), ", ", files.target_file,
                                            " ", ShapeText(table.target),
                                            "; the first axis of both counts the samples"));
  }
  for (const auto& [name, tensor] : table.more) {
    if (fits(tensor)) continue;
    return absl::DataLossError(absl::StrCat(files.input_files.at(name), " has shape ", ShapeText(tensor), ", ",
                                            files.data, " ", ShapeText(table.input),
                                            "; the first axis of both counts the samples"));
  }
  if (options.classes == 0)
    table.target = options.target_type.has_value() ? table.target.to(*options.target_type) : Natural(table.target);
  return table;
}

// Class numbers as int64, whatever type the file has them in; 0.7 is none, and neither is NaN.
absl::StatusOr<torch::Tensor> Classes(const std::string& file, int64_t classes, const torch::Tensor& target) {
  if (target.dim() != 1) {
    return absl::DataLossError(
        absl::StrCat("targets of ", file, " have ", target.dim(), " axes; class numbers have one"));
  }
  if (target.is_complex()) {
    return absl::DataLossError(absl::StrCat("targets of ", file, " are complex numbers; allowed: 0 to ", classes - 1));
  }
  torch::Tensor right = (target >= 0) & (target < classes);
  if (target.is_floating_point()) right = right & (target == target.floor());
  const torch::Tensor wrong = right.logical_not().nonzero();
  if (wrong.size(0) == 0) return target.to(torch::kInt64);
  const int64_t sample = wrong[0][0].item<int64_t>();
  const torch::Tensor found = target[sample];
  return absl::DataLossError(
      absl::StrCat(file, ": sample ", sample + 1, " has class ",
                   found.is_floating_point() ? absl::StrCat(found.item<double>()) : absl::StrCat(found.item<int64_t>()),
                   "; allowed: 0 to ", classes - 1));
}

absl::Status ShapeSamples(const LabelledDataOptions& options, const std::string& file, Table& table) {
  if (options.sample_shape.empty()) return absl::OkStatus();
  int64_t wanted = 1;
  for (int64_t size : options.sample_shape) wanted *= size;
  const int64_t held = table.input.numel() / table.input.size(0);
  if (held != wanted) {
    return absl::InvalidArgumentError(absl::StrCat(file, " holds ", held, " numbers a sample; the shape [",
                                                   absl::StrJoin(options.sample_shape, ", "), "] needs ", wanted));
  }
  std::vector<int64_t> shape = options.sample_shape;
  shape.insert(shape.begin(), table.input.size(0));
  table.input = table.input.reshape(shape);
  return absl::OkStatus();
}

absl::StatusOr<Table> LoadTable(const LabelledDataOptions& options, const LabelledFiles& files) {
  ASSIGN_OR_RETURN(Table table, ReadTable(options, files));
  if (options.classes > 0) {
    const std::string& file = files.target_file.empty() ? files.data : files.target_file;
    ASSIGN_OR_RETURN(table.target, Classes(file, options.classes, table.target));
  }
  RETURN_IF_ERROR(ShapeSamples(options, files.data, table));
  table.input = options.input_type.has_value() ? table.input.to(*options.input_type) : Natural(table.input);
  if (options.scale != 1) table.input = table.input / options.scale;
  return table;
}

absl::StatusOr<std::shared_ptr<Dataset>> AsDataset(const Table& table) {
  return TensorDataset::Make(table.input, table.target, table.more);
}

Table Rows(const Table& table, const torch::Tensor& chosen) {
  const torch::Tensor rows = chosen.nonzero().flatten();
  Table part{table.input.index_select(0, rows), table.target.index_select(0, rows), {}};
  for (const auto& [name, tensor] : table.more) part.more[name] = tensor.index_select(0, rows);
  return part;
}

// `weights`: of the samples of `table`; undefined: every sample once in a pass.
absl::StatusOr<std::shared_ptr<Dataset>> Sampled(const LabelledDataOptions& options, std::shared_ptr<Dataset> dataset,
                                                 torch::Tensor weights, const torch::Tensor& target) {
  if (options.balance_classes) weights = BalancingWeights(target);
  if (!weights.defined()) return dataset;
  const WeightedOptions draws{.samples = options.samples_per_epoch,
                              .seed = static_cast<uint64_t>(options.sampler_seed)};
  absl::StatusOr<std::shared_ptr<WeightedDataset>> drawn = WeightedDataset::Make(std::move(dataset), weights, draws);
  if (!drawn.ok()) {
    const std::string place = options.sample_weights_file.empty() ? options.data : options.sample_weights_file;
    return Annotate(drawn.status(), place);
  }
  return *drawn;
}

absl::StatusOr<Splits> LoadTokens(const LabelledDataOptions& options) {
  Splits splits;
  for (const auto& [name, files] : {std::pair<const char*, const LabelledFiles*>("train", &options),
                                    {"val", &options.val},
                                    {"test", &options.test}}) {
    if (files->data.empty()) continue;
    ASSIGN_OR_RETURN(splits[name],
                     TokenDataset::Open(files->data, {.block_size = options.block_size,
                                                      .token_bytes = static_cast<int>(options.token_bytes),
                                                      .vocabulary = options.classes}));
  }
  return splits;
}

absl::StatusOr<torch::Tensor> ReadWeightsOf(const LabelledDataOptions& options, int64_t samples) {
  if (options.sample_weights_file.empty()) return torch::Tensor();
  ASSIGN_OR_RETURN(torch::Tensor weights, ReadNpy(options.sample_weights_file));
  if (weights.dim() == 1 && weights.size(0) == samples) return weights;
  return absl::InvalidArgumentError(absl::StrCat(options.sample_weights_file, " has shape ", ShapeText(weights), "; ",
                                                 options.data, " has ", samples, " samples: one number each"));
}

// ---- options ----

// What is wrong with the files of one split; `prefix`: "", "val_" or "test_".
void CheckFiles(TaskOptions& options, const std::string& prefix, const LabelledFiles& files, LabelledDataUse use) {
  const std::string data = prefix + "data", target = prefix + "target_file", inputs = prefix + "input_files";
  if (files.data.empty()) {
    if (!files.target_file.empty()) options.Complain(target, absl::StrCat("belongs to ", data));
    if (!files.input_files.empty()) options.Complain(inputs, absl::StrCat("belongs to ", data));
    return;
  }
  const bool csv = absl::EndsWith(files.data, ".csv"), npy = absl::EndsWith(files.data, ".npy");
  if (IsTokens(files.data) && use.tokens) {
    if (!files.target_file.empty()) options.Complain(target, "tokens are their own targets");
  } else if (csv) {
    if (!files.target_file.empty()) options.Complain(target, "a .csv holds its targets in the last column");
  } else if (!npy) {
    options.Complain(data, absl::StrCat("found \"", files.data, "\"; allowed: a .csv or .npy file",
                                        use.tokens ? ", or a .bin of tokens" : ""));
  } else if (!absl::EndsWith(files.target_file, ".npy")) {
    options.Complain(target, "missing; with a .npy `data` it is a .npy file of targets");
  }
  if (files.input_files.empty()) return;
  if (!npy) options.Complain(inputs, absl::StrCat("needs a .npy as ", data));
  for (const auto& [name, path] : files.input_files) {
    if (!absl::EndsWith(path, ".npy"))
      options.Complain(absl::StrCat(inputs, ".", name), absl::StrCat("found \"", path, "\"; allowed: a .npy file"));
  }
}

void CheckTogether(TaskOptions& options, const LabelledDataOptions& read) {
  const auto names = [](const LabelledFiles& files) {
    std::vector<std::string> found;
    for (const auto& [name, path] : files.input_files) found.push_back(name);
    return absl::StrJoin(found, ", ");
  };
  for (const auto& [prefix, files] : {std::pair("val_", &read.val), std::pair("test_", &read.test)}) {
    if (files->data.empty()) continue;
    if (IsTokens(files->data) != read.tokens())
      options.Complain(absl::StrCat(prefix, "data"), "tokens and tables do not go together with `data`");
    if (names(*files) != names(read)) {
      options.Complain(absl::StrCat(prefix, "input_files"),
                       absl::StrCat("found ", names(*files), "; allowed: those of input_files: ", names(read)));
    }
  }
  if (read.tokens() && read.test_every != 0)
    options.Complain("test_every", "belongs to tables; give tokens to test on as val_data or test_data");
  if (read.test_every != 0 && !read.test.data.empty()) options.Complain("test_every", "excludes test_data");
  if (read.balance_classes && !read.sample_weights_file.empty())
    options.Complain("balance_classes", "excludes sample_weights_file");
  const bool sampled = read.balance_classes || !read.sample_weights_file.empty();
  if (sampled && read.tokens()) options.Complain("balance_classes", "and sample_weights_file belong to tables");
  if (!sampled && (read.samples_per_epoch != 0 || read.sampler_seed != 0))
    options.Complain("samples_per_epoch", "and sampler_seed belong to balance_classes and sample_weights_file");
}

}  // namespace

bool LabelledDataOptions::tokens() const {
  return IsTokens(data);
}

LabelledDataOptions ReadLabelledDataOptions(TaskOptions& options, double default_scale, LabelledDataUse use) {
  LabelledDataOptions read;
  read.data = options.RequiredText("data");
  for (const auto& [prefix, files] :
       {std::pair<std::string, LabelledFiles*>("", &read), {"val_", &read.val}, {"test_", &read.test}}) {
    if (!prefix.empty()) files->data = options.Text(prefix + "data", "");
    files->target_file = options.Text(prefix + "target_file", "");
    if (use.several_inputs) files->input_files = options.Texts(prefix + "input_files");
    CheckFiles(options, prefix, *files, use);
  }
  const bool divided = !read.val.data.empty() || !read.test.data.empty() || read.tokens();
  read.test_every = options.Integer("test_every", divided ? 0 : 5, 0, 1000000);
  read.scale = options.Number("scale", default_scale, 1e-12, 1e12);
  if (use.tokens) {
    read.block_size = options.Integer("block_size", use.block_size, 1, 1 << 24);
    read.token_bytes = options.Integer("token_bytes", 2, 2, 4);
  }
  read.sample_weights_file = options.Text("sample_weights_file", "");
  read.balance_classes = options.Flag("balance_classes", false);
  read.samples_per_epoch = options.Integer("samples_per_epoch", 0, 0, int64_t{1} << 40);
  read.sampler_seed = options.Integer("sampler_seed", 0, 0, int64_t{1} << 40);
  if (read.token_bytes == 3) options.Complain("token_bytes", "found 3; allowed: 2, 4");
  if (!read.sample_weights_file.empty() && !absl::EndsWith(read.sample_weights_file, ".npy")) {
    options.Complain("sample_weights_file",
                     absl::StrCat("found \"", read.sample_weights_file, "\"; allowed: a .npy file"));
  }
  if (read.test_every == 1)
    options.Complain("test_every", "found 1, which leaves nothing to train on; allowed: 0, or 2 and more");
  CheckTogether(options, read);
  return read;
}

absl::StatusOr<Splits> LoadLabelledData(const LabelledDataOptions& options) {
  if (options.tokens()) return LoadTokens(options);
  ASSIGN_OR_RETURN(Table table, LoadTable(options, options));
  ASSIGN_OR_RETURN(torch::Tensor weights, ReadWeightsOf(options, table.input.size(0)));
  if (options.balance_classes && options.classes == 0)
    return absl::InvalidArgumentError("task.options.balance_classes: needs targets that are classes");
  Splits splits;
  for (const auto& [name, files] : {std::pair("val", &options.val), std::pair("test", &options.test)}) {
    if (files->data.empty()) continue;
    ASSIGN_OR_RETURN(const Table held_out, LoadTable(options, *files));
    if (held_out.input.sizes().slice(1) != table.input.sizes().slice(1)) {
      return absl::InvalidArgumentError(absl::StrCat(files->data, " has samples of another shape than ", options.data,
                                                     ": ", ShapeText(held_out.input), ", ", ShapeText(table.input)));
    }
    ASSIGN_OR_RETURN(splits[name], AsDataset(held_out));
  }
  if (options.test_every != 0 && table.input.size(0) >= options.test_every) {
    const torch::Tensor place = torch::arange(table.input.size(0)).remainder(options.test_every);
    const torch::Tensor test = place.eq(options.test_every - 1);
    ASSIGN_OR_RETURN(splits["test"], AsDataset(Rows(table, test)));
    table = Rows(table, test.logical_not());
    if (weights.defined()) weights = weights.index({test.logical_not()});
  }
  ASSIGN_OR_RETURN(std::shared_ptr<Dataset> train, AsDataset(table));
  ASSIGN_OR_RETURN(splits["train"], Sampled(options, std::move(train), weights, table.target));
  return splits;
}

}  // namespace athanor
