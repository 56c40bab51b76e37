// Response header in which the coordinator says something beside its answer, for people: a name that stands for several
// jobs, and which of them it took.
#pragma once

namespace athanor {

inline constexpr char kNoteHeader[] = "athanor-note";

}  // namespace athanor
