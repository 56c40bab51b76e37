#include "athanor/base/version.h"

#ifndef ATHANOR_COMMIT
#define ATHANOR_COMMIT "unknown"
#endif

namespace athanor {

const char* Version() {
  return "0.1.0";
}
const char* Commit() {
  return ATHANOR_COMMIT;
}

}  // namespace athanor
