// Protocol of AgentService. An agent and a coordinator work together when theirs are equal.
#pragma once

namespace athanor {

inline constexpr int kProtocolVersion = 2;  // 2: ReportEvaluation

}  // namespace athanor
