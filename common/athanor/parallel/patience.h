// Lets collectives wait longer than usual while it lives: for ranks that may have to wait for somebody else, such as a
// coordinator that is away. A rank that dies is noticed at once all the same.
//
//   const Patience patience(members, absl::Hours(24));
//   RETURN_IF_ERROR(members.group()->Barrier(members.group()->timeout()));
#pragma once

#include "absl/time/time.h"
#include "athanor/parallel/membership.h"
#include "athanor/parallel/process_group.h"

namespace athanor {

class Patience {
 public:
  Patience(const Membership& members, absl::Duration least) : group_(members.group()) {
    if (group_ == nullptr) return;
    before_ = group_->timeout();
    if (least > before_) group_->SetTimeout(least);
  }
  ~Patience() {
    if (group_ != nullptr && group_->timeout() != before_) group_->SetTimeout(before_);
  }
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;

 private:
  ProcessGroup* const group_;
  absl::Duration before_;
};

}  // namespace athanor
