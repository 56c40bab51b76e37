#include "server/views/job_views.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "athanor/base/status_macros.h"
#include "athanor/base/utf8_text.h"
#include "common/service/channel.h"
#include "server/convert/proto_convert.h"

namespace athanor {
namespace {

bool Matches(const core::JobEntry& job, const v1::ListJobsRequest& request) {
  if (!request.name().empty() && job.spec.name != request.name()) return false;
  if (request.states_size() > 0 && std::find(request.states().begin(), request.states().end(),
                                             static_cast<int>(job.state)) == request.states().end()) {
    return false;
  }
  for (const auto& [key, value] : request.labels()) {
    auto it = job.spec.labels.find(key);
    if (it == job.spec.labels.end() || it->second != value) return false;
  }
  return true;
}

bool IsOneOf(const std::string& type, const google::protobuf::RepeatedPtrField<std::string>& types) {
  return types.empty() || std::any_of(types.begin(), types.end(),
                                      [&type](const std::string& one) { return absl::EqualsIgnoreCase(type, one); });
}

}  // namespace

absl::StatusOr<v1::ListJobsResponse> ShowJobs(const core::CoordinatorCore& core, const JobDirOf& job_dir,
                                              const v1::ListJobsRequest& request) {
  uint64_t before = std::numeric_limits<uint64_t>::max();
  if (!request.page_token().empty() && !absl::SimpleAtoi(request.page_token(), &before)) {
    return absl::InvalidArgumentError(absl::StrCat("page_token: '", absl::CHexEscape(CutUtf8(request.page_token(), 64)),
                                                   "'; give back next_page_token as it was"));
  }
  const size_t size = request.page_size() <= 0 ? 100 : std::min(request.page_size(), 1000);
  std::vector<const core::JobEntry*> found;
  for (const auto& [id, job] : core.state().jobs) {
    if (job.submit_order < before && Matches(job, request)) found.push_back(&job);
  }
  const auto newer = [](const core::JobEntry* a, const core::JobEntry* b) { return a->submit_order > b->submit_order; };
  const size_t shown = std::min(size, found.size());
  std::partial_sort(found.begin(), found.begin() + static_cast<ptrdiff_t>(shown), found.end(), newer);
  v1::ListJobsResponse response;
  size_t filled = 0;
  for (int64_t bytes = 0; filled < shown && bytes < kMaxPageBytes; ++filled) {
    const core::JobEntry& job = *found[filled];
    *response.add_jobs() = ToProto(core, job, job_dir(job.id), /*detailed=*/false);
    bytes += static_cast<int64_t>(response.jobs().rbegin()->ByteSizeLong());
  }
  if (found.size() > filled && filled > 0) response.set_next_page_token(absl::StrCat(found[filled - 1]->submit_order));
  return response;
}

absl::StatusOr<v1::ListEventsResponse> ShowEvents(MetadataStore& store, const core::JobId& job,
                                                  const v1::ListEventsRequest& request) {
  v1::ListEventsResponse response;
  const int32_t limit = request.limit() <= 0 ? 200 : std::min(request.limit(), 1000);
  int64_t after = request.after(), bytes = 0;
  bool more = true;
  while (more && response.events_size() < limit && bytes < kMaxPageBytes) {
    ASSIGN_OR_RETURN(const std::vector<core::JobEventEntry> events, store.ReadEvents(job, after, limit));
    more = static_cast<int32_t>(events.size()) == limit;
    for (const core::JobEventEntry& event : events) {
      if (response.events_size() == limit || bytes >= kMaxPageBytes) {
        more = true;
        break;
      }
      after = event.sequence;
      if (!IsOneOf(event.type, request.types())) continue;
      *response.add_events() = ToProto(event);
      bytes += static_cast<int64_t>(response.events().rbegin()->ByteSizeLong());
    }
  }
  if (more) response.set_next_after(after);
  return response;
}

absl::StatusOr<v1::ExplainJobResponse> ExplainJob(const core::CoordinatorCore& core, MetadataStore& store,
                                                  const core::JobId& id, absl::Time now) {
  constexpr int32_t kRecent = 50;
  const core::JobEntry& job = core.state().jobs.at(id);
  v1::ExplainJobResponse response;
  response.set_job(id.str());
  response.set_state(static_cast<v1::JobState>(job.state));
  for (const std::string& line : core.Explain(id, now)) response.add_chain(line);
  if (job.last_cause.has_value()) *response.mutable_first_failure() = ToProto(*job.last_cause);
  ASSIGN_OR_RETURN(const std::vector<core::JobEventEntry> events,
                   store.ReadEvents(id, std::max<int64_t>(0, job.next_event - 1 - kRecent), kRecent));
  for (const core::JobEventEntry& event : events) *response.add_decisions() = ToProto(event);
  return response;
}

}  // namespace athanor
