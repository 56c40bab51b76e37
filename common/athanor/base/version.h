// The version of this build.
#pragma once

namespace athanor {

const char* Version();  // "0.1.0"
const char* Commit();   // short git hash, "unknown" outside a checkout

}  // namespace athanor
