// Paths as people write them.
#pragma once

#include <string>

namespace athanor {

// "~" and "~/x" with $HOME (else the user's entry in the password file), "~name/x" with that user's home; anything else
// as it is. Shells do this for bare words only: not in files, not behind "--flag=".
std::string ExpandHome(const std::string& path);

}  // namespace athanor
