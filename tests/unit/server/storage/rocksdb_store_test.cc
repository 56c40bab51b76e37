// The store on disk: what was committed is there after each kind of reopening, and damage is told, never swallowed.
#include "server/storage/rocksdb_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "athanor/base/version.h"
#include "athanor/storage/v1/records.pb.h"
#include "server/storage/commit_counter.h"
#include "server/storage/record_codec.h"
#include "tests/unit/server/storage/sample_records.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::string Content(const fs::path& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

class RocksDbStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / absl::StrCat("store-", getpid());
    fs::remove_all(root_);
    fs::create_directories(root_);
    directory_ = (root_ / "data").string();
  }
  void TearDown() override { fs::remove_all(root_); }

  std::unique_ptr<MetadataStore> Open() {
    absl::StatusOr<std::unique_ptr<MetadataStore>> store = OpenRocksDbStore(directory_);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? std::move(*store) : nullptr;
  }
  std::string OpenError(absl::StatusCode code) {
    const absl::Status status = OpenRocksDbStore(directory_).status();
    EXPECT_EQ(status.code(), code) << status;
    return std::string(status.message());
  }
  static void Put(MetadataStore& store, const std::vector<core::PutRecord>& records) {
    WriteBatch batch;
    for (const core::PutRecord& record : records) {
      auto [key, value] = EncodeRecord(record);
      batch.operations.push_back({std::move(key), std::move(value)});
    }
    const absl::Status status = store.Commit(batch);
    ASSERT_TRUE(status.ok()) << status;
  }
  static core::RequestEntry Request(int number) {
    core::RequestEntry request = SampleRequest();
    request.key = absl::StrCat("key-", number);
    return request;
  }
  // A copy as a kill -9 leaves it: without a clean close.
  std::string CrashImage() {
    const std::string image = (root_ / absl::StrCat("image-", ++images_)).string();
    fs::copy(directory_, image, fs::copy_options::recursive);
    chmod(image.c_str(), 0700);
    return image;
  }
  static fs::path NewestLog(const std::string& directory) {
    fs::path newest;
    for (const auto& entry : fs::directory_iterator(directory)) {
      if (entry.path().extension() == ".log" && entry.file_size() > 0) newest = std::max(newest, entry.path());
    }
    return newest;
  }
  // RocksDB's log: blocks of 32 KiB; records of checksum (4 bytes), length (2), type (1: whole, 2 to 4: its parts).
  static std::vector<size_t> RecordEnds(const std::string& log) {
    constexpr size_t kBlock = 32768, kHeader = 7;
    std::vector<size_t> ends;
    for (size_t at = 0; at + kHeader <= log.size();) {
      if (kBlock - at % kBlock < kHeader) {
        at += kBlock - at % kBlock;
        continue;
      }
      const size_t length = static_cast<uint8_t>(log[at + 4]) + 256u * static_cast<uint8_t>(log[at + 5]);
      const int type = log[at + 6];
      at += kHeader + length;
      if (type == 1 || type == 4) ends.push_back(at);
    }
    return ends;
  }

  fs::path root_;
  std::string directory_;
  int images_ = 0;
};

TEST_F(RocksDbStoreTest, ComesBackAsItWasCommitted) {
  std::string cluster;
  {
    auto store = Open();
    cluster = store->cluster();
    EXPECT_EQ(store->epoch(), 1u);
    Put(*store, {{SampleJob()},
                 {SampleGeneration()},
                 {SampleCheckpoint()},
                 {SampleWorker()},
                 {SampleEvent()},
                 {SampleRequest()}});
    WriteBatch deletion;
    deletion.operations.push_back({EncodeRecord({SampleRequest()}).first, std::nullopt});
    deletion.operations.push_back({EncodeRecord({Request(2)}).first, EncodeRecord({Request(2)}).second});
    ASSERT_TRUE(store->Commit(deletion).ok());
  }
  auto store = Open();
  EXPECT_EQ(store->epoch(), 2u);
  EXPECT_EQ(store->cluster(), cluster);
  const core::ClusterState state = *store->Load();
  EXPECT_EQ(EncodeRecord({state.jobs.at(SampleJob().id)}, store->frame()), EncodeRecord({SampleJob()}));
  EXPECT_EQ(state.generations.at(SampleJob().id).size(), 1u);
  EXPECT_EQ(state.checkpoints.at(SampleJob().id).size(), 1u);
  EXPECT_EQ(state.workers.size(), 1u);
  EXPECT_EQ(state.requests.size(), 1u);
  EXPECT_TRUE(state.requests.contains("key-2"));
  EXPECT_EQ((fs::status(directory_).permissions() & fs::perms::all), fs::perms::owner_all);
}

