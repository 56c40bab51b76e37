// Every field of every record comes back; what is damaged or unknown is refused by name and never crashes.
#include "server/storage/record_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "athanor/storage/v1/records.pb.h"
#include "server/convert/proto_convert.h"
#include "tests/unit/server/storage/sample_records.h"

namespace athanor {
namespace {

using testing::HasSubstr;

core::ClusterState Decoded(const core::PutRecord& put) {
  const auto [key, value] = EncodeRecord(put);
  core::ClusterState state;
  const absl::Status status = DecodeInto(key, value, state);
  EXPECT_TRUE(status.ok()) << status;
  return state;
}

// Encoded again, byte for byte the same: nothing was lost. Maps of one entry, so that their order is no question.
template <typename Entry>
void ExpectSameAgain(const Entry& before, const Entry& after) {
  EXPECT_EQ(EncodeRecord({before}), EncodeRecord({after}));
}

// Every field of the message is set, so that the comparison above compares every field.
void ExpectAllSet(const google::protobuf::Message& message) {
  const google::protobuf::Descriptor* type = message.GetDescriptor();
  const google::protobuf::Reflection* reflection = message.GetReflection();
  for (int i = 0; i < type->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = type->field(i);
    const bool set =
        field->is_repeated() ? reflection->FieldSize(message, field) > 0 : reflection->HasField(message, field);
    EXPECT_TRUE(set) << "the sample leaves " << field->full_name() << " empty";
  }
}

template <typename Record>
Record Parsed(const core::PutRecord& put) {
  Record record;
  EXPECT_TRUE(record.ParseFromString(EncodeRecord(put).second));
  return record;
}

TEST(RecordCodec, Jobs) {
  const core::JobEntry job = SampleJob();
  ExpectAllSet(Parsed<storage::v1::JobRecord>({job}));
  ExpectAllSet(Parsed<storage::v1::JobRecord>({job}).goodput());
  const core::JobEntry back = Decoded({job}).jobs.at(job.id);
  ExpectSameAgain(job, back);
  EXPECT_EQ(back.spec.ranks, 3);
  EXPECT_EQ(back.spec.restart.budgets.at(core::CauseKind::kSignal), 4);
  EXPECT_EQ(back.last_cause->log_tail, "größer\n");
  EXPECT_EQ(back.retry_at, job.retry_at);
  EXPECT_EQ(back.aliases, job.aliases);
}

TEST(RecordCodec, TimesThatNeverCame) {
  core::JobEntry job = SampleJob();
  job.ended_at = absl::InfinitePast();
  job.retry_at = absl::InfiniteFuture();
  const core::JobEntry back = Decoded({job}).jobs.at(job.id);
  EXPECT_EQ(back.ended_at, absl::InfinitePast());
  EXPECT_EQ(back.retry_at, absl::InfiniteFuture());
}

TEST(RecordCodec, Generations) {
  const core::GenerationEntry generation = SampleGeneration();
  const auto record = Parsed<storage::v1::GenerationRecord>({generation});
  ExpectAllSet(record);
  ExpectAllSet(record.ranks(1));
  ExpectAllSet(record.cause());
  const core::GenerationEntry back = Decoded({generation}).generations.at(generation.job).at(2);
  ExpectSameAgain(generation, back);
  EXPECT_EQ(back.ranks[1].placement, generation.ranks[1].placement);
}

TEST(RecordCodec, Checkpoints) {
  const core::CheckpointEntry checkpoint = SampleCheckpoint();
  ExpectAllSet(Parsed<storage::v1::CheckpointRecord>({checkpoint}));
  const core::CheckpointEntry back = Decoded({checkpoint}).checkpoints.at(checkpoint.job).at(120);
  ExpectSameAgain(checkpoint, back);
  EXPECT_EQ(back.shards, checkpoint.shards);
}

TEST(RecordCodec, Workers) {
  const core::WorkerEntry worker = SampleWorker();
  ExpectAllSet(Parsed<storage::v1::WorkerRecord>({worker}));
  ExpectSameAgain(worker, Decoded({worker}).workers.at(worker.id));
}

TEST(RecordCodec, Requests) {
  const core::RequestEntry request = SampleRequest();
  ExpectAllSet(Parsed<storage::v1::RequestRecord>({request}));
  ExpectSameAgain(request, Decoded({request}).requests.at(request.key));
}

TEST(RecordCodec, Events) {
  const core::JobEventEntry event = SampleEvent();
  ExpectAllSet(Parsed<storage::v1::EventRecord>({event}));
  const auto [key, value] = EncodeRecord({event});
  ExpectSameAgain(event, *DecodeEvent(value));
  core::ClusterState state;
  EXPECT_TRUE(DecodeInto(key, value, state).ok()) << "events are read by range only";
}

TEST(RecordCodec, KeysSortByNumber) {
  const core::JobId job("a");
  EXPECT_LT(EventKey(job, 9), EventKey(job, 10));
  using Kind = core::DeleteRecord::Kind;
  EXPECT_LT(EncodeKey({Kind::kGeneration, job, 99, {}}), EncodeKey({Kind::kGeneration, job, 100, {}}));
  EXPECT_LT(EncodeKey({Kind::kCheckpoint, job, 999'999, {}}), EncodeKey({Kind::kCheckpoint, job, 1'000'000, {}}));
}

TEST(RecordCodec, ADeletionHitsTheKeyThatWasPut) {
  using Kind = core::DeleteRecord::Kind;
  const core::JobId job = SampleJob().id;
  EXPECT_EQ(EncodeKey({Kind::kJob, job, 0, {}}), EncodeRecord({SampleJob()}).first);
  EXPECT_EQ(EncodeKey({Kind::kGeneration, job, 2, {}}), EncodeRecord({SampleGeneration()}).first);
  EXPECT_EQ(EncodeKey({Kind::kCheckpoint, job, 120, {}}), EncodeRecord({SampleCheckpoint()}).first);
  EXPECT_EQ(EncodeKey({Kind::kWorker, {}, 0, "w1"}), EncodeRecord({SampleWorker()}).first);
  EXPECT_EQ(EncodeKey({Kind::kEvent, job, 17, {}}), EncodeRecord({SampleEvent()}).first);
  EXPECT_EQ(EncodeKey({Kind::kRequest, {}, 0, SampleRequest().key}), EncodeRecord({SampleRequest()}).first);
}

void ExpectRefused(const std::string& key, const std::string& value, const std::string& what) {
  core::ClusterState state;
  const absl::Status status = DecodeInto(key, value, state);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  EXPECT_TRUE(state.jobs.empty() && state.generations.empty() && state.checkpoints.empty() && state.workers.empty());
}

TEST(RecordCodec, WhatThisVersionDoesNotKnowIsRefused) {
  storage::v1::JobRecord job = Parsed<storage::v1::JobRecord>({SampleJob()});
  job.set_state(77);
  ExpectRefused("j/digits-1", job.SerializeAsString(), "'j/digits-1' is damaged: state 77 is unknown to this version");
  job = Parsed<storage::v1::JobRecord>({SampleJob()});
  (*job.mutable_restarts_by_cause())[99] = 1;
  ExpectRefused("j/digits-1", job.SerializeAsString(), "cause 99 is unknown");
  auto generation = Parsed<storage::v1::GenerationRecord>({SampleGeneration()});
  generation.mutable_ranks(0)->set_state(9);
  ExpectRefused("g/digits-1/00000002", generation.SerializeAsString(), "of a rank: state 9 is unknown");
  auto checkpoint = Parsed<storage::v1::CheckpointRecord>({SampleCheckpoint()});
  checkpoint.set_state(0);
  ExpectRefused("c/digits-1/000000000120", checkpoint.SerializeAsString(), "state 0 is unknown");
  auto worker = Parsed<storage::v1::WorkerRecord>({SampleWorker()});
  worker.set_state(7);
  ExpectRefused("w/w1", worker.SerializeAsString(), "state 7 is unknown");
  ExpectRefused("x/new", "", "'x/new' is of no kind that this version knows");
  ExpectRefused("", "", "is of no kind");
}

// A field that a newer version added within the same format is carried over the read.
TEST(RecordCodec, UnknownFieldsDoNotMatter) {
  auto [key, value] = EncodeRecord({SampleWorker()});
  value += std::string("\x92\x3e\x02hi", 5);  // field 994, length-delimited
  core::ClusterState state;
  EXPECT_TRUE(DecodeInto(key, value, state).ok());
}

TEST(RecordCodec, ARecordUnderAnothersKeyIsRefused) {
  ExpectRefused("j/other", EncodeRecord({SampleJob()}).second, "'j/other' says that it is 'j/digits-1'");
  ExpectRefused("w/w2", EncodeRecord({SampleWorker()}).second, "'w/w2' says that it is 'w/w1'");
}

TEST(RecordCodec, DamagedBytesAreNamed) {
  const auto [key, value] = EncodeRecord({SampleJob()});
  ExpectRefused(key, value.substr(0, value.size() / 2), "the record 'j/digits-1' cannot be read");
  ExpectRefused("j/\n", "\xff", "'j/\\n' cannot be read (1 bytes)");
  EXPECT_EQ(DecodeEvent("\xff\xff").status().code(), absl::StatusCode::kDataLoss);
}

TEST(RecordCodec, OrphansAreNamed) {
  core::ClusterState state;
  state.generations[SampleJob().id][2] = SampleGeneration();
  EXPECT_THAT(Orphans(state), testing::ElementsAre("g/digits-1/00000002"));
  state.jobs[SampleJob().id] = SampleJob();
  EXPECT_TRUE(Orphans(state).empty());
  core::CheckpointEntry checkpoint = SampleCheckpoint();
  checkpoint.job = core::JobId("gone");
  state.checkpoints[checkpoint.job][120] = checkpoint;
  EXPECT_THAT(Orphans(state), testing::ElementsAre("c/gone/000000000120"));
}

TEST(RecordCodec, AKeyNamesItsJob) {
  for (const core::PutRecord& put : {core::PutRecord{SampleJob()}, core::PutRecord{SampleGeneration()},
                                     core::PutRecord{SampleCheckpoint()}, core::PutRecord{SampleEvent()}}) {
    EXPECT_EQ(JobOfKey(EncodeRecord(put).first), SampleJob().id);
  }
  EXPECT_EQ(JobOfKey("w/w1"), core::JobId());
  EXPECT_EQ(JobOfKey("r/key-1"), core::JobId());
}

// Whatever the reader refuses, the writer refuses first; and nothing else.
TEST(RecordCodec, WhatCouldNotBeReadBackIsNotWritten) {
  std::vector<core::PutRecord> bad;
  core::CheckpointEntry checkpoint = SampleCheckpoint();
  checkpoint.step = -1;
  bad.push_back({checkpoint});
  checkpoint = SampleCheckpoint();
  checkpoint.shards[7] = {7, "rank-7", 1, 1};
  bad.push_back({checkpoint});
  checkpoint = SampleCheckpoint();
  checkpoint.note = "caf\xe9";
  bad.push_back({checkpoint});
  core::JobEntry job = SampleJob();
  job.generation = -1;
  bad.push_back({job});
  job = SampleJob();
  job.next_event = 0;
  bad.push_back({job});
  core::GenerationEntry generation = SampleGeneration();
  generation.ranks.clear();
  bad.push_back({generation});
  core::WorkerEntry worker = SampleWorker();
  worker.slots = -1;
  bad.push_back({worker});
  core::JobEventEntry event = SampleEvent();
  event.message = "\xff";
  bad.push_back({event});
  for (const core::PutRecord& put : bad) {
    const auto [key, value] = EncodeRecord(put);
    core::ClusterState state;
    const bool is_event = std::holds_alternative<core::JobEventEntry>(put.record);
    EXPECT_FALSE(is_event ? DecodeEvent(value).ok() : DecodeInto(key, value, state).ok()) << key;
    const absl::Status refused = EncodeChecked(put, {}).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInternal) << key;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("'" + key + "'"));
  }
  for (const core::PutRecord& put :
       {core::PutRecord{SampleJob()}, core::PutRecord{SampleGeneration()}, core::PutRecord{SampleCheckpoint()},
        core::PutRecord{SampleWorker()}, core::PutRecord{SampleEvent()}, core::PutRecord{SampleRequest()}}) {
    ASSERT_TRUE(EncodeChecked(put, {}).ok());
    EXPECT_EQ(*EncodeChecked(put, {}), EncodeRecord(put));
  }
}

TEST(RecordCodec, ADamagedEventIsShownAsOne) {
  auto [key, value] = EncodeRecord({SampleEvent()});
  EXPECT_EQ(ReadEvent(key, value, {}).message, SampleEvent().message);
  const core::JobEventEntry damaged = ReadEvent(key, "\xff\xff", {});
  EXPECT_EQ(damaged.job, SampleEvent().job);
  EXPECT_EQ(damaged.sequence, SampleEvent().sequence);
  EXPECT_EQ(damaged.type, "UnreadableEvent");
  EXPECT_EQ(ReadEvent("e/digits-1/000000000018", value, {}).sequence, 18) << "the key decides, so that readers go on";
}

TEST(ServiceTime, PassesAsTheMachineRunsWhateverTheWallSays) {
  const absl::Time wall = absl::FromUnixSeconds(1'700'000'000);
  const ClockReading then{wall, absl::Seconds(100), "boot-1"};
  for (const absl::Duration set : {absl::Hours(-24 * 365), absl::ZeroDuration(), absl::Hours(24)}) {
    EXPECT_EQ(Elapsed(then, {wall + set, absl::Seconds(103), "boot-1"}), absl::Seconds(3));
  }
  EXPECT_EQ(Elapsed(then, {wall + absl::Minutes(5), absl::Seconds(7), "boot-2"}), absl::Minutes(5));
  EXPECT_EQ(Elapsed(then, {wall - absl::Hours(24), absl::Seconds(7), "boot-2"}), absl::ZeroDuration());
  EXPECT_EQ(Elapsed(then, {wall + absl::Hours(24 * 365), absl::Seconds(7), "boot-2"}), kLongestGap);
}

TEST(ServiceTime, TheFrameGoesThereAndBack) {
  const TimeFrame frame{absl::Hours(24)};
  const absl::Time shown = absl::FromUnixSeconds(1'700'000'000);
  EXPECT_EQ(frame.Shown(frame.Stored(shown)), shown);
  EXPECT_EQ(frame.Stored(shown), absl::ToUnixNanos(shown - absl::Hours(24)));
  for (const absl::Time never : {absl::InfinitePast(), absl::InfiniteFuture()})
    EXPECT_EQ(frame.Shown(frame.Stored(never)), never);
}

}  // namespace
}  // namespace athanor
