// A world for the netcheck: STUN servers with a round trip each, DNS, HTTPS, and a NAT that answers
// as the test wants. Time jumps from event to event.
#ifndef RINGSOCK_TESTS_STUN_NETCHECK_FIXTURE_H_
#define RINGSOCK_TESTS_STUN_NETCHECK_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/random.h"
#include "stun/netcheck.h"

namespace ringsock::stun {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Bytes = std::vector<std::byte>;

inline IpAddress ServerV4(int n) { return IpAddress::V4(198, 51, 100, static_cast<uint8_t>(n)); }
inline IpAddress ServerV6(int n) {
  std::array<uint8_t, 16> bytes{0x20, 0x01, 0x0d, 0xb8};
  bytes[15] = static_cast<uint8_t>(n);
  return IpAddress::V6(bytes);
}
inline Endpoint At(const std::string& text) { return Endpoint::Parse(text).value(); }

inline Bytes ResponseTo(std::span<const std::byte> request, const Endpoint& mapped) {
  TransactionId id{};
  EXPECT_EQ(ParseBindingRequest(request, Dialect::kReference, &id), ParseResult::kOk);
  std::array<std::byte, kResponseSizeV6> out;
  const size_t size = EncodeBindingResponse(id, mapped, out);
  return Bytes(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(size));
}

class NetcheckTest : public testing::Test, public NetcheckEnvironment {
 protected:
  struct Probed {
    Endpoint to;
    Duration at;  // since the start of the report
    Bytes packet;
  };
  struct Server {
    std::optional<Duration> round_trip;  // none: silent
    Endpoint mapped;                     // none: that of the family
  };

  // Regions 1 to `count`, one node each, with addresses of both families.
  static ProbeMap Regions(RegionId count) {
    ProbeMap map;
    for (RegionId id = 1; id <= count; ++id) {
      ProbeNode node{.name = absl::StrCat("n", id), .host_name = absl::StrCat("n", id, ".test")};
      node.v4.ip = ServerV4(id);
      node.v6.ip = ServerV6(id);
      map.push_back({id, false, {node}});
    }
    return map;
  }
  // How a region's server answers, on both families or one.
  void Serve(RegionId id, Duration round_trip) {
    servers[ServerV4(id).ToString()].round_trip = round_trip;
    servers[ServerV6(id).ToString()].round_trip = round_trip;
  }
  Server& ServerOf(const IpAddress& ip) { return servers[ip.ToString()]; }

  // A whole report; its length in `took`.
  Report Run(const NetcheckRequest& request = {.host = {.v4 = true, .v6 = false}}) {
    probes.clear();
    resolves.clear();
    https_asked.clear();
    started = clock.Now();
    const size_t before = reports.size();
    EXPECT_TRUE(netcheck.Start(request, clock.Now()));
    while (netcheck.running()) Step();
    EXPECT_EQ(reports.size(), before + 1);
    took = clock.Now() - started;
    return reports.empty() ? Report{} : reports.back();
  }
  // To the next thing that happens.
  void Step() {
    const Instant deadline = netcheck.NextDeadline();
    const Instant event = events.empty() ? Instant::max() : events.begin()->first;
    ASSERT_NE(std::min(deadline, event), Instant::max()) << "nothing will happen any more";
    ASSERT_GE(std::min(deadline, event), clock.Now());
    clock.Set(std::min(deadline, event));
    if (event <= deadline) {
      const auto action = events.begin()->second;
      events.erase(events.begin());
      action();
    } else {
      netcheck.Advance(clock.Now());
      // Whatever was due is done: no deadline may stay, or a loop would spin.
      ASSERT_GT(netcheck.NextDeadline(), clock.Now());
    }
  }
  void After(Duration delay, std::function<void()> action) {
    events.emplace(clock.Now() + delay, std::move(action));
  }
  // "1@0 2@0 1@100": last byte of the address, milliseconds; v6 as "v6:1@0".
  std::string Sent() const {
    std::string text;
    for (const Probed& probe : probes) {
      absl::StrAppend(&text, text.empty() ? "" : " ",
                      probe.to.IsV4() ? "" : "v6:", static_cast<int>(probe.to.ip.bytes[15]), "@",
                      probe.at / milliseconds(1));
    }
    return text;
  }
  void Receive(const Endpoint& from, const Bytes& packet) {
    netcheck.OnDatagram(from, packet, clock.Now());
  }

  void SendProbe(const Endpoint& to, std::span<const std::byte> packet) override {
    const Bytes bytes(packet.begin(), packet.end());
    probes.push_back({to, clock.Now() - started, bytes});
    EXPECT_EQ(to.port, kDefaultPort);
    const Server& server = servers[to.ip.ToString()];
    if (!server.round_trip.has_value()) return;
    const Endpoint mapped = !server.mapped.IsNone() ? server.mapped : to.IsV4() ? our_v4 : our_v6;
    After(*server.round_trip, [=, this] { Receive(to, ResponseTo(bytes, mapped)); });
  }
  bool SendHairpin(const Endpoint& to, std::span<const std::byte> packet) override {
    hairpins.push_back(to);
    const Bytes bytes(packet.begin(), packet.end());
    if (hairpin_time.has_value()) After(*hairpin_time, [=, this] { Receive(to, bytes); });
    return hairpin_sends;
  }
  void Resolve(const std::string& host_name, Family family) override {
    resolves.push_back(host_name + (family == Family::kV4 ? "/4" : "/6"));
    const auto found = names.find(resolves.back());
    if (found == names.end()) return;
    After(dns_time,
          [=, this] { netcheck.OnResolved(host_name, family, found->second, clock.Now()); });
  }
  void MeasureHttps(RegionId region, const ProbeNode& node) override {
    https_asked.push_back(node.name);
    https_at = clock.Now() - started;
    const auto found = https.find(region);
    if (found == https.end()) return;
    const std::optional<Duration> latency = found->second;
    After(latency.value_or(milliseconds(1)),
          [=, this] { netcheck.OnHttpsLatency(region, latency, clock.Now()); });
  }
  void OnReport(const Report& report) override { reports.push_back(report); }

  ManualClock clock;
  SeededRandom random{20200501};
  Netcheck netcheck{{}, &random, this};
  std::multimap<Instant, std::function<void()>> events;
  Instant started{};
  Duration took{};

  Endpoint our_v4 = At("203.0.113.9:41641");
  Endpoint our_v6 = At("[2001:db8:9::1]:41641");
  std::map<std::string, Server> servers;
  std::optional<Duration> hairpin_time = Duration{};
  bool hairpin_sends = true;
  Duration dns_time = milliseconds(5);
  std::map<std::string, std::vector<IpAddress>> names;  // "host/4"; not there: no answer
  std::map<RegionId, std::optional<Duration>> https;    // not there: no answer

  std::vector<Probed> probes;
  std::vector<Endpoint> hairpins;
  std::vector<std::string> resolves;
  std::vector<std::string> https_asked;
  Duration https_at{};
  std::vector<Report> reports;
};

}  // namespace ringsock::stun

#endif  // RINGSOCK_TESTS_STUN_NETCHECK_FIXTURE_H_
