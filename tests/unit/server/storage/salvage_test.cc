// Tables with flipped bits: the record that is hit lies aside, all others are there, and the service goes on.
#include "server/storage/salvage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "server/storage/record_check.h"
#include "server/storage/record_codec.h"
#include "server/storage/rocksdb_store.h"
#include "server/storage/table_block.h"
#include "tests/unit/server/storage/sample_records.h"

namespace athanor {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::SizeIs;

constexpr int kRequests = 200, kEvents = 300;

core::RequestEntry Request(int number) {
  core::RequestEntry request = SampleRequest();
  request.key = absl::StrCat("key-", number);
  request.message = absl::StrCat("answer-", number, "-of-a-verb");
  return request;
}

// Each entry: three lengths, the key with its trailer, the value; then where they begin, and how many.
std::string Block(const std::vector<std::pair<std::string, std::string>>& records) {
  const auto little = [](uint64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i, value >>= 8) text.push_back(static_cast<char>(value & 0xff));
    return text;
  };
  std::string block, borders;
  for (auto [key, value] : records) {
    AddCheck(key, value);
    borders += little(block.size(), 4);
    block += std::string({0, static_cast<char>(key.size() + 8), static_cast<char>(value.size())}) + key +
             little(5 << 8 | 1, 8) + value;
  }
  return block + borders + little(records.size(), 4);
}

size_t GoodOnes(const std::string& block) {
  size_t good = 0;
  for (const RawRecord& record : ParseBlock(block))
    good += record.well_formed && CheckOf(record.key, record.value) == RecordCheck::kGood;
  return good;
}

TEST(TableBlock, AnyFlippedBitCostsOneRecordAtMost) {
  const std::string whole = Block({{"r/a", "first"}, {"r/b", "second one"}, {"r/c", "third"}, {"r/d", "4"}});
  EXPECT_EQ(GoodOnes(whole), 4u);
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string block = whole;
    block[bit / 8] ^= static_cast<char>(1 << bit % 8);
    EXPECT_GE(GoodOnes(block), 3u) << "bit " << bit;
  }
}

TEST(TableBlock, WhatIsNoBlockIsNoRecord) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 200, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random() % 256);
    EXPECT_EQ(GoodOnes(bytes), 0u);
  }
}

class SalvageTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / absl::StrCat("salvage-", getpid());
    fs::remove_all(root_);
    fs::create_directories(root_);
    whole_ = (root_ / "whole").string();
    Fill();
  }
  void TearDown() override { fs::remove_all(root_); }

  // One job with its events and many requests, all of it in a table.
  void Fill() {
    WriteBatch batch;
    const auto put = [&batch](const core::PutRecord& record) {
      auto [key, value] = EncodeRecord(record);
      batch.operations.push_back({std::move(key), std::move(value)});
    };
    put({SampleJob()});
    for (int number = 0; number < kRequests; ++number) put({Request(number)});
    for (int sequence = 1; sequence <= kEvents; ++sequence) {
      core::JobEventEntry event = SampleEvent();
      event.sequence = sequence;
      event.message = absl::StrCat("event-", sequence, "-of-the-job");
      put({event});
    }
    ASSERT_TRUE((*OpenRocksDbStore(whole_))->Commit(batch).ok());
    ASSERT_TRUE(OpenRocksDbStore(whole_).ok());  // writes the log out
  }

  // A copy in which `flip` has changed the newest table with records.
  template <typename Flip>
  std::string Damaged(Flip flip) {
    std::string directory = (root_ / absl::StrCat("copy-", ++copies_)).string();
    fs::copy(whole_, directory, fs::copy_options::recursive);
    chmod(directory.c_str(), 0700);
    fs::path table;
    for (const auto& entry : fs::directory_iterator(directory)) {
      if (entry.path().extension() == ".sst" && (table.empty() || entry.file_size() > fs::file_size(table)))
        table = entry.path();
    }
    std::ostringstream content;
    content << std::ifstream(table, std::ios::binary).rdbuf();
    std::string bytes = content.str();
    flip(bytes);
    std::ofstream(table, std::ios::binary) << bytes;
    return directory;
  }
  std::string DamagedAt(const std::string& text) {
    return Damaged([&text](std::string& bytes) {
      const size_t at = bytes.find(text);
      ASSERT_NE(at, std::string::npos) << text;
      bytes[at + text.size() / 2] ^= 0x01;
    });
  }
  static std::unique_ptr<MetadataStore> Open(const std::string& directory) {
    auto store = OpenRocksDbStore(directory);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  static std::vector<core::JobEventEntry> Events(MetadataStore& store) {
    auto events = store.ReadEvents(SampleJob().id, 0, 1000);
    EXPECT_TRUE(events.ok()) << events.status();
    return events.ok() ? *std::move(events) : std::vector<core::JobEventEntry>();
  }

  fs::path root_;
  std::string whole_;
  int copies_ = 0;
};

