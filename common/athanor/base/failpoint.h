// Named places at which a test makes the process fail: ATHANOR_FAILPOINT("checkpoint.before_shard_rename");
//
//   ATHANOR_FAILPOINT=<name>=<action>[@N][,<name>=<action>…]   actions: kill (SIGKILL of itself), error
//                                                              @N: at the Nth hit only
//   ATHANOR_FAILPOINT_RANK, ATHANOR_FAILPOINT_GENERATION       only where $RANK / $ATHANOR_GENERATION equal them
//
// Names: checkpoint.{after_stage, before_shard_write, before_shard_rename, after_shard_rename, before_manifest_rename,
// after_manifest_rename}, trainer.{before_join, after_join, step}. Without the variable each costs one predictable
// branch. Thread-safe.
#pragma once

#include "absl/status/status.h"

namespace athanor {

namespace internal {
bool FailpointsArmed();
}  // namespace internal

// Carries out `kill`; INTERNAL for `error`; OK when nothing is armed here.
absl::Status HitFailpoint(const char* name);

}  // namespace athanor

#define ATHANOR_FAILPOINT(name) \
  (::athanor::internal::FailpointsArmed() ? ::athanor::HitFailpoint(name).IgnoreError() : (void)0)