// "a" is no part of "a-1": events of one job never show up in another's.
TEST_F(RocksDbStoreTest, EventsOfOneJobOnlyInOrder) {
  auto store = Open();
  std::vector<core::PutRecord> records;
  for (const char* job : {"a", "a-1", "a.", "b"}) {
    for (int64_t sequence = 1; sequence <= 12; ++sequence) {
      core::JobEventEntry event = SampleEvent();
      event.job = core::JobId(job);
      event.sequence = sequence;
      records.push_back({event});
    }
  }
  Put(*store, records);
  for (MetadataStore* one : {store.get()}) {
    const auto events = *one->ReadEvents(core::JobId("a"), 8, 100);
    ASSERT_EQ(events.size(), 4u);
    EXPECT_EQ(events[0].sequence, 9);
    EXPECT_EQ(events[3].sequence, 12);
    EXPECT_EQ(events[0].job, core::JobId("a"));
    EXPECT_EQ(one->ReadEvents(core::JobId("a-1"), 0, 5)->size(), 5u);
    EXPECT_TRUE(one->ReadEvents(core::JobId("a-"), 0, 5)->empty());
  }
}

TEST_F(RocksDbStoreTest, TheMemoryStoreBehavesAlike) {
  auto store = MakeMemoryStore();
  Put(*store, {{SampleJob()}, {SampleEvent()}});
  EXPECT_EQ(store->Load()->jobs.size(), 1u);
  EXPECT_EQ(store->ReadEvents(SampleJob().id, 0, 10)->size(), 1u);
  EXPECT_TRUE(store->ReadEvents(SampleJob().id, 17, 10)->empty());
}

TEST_F(RocksDbStoreTest, AKilledProcessLosesNothing) {
  auto store = Open();
  for (int i = 0; i < 50; ++i) Put(*store, {{Request(i)}});
  const std::string image = CrashImage();
  const absl::StatusOr<std::unique_ptr<MetadataStore>> again = OpenRocksDbStore(image);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->Load()->requests.size(), 50u);
}

TEST_F(RocksDbStoreTest, AnUnacknowledgedTornTailIsDropped) {
  auto store = Open();
  for (int i = 0; i < 50; ++i) Put(*store, {{Request(i)}});
  directory_ = CrashImage();
  const fs::path log = NewestLog(directory_);
  // What a power cut leaves of a write that was never acknowledged.
  std::ofstream(log, std::ios::binary | std::ios::app) << Content(log).substr(0, 20);
  EXPECT_EQ(Open()->Load()->requests.size(), 50u);
}

// RocksDB opens such a log without a word: its end looks clean.
TEST_F(RocksDbStoreTest, ALogCutOnARecordBorderIsNoticed) {
  auto store = Open();
  for (int i = 0; i < 300; ++i) Put(*store, {{Request(i)}});
  const std::string content = Content(NewestLog(directory_));
  const std::vector<size_t> ends = RecordEnds(content);
  ASSERT_GE(ends.size(), 300u);
  for (const size_t lost : {1, 2, 100}) {
    directory_ = CrashImage();
    const fs::path log = NewestLog(directory_);
    fs::resize_file(log, ends[ends.size() - 1 - lost]);
    const uint64_t acknowledged = ends.size(), held = acknowledged - lost;
    EXPECT_THAT(OpenError(absl::StatusCode::kDataLoss),
                AllOf(HasSubstr(absl::StrCat("holds ", held, " commits, but ", acknowledged, " were acknowledged")),
                      HasSubstr("Restore a backup, or remove"), HasSubstr("/COMMITS to accept the loss")));
    EXPECT_EQ(fs::file_size(log), ends[ends.size() - 1 - lost]) << "a refused start leaves the log alone";
    fs::remove(directory_ + "/COMMITS");
    EXPECT_EQ(Open()->Load()->requests.size(), 300 - lost);
    directory_ = (root_ / "data").string();
  }
}

