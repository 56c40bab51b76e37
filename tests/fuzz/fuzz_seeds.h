// Good inputs of each target: where mutations start.
#pragma once

#include <string>
#include <vector>

namespace athanor::fuzz {

std::vector<std::string> SeedsOf(const std::string& target);
// What once broke something.
std::vector<std::string> FormerFailuresOf(const std::string& target);

}  // namespace athanor::fuzz
