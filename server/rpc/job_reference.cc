#include "server/rpc/job_reference.h"

#include "athanor/base/status_macros.h"
#include "common/service/note_header.h"
#include "server/rpc/request_validation.h"

namespace athanor {

void NoteTaken(const core::CoordinatorCore& core, const std::string& reference, const core::JobId& taken,
               grpc::CallbackServerContext* context) {
  std::string note = core::AmbiguityNote(core.state(), reference, taken);
  for (char& c : note) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '.';  // a header is ASCII
  }
  if (!note.empty()) context->AddInitialMetadata(kNoteHeader, note);
}

absl::StatusOr<core::JobId> ResolveWithNote(const core::CoordinatorCore& core, const std::string& reference,
                                            grpc::CallbackServerContext* context) {
  RETURN_IF_ERROR(CheckReference("job", reference));
  ASSIGN_OR_RETURN(const core::JobId id, core::ResolveJob(core.state(), reference));
  NoteTaken(core, reference, id, context);
  return id;
}

}  // namespace athanor