TEST_F(RocksDbStoreTest, ADamagedLogIsRefused) {
  auto store = Open();
  for (int i = 0; i < 50; ++i) Put(*store, {{Request(i)}});
  directory_ = CrashImage();
  const fs::path log = NewestLog(directory_);
  std::string content = Content(log);
  content[content.size() / 2] ^= 0x10;
  std::ofstream(log, std::ios::binary) << content;
  EXPECT_THAT(OpenError(absl::StatusCode::kDataLoss), AllOf(HasSubstr("checksum"), HasSubstr("Restore a backup")));
}

TEST_F(RocksDbStoreTest, AStoreWithoutItsCurrentFileIsNoNewStore) {
  {
    Put(*Open(), {{Request(1)}});
  }
  fs::remove(directory_ + "/CURRENT");
  EXPECT_THAT(OpenError(absl::StatusCode::kDataLoss), HasSubstr("but no CURRENT file"));
}

TEST_F(RocksDbStoreTest, ANewerFormatIsRefusedAndLeftAlone) {
  {
    Put(*Open(), {{Request(1)}});
  }
  storage::v1::MetaRecord meta;
  auto edit = [&](int32_t format, const std::string& version) {
    rocksdb::DB* raw = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), directory_, &raw).ok());
    const std::unique_ptr<rocksdb::DB> db(raw);
    std::string value;
    ASSERT_TRUE(db->Get({}, "m/meta", &value).ok());
    ASSERT_TRUE(meta.ParseFromString(value));
    meta.set_format(format);
    meta.set_written_by(version);
    ASSERT_TRUE(db->Put({}, "m/meta", meta.SerializeAsString()).ok());
  };
  EXPECT_NO_FATAL_FAILURE(edit(kStoreFormat + 1, "9.9.9"));
  const uint64_t epoch = meta.epoch();
  EXPECT_THAT(OpenError(absl::StatusCode::kFailedPrecondition),
              AllOf(HasSubstr(absl::StrCat("has format ", kStoreFormat + 1, ", written by version 9.9.9")),
                    HasSubstr(absl::StrCat("this is version ", Version(), " and knows formats up to ", kStoreFormat)),
                    HasSubstr("Start the newer version")));
  EXPECT_NO_FATAL_FAILURE(edit(kStoreFormat, Version()));
  EXPECT_EQ(meta.epoch(), epoch) << "the refused start changed nothing";
  EXPECT_EQ(Open()->Load()->requests.size(), 1u);
}

TEST_F(RocksDbStoreTest, ADirectoryHasOneCoordinator) {
  auto store = Open();
  EXPECT_THAT(OpenError(absl::StatusCode::kFailedPrecondition), HasSubstr("another coordinator uses this directory"));
}

TEST_F(RocksDbStoreTest, ADirectoryForEveryoneIsRefused) {
  fs::create_directory(directory_);
  chmod(directory_.c_str(), 0777);
  EXPECT_THAT(OpenError(absl::StatusCode::kFailedPrecondition), HasSubstr("chmod 700"));
  directory_ = (root_ / "a/b/c").string();
  EXPECT_THAT(OpenError(absl::StatusCode::kFailedPrecondition), HasSubstr("cannot create the data directory"));
}

