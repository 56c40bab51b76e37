#include "athanor/checkpoint/store/await_object.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace athanor {
namespace {

using ::testing::HasSubstr;

class Object : public StoreReader {
 public:
  explicit Object(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  absl::Status Read(int64_t, int64_t, char*) const override { return absl::UnimplementedError("not read here"); }

 private:
  const int64_t size_;
};

// Shows an object of 10 bytes once its folder has been listed often enough: first its name, then its size.
class LaggingStore : public CheckpointStore {
 public:
  LaggingStore(int name_after, int size_after) : name_after_(name_after), size_after_(size_after) {}
  absl::StatusOr<std::vector<std::string>> List(const std::string& folder) const override {
    EXPECT_EQ(folder, "step-1/");
    ++listed;
    return std::vector<std::string>{};
  }
  absl::StatusOr<std::unique_ptr<StoreReader>> Open(const std::string& name) const override {
    if (!error.ok()) return error;
    if (listed < name_after_) return absl::NotFoundError(Describe(name));
    return std::make_unique<Object>(listed < size_after_ ? 0 : 10);
  }
  absl::StatusOr<int64_t> Size(const std::string&) const override { return 10; }
  absl::Status Put(const std::string&, std::string_view, PutMode) override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<StoreWriter>> NewWriter(const std::string&) override { return nullptr; }
  absl::Status Copy(const std::string&, const std::string&) override { return absl::OkStatus(); }
  absl::Status Delete(const std::string&) override { return absl::OkStatus(); }
  std::string Describe(const std::string& name) const override { return "/nfs/" + name; }

  absl::Status error;
  mutable int listed = 0;

 private:
  const int name_after_, size_after_;
};

class AwaitObjectTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<StoreReader>> Await(const LaggingStore& store) {
    AwaitOptions options;
    options.waiting = [this] { ++told_; };
    options.pause = [this](absl::Duration time) { waited_ += time; };
    return AwaitObject(store, "step-1/shard", 10, options);
  }
  absl::Duration waited_;
  int told_ = 0;
};

TEST_F(AwaitObjectTest, WhatIsThereIsOpenedAtOnce) {
  const LaggingStore store(0, 0);
  EXPECT_TRUE(Await(store).ok());
  EXPECT_EQ(waited_, absl::ZeroDuration());
  EXPECT_EQ(store.listed, 0);
}

TEST_F(AwaitObjectTest, AListingThatLagsIsWaitedFor) {
  const LaggingStore store(3, 5);
  const auto reader = Await(store);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->size(), 10);
  EXPECT_EQ(told_, 5);
  EXPECT_EQ(waited_, absl::Milliseconds(20 + 40 + 80 + 160 + 320));
}

TEST_F(AwaitObjectTest, PatienceHasAnEnd) {
  EXPECT_TRUE(absl::IsNotFound(Await(LaggingStore(1000, 1000)).status()));
  EXPECT_GE(waited_, absl::Seconds(75));
  EXPECT_LT(waited_, absl::Seconds(78));
  const absl::Status cut = Await(LaggingStore(0, 1000)).status();
  EXPECT_TRUE(absl::IsDataLoss(cut));
  EXPECT_THAT(std::string(cut.message()), HasSubstr("/nfs/step-1/shard: found 0 bytes; its writer has written 10"));
}

TEST_F(AwaitObjectTest, OtherErrorsAreNotWaitedFor) {
  LaggingStore store(0, 0);
  store.error = absl::PermissionDeniedError("no");
  EXPECT_EQ(Await(store).status(), store.error);
  EXPECT_EQ(told_, 0);
}

}  // namespace
}  // namespace athanor
