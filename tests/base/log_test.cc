// The logger: one for the process, safe against its sinks, quiet about debugging unless asked.
#include "base/log.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/base_sink.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace ringsock {
namespace {

class KeepingSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::vector<std::string> lines;
  bool fail = false;

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (fail) throw std::runtime_error("disk full");
    lines.emplace_back(message.payload.data(), message.payload.size());
  }
  void flush_() override {}
};

class LogTest : public testing::Test {
 protected:
  LogTest() { Log().sinks().push_back(sink_); }
  ~LogTest() override {
    Log().sinks().pop_back();
    Log().set_level(spdlog::level::info);
  }
  const std::shared_ptr<KeepingSink> sink_ = std::make_shared<KeepingSink>();
};

TEST_F(LogTest, LevelIsInfoUnlessChanged) {
  Log().debug("hidden");
  Log().info("shown {}", 1);
  Log().set_level(spdlog::level::debug);
  Log().debug("now shown");
  EXPECT_EQ(sink_->lines, (std::vector<std::string>{"shown 1", "now shown"}));
  EXPECT_EQ(&Log(), &Log());
}

TEST_F(LogTest, AbslViewsPrintWithoutTerminator) {
  const absl::string_view text = absl::string_view("peer gone").substr(0, 4);
  Log().info("{}", Fmt(text));
  EXPECT_EQ(sink_->lines, std::vector<std::string>{"peer"});
}

TEST_F(LogTest, FailingSinkDoesNotThrow) {
  sink_->fail = true;
  EXPECT_NO_THROW(Log().info("lost"));
  sink_->fail = false;
  Log().info("kept");
  EXPECT_EQ(sink_->lines, std::vector<std::string>{"kept"});
}

TEST(RateLimitTest, LetsOneThroughPerInterval) {
  using std::chrono::seconds;
  RateLimit limit(seconds(60));
  const Instant start{seconds(1)};
  EXPECT_TRUE(limit.Allow(start));
  EXPECT_FALSE(limit.Allow(start));
  EXPECT_FALSE(limit.Allow(start + seconds(60) - Duration(1)));
  EXPECT_TRUE(limit.Allow(start + seconds(60)));
  EXPECT_FALSE(limit.Allow(start + seconds(119)));
}

TEST(RateLimitTest, FirstEventPassesAtAnyTime) {
  EXPECT_TRUE(RateLimit(std::chrono::hours(1)).Allow(Instant::min()));
  EXPECT_TRUE(RateLimit(std::chrono::hours(1)).Allow(Instant{}));
}

TEST(RateLimitTest, IntervalForEverMeansOnce) {
  RateLimit limit(Duration::max());
  EXPECT_TRUE(limit.Allow(Instant{std::chrono::seconds(1)}));
  EXPECT_FALSE(limit.Allow(Instant::max() - Duration(1)));
}

}  // namespace
}  // namespace ringsock
