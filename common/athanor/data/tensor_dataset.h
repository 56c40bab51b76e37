// A dataset that lies in memory as tensors; and tables of numbers read from CSV files into one.
//
//   ASSIGN_OR_RETURN(CsvTable table, ReadCsv("digits.csv", {}));                       // last column = class
//   ASSIGN_OR_RETURN(auto dataset, TensorDataset::Make(table.features / 16.0, table.target));
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "athanor/data/dataset.h"

namespace athanor {

// Sample i = row i of all tensors (CPU, equal first dimension; `target` may be undefined). Get() is one gather per
// tensor. The rows are copied: a caller may write into the batch.
class TensorDataset : public Dataset {
 public:
  // `more`: what becomes Batch::more. INVALID_ARGUMENT: no rows, or differing numbers of rows, or not on the CPU.
  static absl::StatusOr<std::shared_ptr<TensorDataset>> Make(torch::Tensor input, torch::Tensor target,
                                                             std::map<std::string, torch::Tensor> more = {});
  int64_t size() const override { return input_.size(0); }
  absl::StatusOr<Batch> Get(const std::vector<int64_t>& indices) const override;  // OUT_OF_RANGE names the index
  bool may_leave_out() const override { return false; }
  const torch::Tensor& input() const { return input_; }
  const torch::Tensor& target() const { return target_; }

 private:
  TensorDataset(torch::Tensor input, torch::Tensor target, std::map<std::string, torch::Tensor> more)
      : input_(std::move(input)), target_(std::move(target)), more_(std::move(more)) {}
  torch::Tensor input_;
  torch::Tensor target_;
  std::map<std::string, torch::Tensor> more_;
};

struct CsvOptions {
  char delimiter = ',';
  bool header = false;         // the first line holds names
  int target_column = -1;      // negative: from the end; the others are features
  bool integer_target = true;  // labels are int64 (a fraction is DATA_LOSS), else float32
};

struct CsvTable {
  torch::Tensor features;            // N x (columns - 1), float32
  torch::Tensor target;              // N, int64 or float32
  std::vector<std::string> columns;  // names of all columns when there is a header
};

// What spreadsheets and statistics programs write: UTF-8 with or without a byte order mark, lines that end with LF,
// CRLF or CR, cells in quotes, blanks around numbers, "+1.5", ".5", "1E-3". Empty lines are skipped. Missing values,
// infinities and separators of thousands are no numbers. NOT_FOUND names the file; DATA_LOSS names file, line and
// column and what stands there.
absl::StatusOr<CsvTable> ReadCsv(const std::string& path, const CsvOptions& options);

}  // namespace athanor