TEST_F(SalvageTest, OneDamagedRecordIsPutAsideAndItsNeighboursStay) {
  const std::string directory = DamagedAt("answer-77-of-a-verb");
  {
    auto store = Open(directory);
    const absl::StatusOr<core::ClusterState> state = store->Load();
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_THAT(state->requests, SizeIs(kRequests - 1));
    EXPECT_FALSE(state->requests.contains("key-77"));
    EXPECT_THAT(state->jobs, SizeIs(1));
    ASSERT_THAT(store->aside(), SizeIs(1));
    EXPECT_EQ(store->aside()[0].key, "r/key-77");
    EXPECT_TRUE(store->aside()[0].fresh);
    EXPECT_THAT(store->aside()[0].problem, HasSubstr("is not what was written"));
    EXPECT_THAT(Events(*store), SizeIs(kEvents));
  }
  EXPECT_TRUE(fs::exists(fs::path(directory) / "damaged-1/CURRENT")) << "kept as evidence";
  auto again = Open(directory);
  EXPECT_THAT(again->Load()->requests, SizeIs(kRequests - 1));
  ASSERT_THAT(again->aside(), SizeIs(1));
  EXPECT_FALSE(again->aside()[0].fresh);
  EXPECT_FALSE(fs::exists(fs::path(directory) / "damaged-2"));
  EXPECT_EQ(again->epoch(), 4u) << "the same store";
}

// Events are not read at the start: the damage shows when somebody asks, and is mended at the next start.
TEST_F(SalvageTest, ADamagedEventIsShownInItsPlaceAndMendedAtTheNextStart) {
  const std::string directory = DamagedAt("event-150-of-the-job");
  for (const bool noted : {false, true}) {
    auto store = Open(directory);
    ASSERT_TRUE(store->Load().ok());
    EXPECT_EQ(fs::exists(fs::path(directory) / "damaged-1"), noted);
    const std::vector<core::JobEventEntry> events = Events(*store);
    ASSERT_THAT(events, SizeIs(kEvents));
    EXPECT_EQ(events[149].type, "UnreadableEvent");
    EXPECT_EQ(events[149].sequence, 150);
    EXPECT_EQ(events[150].message, "event-151-of-the-job");
    EXPECT_EQ(NotedDamage(directory).empty(), noted);
  }
  rocksdb::DB* raw = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), directory, &raw).ok());
  const std::unique_ptr<rocksdb::DB> db(raw);
  EXPECT_TRUE(db->VerifyChecksum().ok()) << "no block of the copy is damaged";
  EXPECT_TRUE(db->CompactRange({}, nullptr, nullptr).ok());
}

