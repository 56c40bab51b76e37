// What a trainer leaves when a signal ends it (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS): the thread's
// stack on standard error, which is the rank's log, and its innermost places in the failure file, from where they reach
// `athanor job explain`. The process then ends by the same signal.
//
// The report takes no lock and no memory: the crash may have happened in malloc. Names are those of the symbol tables;
// a place without a name is shown as its library and offset, which addr2line reads.
#pragma once

#include <string>

namespace athanor {

// `failure_file` may be empty. Call it once, early: it loads what the report needs. Threads that start later report on
// a stack of their own where SetUpCrashStack() was called, else on the one that they crashed on.
void InstallCrashReport(const std::string& failure_file);

// For the calling thread: a stack for the report, so that an overflow of its own can be reported too.
void SetUpCrashStack();

}  // namespace athanor
