// Options shared by the descriptors (binary.h, multiclass.h, multilabel.h) and the functions (functional.h).
#pragma once

#include <cstdint>
#include <optional>

#include "athanor/metrics/functional/confusion.h"
#include "athanor/metrics/functional/curves.h"

namespace athanor::metrics {

struct MetricOptions {
  double threshold = 0.5;                      // a greater score is positive; binary and multilabel
  Average average = Average::kMacro;           // multiclass and multilabel
  int64_t k = 1;                               // multiclass: right when among the k highest scores
  double beta = 1;                             // F-beta: weight of recall against precision
  std::optional<int64_t> ignore_index = -100;  // labels that do not count; absent: all count
  // 0: exact curves, from the history of all scores. 2 or more: thresholds of a binned curve of fixed size.
  int64_t thresholds = 0;
  int64_t bins = 15;  // of the calibration error
  CalibrationNorm norm = CalibrationNorm::kL1;
  KappaWeights weights = KappaWeights::kNone;
  Normalize normalize = Normalize::kNone;  // of the confusion matrix
  MissingClass missing = MissingClass::kLeaveOut;
};

}  // namespace athanor::metrics
