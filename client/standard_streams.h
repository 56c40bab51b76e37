// The process's own descriptors 0, 1 and 2: what cannot be written is an error of the command, whoever wrote it.
#pragma once

#include <string>

namespace athanor {

// Call once, first thing in main(): a descriptor that is closed is taken, so that no socket gets its number; SIGPIPE
// becomes an error of write(); std::cout goes to descriptor 1 through a buffer that keeps the first error.
void SetUpStandardStreams();

// Whether std::cout still takes text. Following commands stop when it does not.
bool OutputIsGood();

// Writes out what is buffered. Returns `exit_code`, or what it must become because the output was lost: kReaderGone
// without a word when the reader of a pipe went away, else kFailure with a message on stderr.
int FinishOutput(int exit_code);

}  // namespace athanor
