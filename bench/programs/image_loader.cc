// Images per second of ImageFolder behind a StatefulDataLoader with the usual transforms of training; the peer is
// bench/peers/image_loader.py. Epochs are timed one by one.
//
//   bench_image_loader '{"folder": "photos", "workers": 2, "batch_size": 32, "epochs": 3}'
#include <torch/torch.h>

#include "athanor/base/status_macros.h"
#include "athanor/data/images/image_folder.h"
#include "athanor/data/stateful_data_loader.h"
#include "athanor/torch/host_memory.h"
#include "bench/programs/program.h"

namespace athanor::bench {
namespace {

absl::StatusOr<nlohmann::json> Run(const nlohmann::json& settings) {
  torch::set_num_threads(1);
  KeepHostMemory();  // as in a training process
  ImageTransforms transforms;
  transforms.Add(RandomResizedCrop(224))
      .Add(RandomHorizontalFlip())
      .Add(ToFloat())
      .Add(Normalize({0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}));
  ASSIGN_OR_RETURN(auto images, ImageFolder::Open(settings["folder"], transforms, {.seed = 7}));
  ASSIGN_OR_RETURN(auto loader, StatefulDataLoader::Make(images, {.batch_size = settings["batch_size"],
                                                                  .shuffle = true,
                                                                  .num_workers = settings["workers"]}));
  std::vector<double> rates;
  for (int64_t epoch = 0; epoch < settings["epochs"].get<int64_t>(); ++epoch) {
    const Clock::time_point began = Clock::now();
    int64_t seen = 0;
    loader->StartEpoch(epoch);
    while (true) {
      const absl::StatusOr<Batch> batch = loader->Next();
      if (absl::IsOutOfRange(batch.status())) break;
      RETURN_IF_ERROR(batch.status());
      seen += batch->size;
    }
    rates.push_back(static_cast<double>(seen) / SecondsSince(began));
  }
  return nlohmann::json{{"images_per_second", rates}};
}

}  // namespace
}  // namespace athanor::bench

int main(int argc, char** argv) {
  return athanor::bench::Main(argc, argv, {{"folder", "photos"}, {"workers", 2}, {"batch_size", 32}, {"epochs", 3}},
                              athanor::bench::Run);
}
