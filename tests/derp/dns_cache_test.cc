// What the resolver remembers and for how long.
#include "derp/dns_cache.h"

#include <gtest/gtest.h>

#include <string>

namespace ringsock::derp {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

class DnsCacheTest : public testing::Test {
 protected:
  // What Get() says, in a word.
  std::string Look(const DnsKey& key) {
    const auto found = cache.Get(key, now);
    if (!found.has_value()) return "ask";
    if (!found->ok()) return std::string((*found).status().message());
    return (**found).addresses.front().ToString() + ((**found).stale ? " stale" : "");
  }
  ResolverOptions Options() const {
    ResolverOptions options;
    options.min_ttl = seconds(30);
    options.max_ttl = hours(1);
    options.negative_ttl = seconds(5);
    options.max_entries = 3;
    return options;
  }
  Instant now{hours(5)};
  DnsCache cache{Options()};
  const DnsKey a{"a.test", AddressFamily::kV4};
  const DnsKey a6{"a.test", AddressFamily::kV6};
  const std::vector<IpAddress> one{IpAddress::V4(192, 0, 2, 1)};
  const absl::Status down = absl::UnavailableError("down");
  const absl::Status none = absl::NotFoundError("none");
};

TEST_F(DnsCacheTest, AnAnswerHoldsForItsTtlWithinBounds) {
  EXPECT_EQ(Look(a), "ask");
  cache.Put(a, one, seconds(100), now);
  EXPECT_EQ(Look(a6), "ask") << "families are apart";
  now += seconds(99);
  EXPECT_EQ(Look(a), "192.0.2.1");
  now += seconds(1);
  EXPECT_EQ(Look(a), "ask");
  cache.Put(a, one, seconds(0), now);
  now += seconds(29);
  EXPECT_EQ(Look(a), "192.0.2.1") << "not less than the floor";
  cache.Put(a, one, hours(100), now);
  now += hours(1);
  EXPECT_EQ(Look(a), "ask") << "not more than the ceiling";
}

TEST_F(DnsCacheTest, ErrorsHoldForAShortTime) {
  cache.PutError(a, none, now);
  now += seconds(4);
  EXPECT_EQ(Look(a), "none");
  EXPECT_FALSE(cache.GetStale(a).has_value());
  now += seconds(1);
  EXPECT_EQ(Look(a), "ask");
  cache.PutError(a, down, now);
  EXPECT_EQ(Look(a), "down");
  cache.ForgetErrors();
  EXPECT_EQ(Look(a), "ask");
}

TEST_F(DnsCacheTest, WhileTheDnsIsDownTheLastGoodAnswerCounts) {
  cache.Put(a, one, seconds(30), now);
  now += hours(24);
  EXPECT_EQ(Look(a), "ask");
  ASSERT_TRUE(cache.GetStale(a).has_value());
  EXPECT_TRUE(cache.GetStale(a)->stale);
  cache.PutError(a, down, now);
  EXPECT_EQ(Look(a), "192.0.2.1 stale");
  now += seconds(5);
  EXPECT_EQ(Look(a), "ask") << "and is asked for again now and then";
  // That there is no such name any more is an answer.
  cache.PutError(a, none, now);
  EXPECT_EQ(Look(a), "none");
  EXPECT_FALSE(cache.GetStale(a).has_value());
}

TEST_F(DnsCacheTest, WhatWasNotAskedForTheLongestGoes) {
  for (const char* name : {"1", "2", "3"}) {
    cache.Put({name, AddressFamily::kV4}, one, seconds(60), now);
  }
  EXPECT_EQ(Look({"1", AddressFamily::kV4}), "192.0.2.1");
  cache.PutError(a, none, now);
  EXPECT_EQ(cache.size(), 3u);
  EXPECT_EQ(Look({"1", AddressFamily::kV4}), "192.0.2.1");
  EXPECT_EQ(Look({"2", AddressFamily::kV4}), "ask");
  EXPECT_EQ(Look({"3", AddressFamily::kV4}), "192.0.2.1");
}

}  // namespace
}  // namespace ringsock::derp
