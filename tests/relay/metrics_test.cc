// The page of metrics: its form (Prometheus text format 0.0.4), and that each counter is on it.
#include "relay/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace ringsock::relay {
namespace {

// A page taken apart: samples by name with labels, and families.
struct Page {
  std::map<std::string, double> samples;
  std::map<std::string, std::string> types;
  std::set<std::string> helps;
};

bool IsName(absl::string_view text) {
  return !text.empty() && !absl::ascii_isdigit(static_cast<unsigned char>(text[0])) &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return c == '_' || absl::ascii_isalnum(static_cast<unsigned char>(c));
         });
}

// {name="value",name="value"}; the values here never need escapes.
bool AreLabels(absl::string_view text) {
  if (!absl::ConsumePrefix(&text, "{") || !absl::ConsumeSuffix(&text, "}")) return false;
  for (const absl::string_view label : absl::StrSplit(text, ',')) {
    const size_t equals = label.find("=\"");
    if (equals == absl::string_view::npos || !IsName(label.substr(0, equals))) return false;
    const absl::string_view value = label.substr(equals + 2);
    if (value.find_first_of("\"\\") != value.size() - 1) return false;
  }
  return true;
}

// A sample: name, labels if it has some, a space, a number.
bool ReadSample(absl::string_view line, Page* page) {
  const size_t space = line.rfind(' ');
  double value = 0;
  if (space == absl::string_view::npos || !absl::SimpleAtod(line.substr(space + 1), &value)) {
    return false;
  }
  const absl::string_view whole = line.substr(0, space);
  const size_t brace = whole.find('{');
  const absl::string_view name = whole.substr(0, brace);
  if (brace != absl::string_view::npos && !AreLabels(whole.substr(brace))) return false;
  EXPECT_TRUE(page->types.count(std::string(name))) << "sample without type: " << line;
  EXPECT_TRUE(page->samples.emplace(std::string(whole), value).second) << "twice: " << line;
  return IsName(name);
}

// Fails on what the format does not allow.
Page Read(const std::string& text) {
  Page page;
  EXPECT_EQ(text.back(), '\n');
  for (const absl::string_view line : absl::StrSplit(absl::StripSuffix(text, "\n"), '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::MaxSplits(' ', 3));
    if (words[0] != "#") {
      EXPECT_TRUE(ReadSample(line, &page)) << "no line of the format: " << line;
      continue;
    }
    if (words.size() != 4 || !IsName(words[2])) {
      ADD_FAILURE() << "no line of the format: " << line;
    } else if (words[1] == "HELP") {
      EXPECT_TRUE(page.helps.insert(words[2]).second) << "family twice: " << line;
    } else {
      EXPECT_EQ(words[1], "TYPE") << line;
      EXPECT_TRUE(words[3] == "counter" || words[3] == "gauge") << line;
      EXPECT_TRUE(page.types.emplace(words[2], words[3]).second) << line;
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
