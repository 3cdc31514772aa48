// Reading a page of metrics, of ours or of anybody's.
#include "bench/relay/metrics_page.h"

#include <gtest/gtest.h>

namespace ringsock::bench {
namespace {

TEST(MetricsPageTest, NamesWithLabelsAndValues) {
  const Metrics metrics = ParseMetrics(
      "# HELP x_total Things\r\n"
      "# TYPE x_total counter\n"
      "x_total 5\n"
      "x_total{reason=\"queue full\"} 1.5e3 1700000000\n"
      "\n"
      "no_value\n"
      "word here\n"
      "y 0\n");
  EXPECT_EQ(metrics.size(), 3u);
  EXPECT_EQ(metrics.at("x_total"), 5);
  EXPECT_EQ(metrics.at("x_total{reason=\"queue full\"}"), 1500);
  EXPECT_EQ(metrics.at("y"), 0);
  EXPECT_TRUE(ParseMetrics("").empty());
}

TEST(MetricsPageTest, OnlyLossesThatGrew) {
  const Metrics losses = LossesBetween(
      {{"dropped{r=\"a\"}", 1}, {"dropped{r=\"b\"}", 7}},
      {{"dropped{r=\"a\"}", 4}, {"dropped{r=\"b\"}", 7}, {"refused", 2}, {"packets", 100}});
  EXPECT_EQ(losses, (Metrics{{"dropped{r=\"a\"}", 3}, {"refused", 2}}));
}

TEST(MetricsPageTest, NobodyThere) {
  EXPECT_FALSE(FetchMetrics({IpAddress::V4(127, 0, 0, 1), 1}).ok());
}

}  // namespace
}  // namespace ringsock::bench
