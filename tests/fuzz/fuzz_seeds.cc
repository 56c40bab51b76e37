#include "tests/fuzz/fuzz_seeds.h"

#include "server/storage/record_codec.h"
#include "tests/unit/server/storage/sample_records.h"

namespace athanor::fuzz {

std::vector<std::string> SeedsOf(const std::string& target) {
  std::vector<std::string> seeds;
  if (target == "record_codec") {
    for (const core::PutRecord& put : std::initializer_list<core::PutRecord>{{SampleJob()},
                                                                             {SampleGeneration()},
                                                                             {SampleCheckpoint()},
                                                                             {SampleWorker()},
                                                                             {SampleEvent()},
                                                                             {SampleRequest()}}) {
      const auto [key, value] = EncodeRecord(put);
      seeds.push_back(key + "\n" + value);
    }
  } else if (target == "job_spec") {
    seeds.push_back(SampleSpec().SerializeAsString());
  } else if (target == "job_spec_text") {
    seeds.push_back(
        "digits\ndigits_mlp\n{\"data\": \"/d.csv\", \"x\": [1, 2e3]}\n{\"steps\": 400, \"optim\": {\"type\": "
        "\"adamw\", "
        "\"lr\": 0.002}, \"dataloader\": {\"batch_size\": 32}, \"checkpoint\": {\"interval\": 20, \"keep_latest_k\": "
        "3}, "
        "\"scheduler\": {\"type\": \"cosine\"}}\ncpu\nkey-1\nstep-000000000120");
  }
  return seeds;
}

std::vector<std::string> FormerFailuresOf(const std::string& target) {
  if (target != "job_spec_text") return {};
  const auto job = [](const std::string& runner) {
    return "digits\ndigits_mlp\n{}\n" + runner + "\ncpu\nkey-1\nlatest";
  };
  const std::string open(120'000, '['), close(120'000, ']');
  return {job("{\"x\": " + open + close + "}"),
          job("{\"steps\": 1, \"optim\": {\"type\": \"sgd\", \"param_groups\": [{\"pattern\": \"" +
              std::string(200'000, '(') + "\"}]}}")};
}

}  // namespace athanor::fuzz
