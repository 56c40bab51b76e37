#include <athanor/data/tensor_dataset.h>

#include <cstdio>

int main() {
  const auto dataset = athanor::TensorDataset::Make(torch::rand({8, 2}), torch::zeros({8}, torch::kInt64));
  if (!dataset.ok()) return 1;
  std::printf("%ld samples\n", static_cast<long>((*dataset)->size()));
  return 0;
}
