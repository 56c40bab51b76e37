#include "worker/agent/agent_metrics.h"

#include "athanor/base/version.h"

namespace athanor::agent {

using prometheus::BuildCounter;
using prometheus::BuildGauge;

AgentMetrics::AgentMetrics()
    : registry(std::make_shared<prometheus::Registry>()),
      ranks(BuildGauge().Name("athanor_agent_ranks").Help("Ranks that run here").Register(*registry).Add({})),
      slots(BuildGauge().Name("athanor_agent_slots").Help("Slots offered").Register(*registry).Add({})),
      connected(BuildGauge()
                    .Name("athanor_agent_connected")
                    .Help("1 while registered with the coordinator")
                    .Register(*registry)
                    .Add({})),
      outbox(BuildGauge()
                 .Name("athanor_agent_outbox_messages")
                 .Help("Reports that the coordinator has not acknowledged")
                 .Register(*registry)
                 .Add({})),
      launches(BuildCounter().Name("athanor_agent_launches_total").Help("Ranks started").Register(*registry).Add({})),
      reconnects(BuildCounter()
                     .Name("athanor_agent_session_ends_total")
                     .Help("Ends of the stream to the coordinator")
                     .Register(*registry)
                     .Add({})),
      lease_expiries(BuildCounter()
                         .Name("athanor_agent_lease_expiries_total")
                         .Help("Times the agent killed its ranks because its lease was over")
                         .Register(*registry)
                         .Add({})),
      exits(BuildCounter().Name("athanor_agent_exits_total").Help("Ends of ranks by cause").Register(*registry)) {
  BuildGauge()
      .Name("athanor_build_info")
      .Help("Version of this build")
      .Register(*registry)
      .Add({{"version", Version()}, {"commit", Commit()}})
      .Set(1);
}

}  // namespace athanor::agent
