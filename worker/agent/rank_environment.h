// The environment of a rank's process: what it gets from the agent's own, from the job, and from us.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "athanor/v1/agent_service.pb.h"

namespace athanor::agent {

struct RankPlace {
  std::string socket;  // of the RankServer
  std::string host;    // at which other ranks reach this machine
  std::string spec_file, failure_file;
  std::string log_format;  // of the trainer's lines unless the job says otherwise
};

// NAME=value, complete, in order of names. `own`: what the agent passes on (PassedOn()); the job's `env` overrides it
// and the defaults, and nothing overrides contract/rank_environment.h.
std::vector<std::string> RankEnvironment(const v1::LaunchRank& launch, const RankPlace& place,
                                         std::map<std::string, std::string> own);

// The variables of this process that a rank may see: PATH, HOME, LANG …
std::map<std::string, std::string> PassedOn();

}  // namespace athanor::agent