// Whatever bit is flipped: what is missing is listed, or the start is refused.
TEST_F(SalvageTest, NoFlippedBitGoesUnnoticed) {
  std::mt19937 random(7);
  int salvaged = 0;
  for (int round = 0; round < 60; ++round) {
    const std::string directory = Damaged(
        [&random](std::string& bytes) { bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8); });
    auto store = OpenRocksDbStore(directory);
    const absl::StatusOr<core::ClusterState> state = store.ok() ? (*store)->Load() : store.status();
    if (!state.ok()) {
      EXPECT_EQ(state.status().code(), absl::StatusCode::kDataLoss) << state.status();
      continue;
    }
    const size_t missing = kRequests - state->requests.size() + (1 - state->jobs.size());
    EXPECT_GE((*store)->aside().size(), missing);
    EXPECT_LE(missing, 1u) << "one bit, one record";
    for (const auto& [key, request] : state->requests)
      EXPECT_EQ(request.message, Request(std::stoi(key.substr(4))).message);
    const auto events = (*store)->ReadEvents(SampleJob().id, 0, 1000);
    if (!events.ok()) continue;
    const auto unreadable = std::count_if(events->begin(), events->end(),
                                          [](const auto& event) { return event.type == "UnreadableEvent"; });
    EXPECT_GE(static_cast<int>(events->size()), kEvents - 1);
    EXPECT_LE(unreadable, 1);
    salvaged += fs::exists(fs::path(directory) / "damaged-1");
    fs::remove_all(directory);
  }
  EXPECT_GT(salvaged, 20);
}

TEST_F(SalvageTest, ManyDamagedRecordsAreNoAccident) {
  const std::string directory = Damaged([](std::string& bytes) {
    for (int number = 0; number < kRequests; number += 1) {
      const size_t at = bytes.find(Request(number).message);
      if (at != std::string::npos) bytes[at] ^= 0x01;
    }
  });
  auto store = Open(directory);
  EXPECT_THAT(std::string(store->Load().status().message()), HasSubstr("Restore a backup"));
  EXPECT_FALSE(fs::exists(fs::path(directory) / "damaged-1")) << "nothing was touched";
}

// A process that ends while the copy is put into place leaves no half of a store.
TEST_F(SalvageTest, ACopyThatWasBrokenOffIsTakenAtTheNextStart) {
  for (const bool moved_out : {false, true}) {
    const std::string directory = DamagedAt("answer-3-of-a-verb");
    const fs::path here(directory);
    {
      rocksdb::DB* raw = nullptr;
      ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), directory, &raw).ok());
      const std::unique_ptr<rocksdb::DB> db(raw);
      const auto leave_out = [](std::string_view, std::string_view, const std::string&) {
        return std::make_pair(std::string(), std::string());
      };
      const auto copy = CopyIntact(*db, rocksdb::Options(), directory, leave_out, 10, "a flipped bit");
      ASSERT_TRUE(copy.ok()) << copy.status();
      EXPECT_THAT(copy->problems, SizeIs(1));
    }
    if (moved_out) {
      fs::create_directory(here / "damaged-1");
      for (const auto& entry : fs::directory_iterator(here)) {
        if (entry.path().extension() == ".sst") fs::rename(entry.path(), here / "damaged-1" / entry.path().filename());
      }
    }
    auto store = Open(directory);
    EXPECT_THAT(store->Load()->requests, SizeIs(kRequests - 1));
    EXPECT_FALSE(fs::exists(here / "salvage.whole"));
  }
}

TEST(RecordCheck, TellsWhatWasWrittenFromWhatWasNot) {
  std::string value = "a value";
  EXPECT_EQ(CheckOf("key", value), RecordCheck::kNone);
  EXPECT_EQ(CheckOf("key", ""), RecordCheck::kNone);
  AddCheck("key", value);
  EXPECT_EQ(CheckOf("key", value), RecordCheck::kGood);
  EXPECT_EQ(CheckOf("kez", value), RecordCheck::kBad) << "under another key";
  for (size_t at = 0; at < value.size(); ++at) {
    std::string other = value;
    other[at] ^= 0x10;
    EXPECT_NE(CheckOf("key", other), RecordCheck::kGood) << at;
  }
}

}  // namespace
}  // namespace athanor
