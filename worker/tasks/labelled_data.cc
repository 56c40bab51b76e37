#include "worker/tasks/labelled_data.h"

#include <torch/torch.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "athanor/base/status_macros.h"
#include "athanor/data/npy_reader.h"
#include "athanor/data/tensor_dataset.h"

namespace athanor {
namespace {

struct Table {
  torch::Tensor input;
  torch::Tensor target;
};

absl::StatusOr<Table> ReadTable(const LabelledDataOptions& options) {
  if (absl::EndsWith(options.data, ".csv")) {
    ASSIGN_OR_RETURN(CsvTable csv, ReadCsv(options.data, {.integer_target = options.classes > 0}));
    return Table{csv.features, csv.target};
  }
  ASSIGN_OR_RETURN(torch::Tensor input, ReadNpy(options.data));
  ASSIGN_OR_RETURN(torch::Tensor target, ReadNpy(options.target_file));
  if (input.dim() < 1 || target.dim() < 1 || input.size(0) != target.size(0) || input.size(0) == 0) {
    return absl::DataLossError(absl::StrCat(options.data, " has shape [", absl::StrJoin(input.sizes(), ", "), "], ",
                                            options.target_file, " [", absl::StrJoin(target.sizes(), ", "),
                                            "]; the first axis of both counts the samples"));
  }
  return Table{input.to(torch::kFloat32), target.to(options.classes > 0 ? torch::kInt64 : torch::kFloat32)};
}

absl::Status CheckClasses(const LabelledDataOptions& options, const torch::Tensor& target) {
  if (target.dim() != 1) {
    return absl::DataLossError(
        absl::StrCat("targets of ", options.data, " have ", target.dim(), " axes; class numbers have one"));
  }
  const torch::Tensor wrong = ((target < 0) | (target >= options.classes)).nonzero();
  if (wrong.size(0) == 0) return absl::OkStatus();
  const int64_t sample = wrong[0][0].item<int64_t>();
  return absl::DataLossError(absl::StrCat(options.data, ": sample ", sample + 1, " has class ",
                                          target[sample].item<int64_t>(), "; allowed: 0 to ", options.classes - 1));
}

absl::Status ShapeSamples(const LabelledDataOptions& options, Table& table) {
  if (options.sample_shape.empty()) return absl::OkStatus();
  int64_t wanted = 1;
  for (int64_t size : options.sample_shape) wanted *= size;
  const int64_t held = table.input.numel() / table.input.size(0);
  if (held != wanted) {
    return absl::InvalidArgumentError(absl::StrCat(options.data, " holds ", held, " numbers a sample; the shape [",
                                                   absl::StrJoin(options.sample_shape, ", "), "] needs ", wanted));
  }
  std::vector<int64_t> shape = options.sample_shape;
  shape.insert(shape.begin(), table.input.size(0));
  table.input = table.input.reshape(shape);
  return absl::OkStatus();
}

}  // namespace

LabelledDataOptions ReadLabelledDataOptions(TaskOptions& options, double default_scale) {
  LabelledDataOptions read;
  read.data = options.RequiredText("data");
  read.target_file = options.Text("target_file", "");
  read.test_every = options.Integer("test_every", 5, 0, 1000000);
  read.scale = options.Number("scale", default_scale, 1e-12, 1e12);
  const bool csv = absl::EndsWith(read.data, ".csv");
  if (!read.data.empty() && !csv && !absl::EndsWith(read.data, ".npy")) {
    options.Complain("data", absl::StrCat("found \"", read.data, "\"; allowed: a .csv or .npy file"));
  }
  if (csv && !read.target_file.empty()) options.Complain("target_file", "a .csv holds its targets in the last column");
  if (!csv && !read.data.empty() && !absl::EndsWith(read.target_file, ".npy")) {
    options.Complain("target_file", "missing; with a .npy `data` it is a .npy file of targets");
  }
  if (read.test_every == 1)
    options.Complain("test_every", "found 1, which leaves nothing to train on; allowed: 0, or 2 and more");
  return read;
}

absl::StatusOr<std::map<std::string, std::shared_ptr<Dataset>>> LoadLabelledData(const LabelledDataOptions& options) {
  ASSIGN_OR_RETURN(Table table, ReadTable(options));
  if (options.classes > 0) RETURN_IF_ERROR(CheckClasses(options, table.target));
  RETURN_IF_ERROR(ShapeSamples(options, table));
  if (options.scale != 1) table.input = table.input / options.scale;

  std::map<std::string, std::shared_ptr<Dataset>> splits;
  if (options.test_every == 0 || table.input.size(0) < options.test_every) {
    ASSIGN_OR_RETURN(splits["train"], TensorDataset::Make(table.input, table.target));
    return splits;
  }
  const torch::Tensor place = torch::arange(table.input.size(0)).remainder(options.test_every);
  const torch::Tensor test = place.eq(options.test_every - 1);
  for (const auto& [name, chosen] : {std::pair("train", test.logical_not()), std::pair("test", test)}) {
    const torch::Tensor rows = chosen.nonzero().flatten();
    ASSIGN_OR_RETURN(splits[name],
                     TensorDataset::Make(table.input.index_select(0, rows), table.target.index_select(0, rows)));
  }
  return splits;
}

}  // namespace athanor
