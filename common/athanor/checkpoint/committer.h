// The former place of CheckpointCommitter.
#pragma once

#include "athanor/contract/committer.h"
