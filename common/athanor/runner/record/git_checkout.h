// The code that a run is of: HEAD's commit in the git checkout around a folder, and what its files have besides.
#pragma once

#include <string>

namespace athanor {

struct GitCheckout {
  std::string commit;  // of HEAD, 40 hexadecimal digits; "": not in a checkout
  std::string diff;    // `git diff HEAD`, at most 16 MiB; "": nothing differs, or there is no git to ask

  // What tells one state of the code from another: "" outside of a checkout, else the first 8 digits of the commit, and
  // "-d" with 10 digits of the difference's hash where there is one.
  std::string code_id() const;
};

// The commit comes from the files of .git; the difference is asked of the git program, for at most 5 seconds. Never
// fails: what is not to be had is empty. Thread-safe.
GitCheckout ReadGitCheckout(const std::string& folder);

}  // namespace athanor