TEST_F(RocksDbStoreTest, ARecordThatCannotBeUsedIsPutAsideAndListed) {
  {
    auto store = Open();
    Put(*store, {{SampleJob()}, {SampleGeneration()}, {SampleCheckpoint()}});
    core::CheckpointEntry impossible = SampleCheckpoint();
    impossible.step = -1;
    auto [key, value] = EncodeRecord({impossible});
    core::GenerationEntry orphan = SampleGeneration();
    orphan.job = core::JobId("gone");
    WriteBatch batch;
    batch.operations.push_back({key, value});
    batch.operations.push_back({"j/bad", std::string("\xff\xff")});
    batch.operations.push_back({EncodeRecord({orphan}).first, EncodeRecord({orphan}).second});
    ASSERT_TRUE(store->Commit(batch).ok());
  }
  for (const bool first : {true, false}) {
    auto store = Open();
    const absl::StatusOr<core::ClusterState> state = store->Load();
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(state->jobs.size(), 1u);
    EXPECT_EQ(state->checkpoints.at(SampleJob().id).size(), 1u);
    EXPECT_FALSE(state->generations.contains(core::JobId("gone")));
    ASSERT_EQ(store->aside().size(), 3u) << "kept as evidence";
    EXPECT_EQ(store->aside()[0].job, SampleJob().id);
    EXPECT_THAT(store->aside()[0].problem, HasSubstr("is damaged: step -1"));
    EXPECT_THAT(store->aside()[1].problem, HasSubstr("belongs to a job that is not stored"));
    EXPECT_THAT(store->aside()[2].problem, HasSubstr("the record 'j/bad' cannot be read (2 bytes)"));
    for (const RecordAside& one : store->aside()) EXPECT_EQ(one.fresh, first) << one.key;
  }
}

TEST_F(RocksDbStoreTest, AStoreOfDamagedRecordsIsRefused) {
  auto store = Open();
  WriteBatch batch;
  for (int i = 0; i < 101; ++i) batch.operations.push_back({absl::StrCat("j/bad-", i), std::string("\xff\xff")});
  ASSERT_TRUE(store->Commit(batch).ok());
  EXPECT_THAT(std::string(store->Load().status().message()),
              AllOf(HasSubstr("101 records of"), HasSubstr("cannot be used"), HasSubstr("Restore a backup")));
}

TEST_F(RocksDbStoreTest, ADamagedEventDoesNotHideTheOthers) {
  auto store = Open();
  core::JobEventEntry event = SampleEvent();
  Put(*store, {{event}});
  WriteBatch batch;
  batch.operations.push_back({EventKey(event.job, 18), std::string("\xff\xff")});
  ASSERT_TRUE(store->Commit(batch).ok());
  event.sequence = 19;
  Put(*store, {{event}});
  const auto events = *store->ReadEvents(event.job, 0, 10);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[1].sequence, 18);
  EXPECT_EQ(events[1].type, "UnreadableEvent");
  EXPECT_EQ(events[2].message, event.message);
}

