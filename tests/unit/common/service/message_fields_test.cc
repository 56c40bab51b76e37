// Members and fields of one name; and that no figure of a rank's progress is lost on its way to the coordinator.
#include "common/service/message_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "athanor/contract/run_hooks.h"
#include "athanor/v1/job.pb.h"
#include "server/core/cluster_state.h"

namespace athanor {
namespace {

using testing::Pair;
using testing::UnorderedElementsAre;

struct Sample {
  int32_t rank = 0;
  int64_t step = 0;
  double loss = 0;
  std::string phase;
  std::map<std::string, double> metrics;
  int64_t here_only = 0;
  std::string samples = "another type";
};
BOOST_DESCRIBE_STRUCT(Sample, (), (rank, step, loss, phase, metrics, here_only, samples))

template <typename T>
std::set<std::string> NamesOf() {
  std::set<std::string> names;
  boost::mp11::mp_for_each<boost::describe::describe_members<T, boost::describe::mod_public>>(
      [&](auto member) { names.insert(member.name); });
  return names;
}

TEST(MessageFields, OfOneNameAndTypeAreCopied) {
  const Sample sample{
      .rank = 3, .step = 1LL << 40, .loss = 0.25, .phase = "training", .metrics = {{"a", 1}, {"b", 2}}, .here_only = 7};
  v1::RankProgress message;
  message.set_samples(9);
  (*message.mutable_metrics())["old"] = 1;
  CopyToMessage(sample, &message);
  EXPECT_EQ(message.rank(), 3);
  EXPECT_EQ(message.step(), 1LL << 40);
  EXPECT_EQ(message.loss(), 0.25);
  EXPECT_EQ(message.phase(), "training");
  EXPECT_EQ(message.samples(), 9) << "a field of another type stays";
  EXPECT_THAT(message.metrics(), UnorderedElementsAre(Pair("a", 1), Pair("b", 2)));
  Sample back{.metrics = {{"old", 1}}, .here_only = 5};
  CopyFromMessage(message, &back);
  EXPECT_EQ(back.rank, 3);
  EXPECT_EQ(back.step, 1LL << 40);
  EXPECT_EQ(back.phase, "training");
  EXPECT_THAT(back.metrics, UnorderedElementsAre(Pair("a", 1), Pair("b", 2)));
  EXPECT_EQ(back.here_only, 5);
  EXPECT_EQ(back.samples, "another type");
}

TEST(MessageFields, EveryFigureOfProgressTravels) {
  const std::set<std::string> core = NamesOf<core::RankProgress>(), library = NamesOf<ProgressReport>();
  // Set by the trainer's link from what has another form in the library.
  const std::set<std::string> by_hand = {"rank", "phase", "phase_progress", "exchanges", "updated_at"};
  const google::protobuf::Descriptor& wire = *v1::RankProgress::descriptor();
  for (int i = 0; i < wire.field_count(); ++i) {
    const std::string name = wire.field(i)->name();
    if (wire.field(i)->is_repeated() && !wire.field(i)->is_map()) continue;  // lists are bounded by hand
    EXPECT_TRUE(core.contains(name) || name == "updated_at") << name << " is no member of core::RankProgress";
    EXPECT_TRUE(library.contains(name) || by_hand.contains(name)) << name << " is no member of ProgressReport";
  }
  const google::protobuf::Descriptor& shown = *v1::JobProgress::descriptor();
  for (const char* name : {"step", "loss", "samples_per_second"}) EXPECT_NE(shown.FindFieldByName(name), nullptr);
}

}  // namespace
}  // namespace athanor
