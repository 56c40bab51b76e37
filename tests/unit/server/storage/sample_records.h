// One entry of each kind of record, with every stored field set to something that is not its default.
#pragma once

#include "athanor/v1/job.pb.h"
#include "server/core/cluster_state.h"

namespace athanor {

v1::JobSpec SampleSpec();
core::JobEntry SampleJob();                // j/digits-1
core::GenerationEntry SampleGeneration();  // g/digits-1/00000002
core::CheckpointEntry SampleCheckpoint();  // c/digits-1/000000000120
core::WorkerEntry SampleWorker();          // w/w1
core::JobEventEntry SampleEvent();         // e/digits-1/000000000017
core::RequestEntry SampleRequest();        // r/key-1

}  // namespace athanor