// The wall clock was set while nobody ran: what was ten seconds away still is, and the history keeps its order.
TEST_F(RocksDbStoreTest, AClockThatWasSetBetweenTwoRunsChangesNoDuration) {
  ClockReading clocks{absl::FromUnixSeconds(1'700'000'000), absl::Seconds(1000), "boot-1"};
  const auto read = [&] { return clocks; };
  core::JobEntry job = SampleJob();
  job.retry_at = clocks.wall + absl::Seconds(10);
  {
    auto store = *OpenRocksDbStore(directory_, read);
    WriteBatch batch;
    const auto [key, value] = EncodeRecord({job}, store->frame());
    batch.operations.push_back({key, value});
    ASSERT_TRUE(store->Commit(batch).ok());
  }
  for (const absl::Duration set : {absl::Hours(24), absl::Hours(-48), absl::Hours(24 * 400), absl::ZeroDuration()}) {
    clocks.wall += set;
    clocks.boot += absl::Seconds(1);
    auto store = *OpenRocksDbStore(directory_, read);
    const core::ClusterState state = *store->Load();
    const absl::Duration left = state.jobs.at(job.id).retry_at - clocks.wall;
    EXPECT_EQ(left, absl::Seconds(1010) - clocks.boot) << "the clock was set by " << set;
    EXPECT_EQ(clocks.wall - state.jobs.at(job.id).created_at,
              clocks.boot - absl::Seconds(1000) + (job.retry_at - absl::Seconds(10) - job.created_at));
  }
}

TEST_F(RocksDbStoreTest, WhatLiesInItIsForItsOwnerOnly) {
  fs::create_directory(directory_);
  chmod(directory_.c_str(), 0755);
  const mode_t before = umask(022);
  {
    Put(*Open(), {{Request(1)}});
  }
  chmod((directory_ + "/CURRENT").c_str(), 0644);
  umask(077);
  {
    Put(*Open(), {{Request(2)}});
  }
  umask(before);
  EXPECT_EQ(fs::status(directory_).permissions() & fs::perms::all, fs::perms::owner_all);
  for (const auto& entry : fs::directory_iterator(directory_)) {
    EXPECT_EQ(entry.status().permissions() & (fs::perms::group_all | fs::perms::others_all), fs::perms::none)
        << entry.path();
  }
}

// A batch larger than the room that is left: the log breaks off in the middle of it.
TEST_F(RocksDbStoreTest, ALogThatAFullDiskCutIsOpenedAnew) {
  fs::create_directory(directory_);
  if (mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=48m,mode=0700") != 0)
    GTEST_SKIP() << "mounting a tmpfs is not permitted here: " << strerror(errno);
  const std::unique_ptr<std::string, void (*)(std::string*)> unmount(
      &directory_, [](std::string* directory) { umount2(directory->c_str(), MNT_DETACH); });
  auto store = Open();
  Put(*store, {{Request(1)}});
  core::RequestEntry large = Request(2);
  large.message = std::string(60 << 20, 'x');
  WriteBatch batch;
  const auto [key, value] = EncodeRecord({large});
  batch.operations.push_back({key, value});
  for (int attempt = 0; attempt < 3; ++attempt) {
    const absl::Status status = store->Commit(batch);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_TRUE(store->ReadEvents(SampleJob().id, 0, 1).ok()) << "reads go on";
  }
  ASSERT_EQ(mount("tmpfs", directory_.c_str(), nullptr, MS_REMOUNT, "size=400m"), 0) << strerror(errno);
  const absl::Status status = store->Commit(batch);
  EXPECT_TRUE(status.ok()) << status;
  Put(*store, {{Request(3)}});
  EXPECT_EQ(store->epoch(), 1u) << "no new start";
  store.reset();
  const core::ClusterState state = *Open()->Load();
  EXPECT_EQ(state.requests.size(), 3u);
  EXPECT_EQ(state.requests.at("key-2").message.size(), large.message.size());
}

// After its first 256 commits the file is known to be on the disk: an empty one was cut.
TEST_F(RocksDbStoreTest, AnEmptiedCounterIsNamed) {
  {
    auto store = Open();
    for (int i = 0; i < 300; ++i) Put(*store, {{Request(i)}});
  }
  fs::resize_file(directory_ + "/COMMITS", 0);
  EXPECT_THAT(OpenError(absl::StatusCode::kDataLoss), HasSubstr("COMMITS is empty, but the store holds"));
  fs::remove(directory_ + "/COMMITS");
  EXPECT_EQ(Open()->Load()->requests.size(), 300u);
}

TEST_F(RocksDbStoreTest, TheCounterFollowsEachCommit) {
  auto store = Open();
  const CommitCounter counter(directory_);
  const uint64_t before = *counter.Read();
  Put(*store, {{Request(1)}});
  EXPECT_EQ(*counter.Read(), before + 1);
  EXPECT_EQ(Content(counter.path()).size(), 21u);
}

TEST_F(RocksDbStoreTest, AnUnreadableCounterIsNamed) {
  {
    Put(*Open(), {{Request(1)}});
  }
  const std::string whole = Content(directory_ + "/COMMITS");
  for (const std::string& wrong : {std::string("many"), whole.substr(0, 20), whole.substr(0, 19), whole.substr(1),
                                   whole + "1", std::string("1\n")}) {
    std::ofstream(directory_ + "/COMMITS") << wrong;
    EXPECT_THAT(OpenError(absl::StatusCode::kDataLoss), HasSubstr("expected a number of 20 digits and a line end"))
        << wrong;
  }
  std::ofstream(directory_ + "/COMMITS") << std::string(21, '\0');
  EXPECT_EQ(Open()->Load()->requests.size(), 1u);
}

}  // namespace
}  // namespace athanor
