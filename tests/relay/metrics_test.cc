// The page of metrics: its form (Prometheus text format 0.0.4), and that each counter is on it.
#include "relay/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace ringsock::relay {
namespace {

// A page taken apart: samples by name with labels, and families.
struct Page {
  std::map<std::string, double> samples;
  std::map<std::string, std::string> types;
  std::set<std::string> helps;
};

// Fails on what the format does not allow.
Page Read(const std::string& text) {
  static const std::regex kSample(
      R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-z_]+="[^"\\\n]*"(,[a-z_]+="[^"\\\n]*")*\})? (\S+))re");
  static const std::regex kType(R"(# TYPE ([a-z_0-9]+) (counter|gauge))");
  static const std::regex kHelp(R"(# HELP ([a-z_0-9]+) \S.*)");
  Page page;
  std::istringstream lines(text);
  std::string line;
  std::smatch match;
  EXPECT_EQ(text.back(), '\n');
  while (std::getline(lines, line)) {
    if (std::regex_match(line, match, kHelp)) {
      EXPECT_TRUE(page.helps.insert(match[1]).second) << "family twice: " << line;
    } else if (std::regex_match(line, match, kType)) {
      EXPECT_TRUE(page.types.emplace(match[1], match[2]).second) << line;
    } else if (std::regex_match(line, match, kSample)) {
      EXPECT_TRUE(page.types.count(match[1])) << "sample without type: " << line;
      const bool fresh =
          page.samples.emplace(match[1].str() + match[2].str(), std::stod(match[4])).second;
      EXPECT_TRUE(fresh) << "twice: " << line;
    } else {
      ADD_FAILURE() << "no line of the format: " << line;
    }
  }
  return page;
}

MetricsInput Input() {
  MetricsInput input;
  uint64_t value = 1000;
  for (const CounterInfo& counter : CounterTable()) input.server.*counter.field = ++value;
  input.server.clients = 3;
  return input;
}

TEST(MetricsTest, EveryCounterOfTheServerIsThereOnce) {
  const Page page = Read(MetricsText(Input()));
  std::set<double> values;
  for (const auto& [name, value] : page.samples) {
    if (value > 1000) {
      EXPECT_TRUE(values.insert(value).second) << name;
    }
  }
  for (const CounterInfo& counter : CounterTable()) {
    EXPECT_TRUE(values.count(static_cast<double>(Input().server.*counter.field)))
        << counter.family << " " << counter.label;
  }
}

TEST(MetricsTest, NamesAndLabelsAreThoseOfTheDocs) {
  MetricsInput input = Input();
  input.server.dropped_queue_full = 77;
  input.server.logins = 5;
  input.server.packets_in = uint64_t{1} << 53;
  const Page page = Read(MetricsText(input));
  const auto at = [&](const std::string& name) {
    return page.samples.count(name) ? page.samples.at(name) : -1;
  };
  EXPECT_EQ(at(R"(ringsock_relay_dropped_packets_total{reason="queue_full"})"), 77);
  EXPECT_EQ(at(R"(ringsock_relay_logins_total{result="ok"})"), 5);
  EXPECT_EQ(at(R"(ringsock_relay_packets_total{direction="in"})"), 9007199254740992.0);
  EXPECT_EQ(at("ringsock_relay_clients"), 3);
  for (const auto& [name, type] : page.types) {
    EXPECT_TRUE(page.helps.count(name)) << name;
    const bool total = name.size() > 6 && name.substr(name.size() - 6) == "_total";
    EXPECT_EQ(total, type == "counter") << name;
  }
}

// Who looks at a drop wants to know why: no family of several counters without labels.
TEST(MetricsTest, EveryFamilyOfTheServerHasItsOwnNameAndLabel) {
  const Page page = Read(MetricsText(Input()));
  for (const CounterInfo& counter : CounterTable()) {
    const std::string label = counter.label;
    bool found = false;
    for (const auto& [name, value] : page.samples) {
      found = found || (value == static_cast<double>(Input().server.*counter.field) &&
                        (label.empty() || name.find("=\"" + label + "\"") != std::string::npos));
    }
    EXPECT_TRUE(found) << counter.family << " " << label;
  }
  EXPECT_FALSE(page.types.count("ringsock_relay_dropped")) << "family not in the table of names";
  for (const auto& [name, value] : page.samples) {
    EXPECT_EQ(name.find("kind=\"\""), std::string::npos) << name;
  }
}

TEST(MetricsTest, StunCertificateAndReloadsOnlyWhereTheyAre) {
  MetricsInput input;
  const Page bare = Read(MetricsText(input));
  EXPECT_FALSE(bare.types.count("ringsock_relay_stun_requests_total"));
  EXPECT_FALSE(bare.types.count("ringsock_relay_certificate_not_after_seconds"));
  EXPECT_FALSE(bare.types.count("ringsock_relay_allowed_keys"));
  input.stun.emplace().answered = 9;
  input.stun->refused[static_cast<size_t>(stun::ParseResult::kNotStun)] = 4;
  input.certificate_not_after = 1'800'000'000;
  input.reloads[0].refused = 2;
  input.allow_list = true;
  input.allowed_keys = 12;
  const Page page = Read(MetricsText(input));
  EXPECT_EQ(page.samples.at(R"(ringsock_relay_stun_requests_total{result="answered"})"), 9);
  EXPECT_EQ(page.samples.at(R"(ringsock_relay_stun_requests_total{result="not_stun"})"), 4);
  EXPECT_EQ(page.samples.at("ringsock_relay_certificate_not_after_seconds"), 1'800'000'000);
  EXPECT_EQ(page.samples.at(R"(ringsock_relay_reloads_total{file="certificate",result="refused"})"),
            2);
  EXPECT_EQ(page.samples.at("ringsock_relay_allowed_keys"), 12);
}

TEST(MetricsTest, ProcessNumbersAreOfThisProcess) {
  const ProcessStats stats = ReadProcessStats();
  EXPECT_GT(stats.resident_bytes, 1u << 20);
  EXPECT_GT(stats.start_time, 1.6e9);
  EXPECT_GT(stats.max_fds, 0u);
}

}  // namespace
}  // namespace ringsock::relay
