// What is worked out from figures, and that JSON gives back what it was given.
#include "bench/study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/bench/study_fixture.h"

namespace ringsock::bench {
namespace {

using ::testing::HasSubstr;

TEST(StudyTest, BestBareIsTheCheapestLoopByHand) {
  StudyPoint point = MadePoint(0, "");
  ASSERT_NE(point.BestBare(), nullptr);
  EXPECT_EQ(point.BestBare()->name, "recvmmsg+gro:8");
  point.subjects = {MadeSubject("ringsock", {100}), MadeSubject("uring", {})};
  EXPECT_EQ(point.BestBare(), nullptr);  // the one is not bare, the other moved nothing
  EXPECT_EQ(point.Find("uring")->name, "uring");
  EXPECT_EQ(point.Find("recvfrom"), nullptr);
}

TEST(StudyTest, RatiosAreByRound) {
  const StudySubject best = MadeSubject("uring", {200, 100, 100});
  const StudySubject ours = MadeSubject("ringsock", {220, 90, 100, 7});
  const Summary ratio = CostRatio(ours, best);
  EXPECT_EQ(ratio.count, 3u);
  EXPECT_DOUBLE_EQ(ratio.median, 1.0);
  EXPECT_DOUBLE_EQ(ratio.min, 0.9);
  EXPECT_DOUBLE_EQ(ratio.max, 1.1);
  EXPECT_EQ(CostRatio(ours, {}).count, 0u);
}

TEST(StudyTest, RoundsThatMovedNothingDoNotCount) {
  StudySubject subject = MadeSubject("ringsock", {100, 200, 300});
  subject.rounds[0].ns_per_packet = std::numeric_limits<double>::infinity();
  EXPECT_EQ(subject.NsPerPacket().count, 2u);
  EXPECT_EQ(CostRatio(subject, MadeSubject("uring", {100, 100, 100})).count, 2u);
}

TEST(StudyTest, LostShareIsOfAllRounds) {
  StudySubject subject = MadeSubject("ringsock", {100, 100});
  EXPECT_EQ(subject.LostShare(), 0);
  subject.rounds[1].lost = 20;
  EXPECT_DOUBLE_EQ(subject.LostShare(), 0.01);
  EXPECT_EQ(StudySubject().LostShare(), 0);
}

TEST(StudyJsonTest, GivesBackWhatItWasGiven) {
  Study study = MadeStudy();
  study.machine = "a \"machine\" \\ <b> µ";
  study.charts[0].points[0].error = "no right";
  study.charts[1].points[1].subjects[2].error = "crashed";
  study.charts[1].points[1].subjects[2].rounds[0].ns_per_packet =
      std::numeric_limits<double>::infinity();
  study.charts[1].points[0].subjects[0].rounds[1].lost = 17;
  const std::string json = StudyToJson(study);
  const auto back = StudyFromJson(json);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(StudyToJson(*back), json);
  EXPECT_EQ(back->machine, study.machine);
  EXPECT_EQ(back->load_cores, study.load_cores);
  EXPECT_EQ(back->receive_buffer, 14'680'064u);
  EXPECT_EQ(back->seconds, 0.25);
  ASSERT_NE(back->Find("train"), nullptr);
  EXPECT_TRUE(back->Find("train")->log_x);
  EXPECT_TRUE(back->Find("main")->bars);
  const StudySubject& third = back->Find("train")->points[1].subjects[2];
  EXPECT_TRUE(third.bare);
  EXPECT_EQ(third.error, "crashed");
  EXPECT_TRUE(std::isnan(third.rounds[0].ns_per_packet));
  EXPECT_EQ(third.rounds[1].ns_per_packet, 210);
  EXPECT_EQ(back->Find("none"), nullptr);
}

TEST(StudyJsonTest, BytesThatAreNoTextDoNotStopIt) {
  Study study = MadeStudy();
  study.charts[0].points[0].error = "bad \xff bytes";
  EXPECT_TRUE(StudyFromJson(StudyToJson(study)).ok());
}

std::string ErrorOf(const std::string& json) {
  const auto study = StudyFromJson(json);
  return study.ok() ? "" : std::string(study.status().message());
}

TEST(StudyJsonTest, WhatIsNoReportIsSaid) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf("{\"format\": "), HasSubstr("not JSON, from byte 11 of 11"));
  EXPECT_THAT(ErrorOf("\xff"), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("not of a report"));
  EXPECT_THAT(ErrorOf("{\"format\": 3}"), HasSubstr("not of a report"));
  EXPECT_THAT(ErrorOf("{\"scenarios\": []}"), HasSubstr("not of a report"));
  EXPECT_THAT(ErrorOf("{\"format\": \"ringsock-bench report\", \"version\": 99}"),
              HasSubstr("another version"));
}

TEST(StudyJsonTest, MistakesAreNamedWithTheirPlace) {
  const auto with = [](const std::string& fields) {
    return "{\"format\": \"ringsock-bench report\", \"version\": 1" + fields + "}";
  };
  const auto chart = [&](const std::string& fields) {
    return with(", \"charts\": [{\"id\": \"a\"" + fields + "}]");
  };
  const auto subject = [&](const std::string& fields) {
    return chart(", \"points\": [{}, {\"subjects\": [{\"name\": \"b\"" + fields + "}]}]");
  };
  EXPECT_EQ(ErrorOf(with("")), "charts: is missing");
  EXPECT_EQ(ErrorOf(with(", \"charts\": 3")), "charts: must be a list");
  EXPECT_EQ(ErrorOf(with(", \"charts\": [3]")), "charts[0]: must be an object");
  EXPECT_EQ(ErrorOf(with(", \"charts\": [{}]")), "charts[0].id: is missing");
  EXPECT_EQ(ErrorOf(with(", \"date\": 7, \"charts\": []")), "date: must be a string");
  EXPECT_EQ(ErrorOf(with(", \"cores\": -1, \"charts\": []")),
            "cores: must be a whole number, not negative");
  EXPECT_EQ(ErrorOf(with(", \"cores\": 5000000000, \"charts\": []")), "cores: is too large");
  EXPECT_EQ(ErrorOf(with(", \"load_cores\": [\"x\"], \"charts\": []")),
            "load_cores[0]: must be the number of a core");
  EXPECT_EQ(ErrorOf(with(", \"seconds\": \"1\", \"charts\": []")),
            "seconds: must be a number or null");
  EXPECT_EQ(ErrorOf(chart(", \"bars\": 1")), "charts[0].bars: must be true or false");
  EXPECT_EQ(ErrorOf(subject("")), "");
  EXPECT_EQ(ErrorOf(subject(", \"rounds\": [{\"lost\": 1.5}]")),
            "charts[0].points[1].subjects[0].rounds[0].lost: must be a whole number, not negative");
  std::string many = "0";
  for (int i = 0; i < 10'000; ++i) many += ",0";
  EXPECT_EQ(ErrorOf(with(", \"charts\": [" + many + "]")), "charts: is too long");
}

}  // namespace
}  // namespace ringsock::bench
