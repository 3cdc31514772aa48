// The link monitor on a network namespace of its own: which changes it tells, and which it does
// not.
#include "core/link_monitor.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "core/network_state.h"

namespace ringsock {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A test that waits longer has failed.
constexpr auto kPatience = seconds(20);

TEST(SettleTest, WaitsForQuietButNotForEver) {
  Settle settle(milliseconds(250), seconds(1));
  const Instant start(std::chrono::hours(1));
  EXPECT_EQ(settle.deadline(), Instant::max());
  settle.OnEvent(start);
  EXPECT_EQ(settle.deadline(), start + milliseconds(250));
  settle.OnEvent(start + milliseconds(200));
  EXPECT_EQ(settle.deadline(), start + milliseconds(450));
  for (int ms = 400; ms < 1000; ms += 100) settle.OnEvent(start + milliseconds(ms));
  EXPECT_EQ(settle.deadline(), start + seconds(1));
  settle.Reset();
  EXPECT_EQ(settle.deadline(), Instant::max());
}

TEST(NetworkStateTest, DescribesWhatIsDifferent) {
  NetworkState before;
  before.addresses["eth0"] = {IpAddress::V4(10, 0, 0, 7)};
  before.default_routes = {{true, "eth0", IpAddress::V4(10, 0, 0, 1), 0}};
  NetworkState after;
  after.addresses["wlan0"] = {IpAddress::V4(192, 0, 2, 7)};
  EXPECT_EQ(DescribeChange(before, after),
            "eth0: lost 10.0.0.7; wlan0: got 192.0.2.7; "
            "default route 0.0.0.0/0 via 10.0.0.1 on eth0 gone");
  EXPECT_EQ(DescribeChange(before, before), "");
}

TEST(NetworkStateTest, GlobalV6NeedsAnAddressThatLeadsOut) {
  NetworkState state;
  EXPECT_FALSE(state.HasGlobalV6());
  state.addresses["eth0"] = {IpAddress::V4(10, 0, 0, 7), IpAddress::Parse("fd00::7").value()};
  EXPECT_FALSE(state.HasGlobalV6());
  state.default_routes = {{false, "eth0", IpAddress::Parse("fd00::1").value(), 0}};
  EXPECT_TRUE(state.HasGlobalV6());
  state.default_routes.clear();
  state.addresses["eth0"].push_back(IpAddress::Parse("2001:db8::7").value());
  EXPECT_TRUE(state.HasGlobalV6());
}

class LinkMonitorTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "needs root";
    Ip("link set lo up");
    Ip("link add eth0 type veth peer name eth0p");
    Ip("link set eth0p up");
    Ip("link set eth0 up");
    Ip("addr add 10.0.0.7/24 dev eth0");
    Ip("route add default via 10.0.0.1");
    // The kernel notes later, on a thread of its own, that the link has a carrier.
    const Instant end = SystemClock().Now() + kPatience;
    while (!IsThere(ReadNetworkState({}))) {
      ASSERT_LT(SystemClock().Now(), end) << "eth0 does not work";
      std::this_thread::yield();
    }
    Start();
  }
  static bool IsThere(const absl::StatusOr<NetworkState>& state) {
    return state.ok() && state->addresses.contains("eth0") && state->default_routes.size() == 1;
  }

  static void Ip(const std::string& command) {
    ASSERT_EQ(std::system(("ip " + command).c_str()), 0) << command;
  }

  void Start() {
    LinkMonitorOptions options;
    options.ignored = {"wg0"};
    options.quiet = milliseconds(20);
    auto monitor =
        LinkMonitor::Start(options, [this](const NetworkState&, const std::string& what) {
          std::lock_guard lock(mutex_);
          told_.push_back(what);
          changed_.notify_all();
        });
    ASSERT_TRUE(monitor.ok()) << monitor.status().ToString();
    monitor_ = std::move(*monitor);
  }

  // The next change that is told.
  std::string Next() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [this] { return told_.size() > seen_; })) {
      return "nothing";
    }
    return told_[seen_++];
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> told_;
  size_t seen_ = 0;
  std::unique_ptr<LinkMonitor> monitor_;
};

TEST_F(LinkMonitorTest, ReadsTheStateAtStart) {
  const NetworkState state = monitor_->state();
  ASSERT_EQ(state.addresses.size(), 1u);
  EXPECT_EQ(state.addresses.at("eth0"), std::vector{IpAddress::V4(10, 0, 0, 7)});
  ASSERT_EQ(state.default_routes.size(), 1u);
  EXPECT_EQ(state.default_routes[0].gateway, IpAddress::V4(10, 0, 0, 1));
  EXPECT_EQ(state.default_routes[0].interface, "eth0");
  EXPECT_EQ(state.Local().regular, std::vector{IpAddress::V4(10, 0, 0, 7)});
  EXPECT_FALSE(state.loopback.empty());
}

TEST_F(LinkMonitorTest, TellsAddresses) {
  Ip("addr add 10.0.0.8/24 dev eth0");
  EXPECT_EQ(Next(), "eth0: got 10.0.0.8");
  Ip("addr del 10.0.0.8/24 dev eth0");
  EXPECT_EQ(Next(), "eth0: lost 10.0.0.8");
  Ip("addr add 2001:db8::7/64 dev eth0 nodad");
  EXPECT_EQ(Next(), "eth0: got 2001:db8::7");
}

TEST_F(LinkMonitorTest, TellsDefaultRoutes) {
  Ip("route replace default via 10.0.0.2");
  EXPECT_EQ(Next(),
            "default route 0.0.0.0/0 via 10.0.0.1 on eth0 gone; "
            "default route 0.0.0.0/0 via 10.0.0.2 on eth0 added");
  Ip("route del default");
  EXPECT_EQ(Next(), "default route 0.0.0.0/0 via 10.0.0.2 on eth0 gone");
}

TEST_F(LinkMonitorTest, TellsALinkThatGoesDownAndComesBack) {
  Ip("link set eth0 down");
  EXPECT_EQ(Next(), "eth0: lost 10.0.0.7; default route 0.0.0.0/0 via 10.0.0.1 on eth0 gone");
  EXPECT_TRUE(monitor_->state().addresses.empty());
  Ip("link set eth0 up");
  EXPECT_EQ(Next(), "eth0: got 10.0.0.7");
}

// Noise: what no path depends on. The address at the end is what ends the wait.
TEST_F(LinkMonitorTest, KeepsQuietAboutTheRest) {
  Ip("link add veth0 type veth peer name veth1");
  Ip("link set veth0 up");
  Ip("route add 192.0.2.0/24 via 10.0.0.3");
  Ip("link set eth0 mtu 1400");
  Ip("link add wg0 type veth peer name wg0p");
  Ip("link set wg0p up");
  Ip("link set wg0 up");
  Ip("addr add 10.99.0.1/24 dev wg0");
  Ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:01 dev eth0");
  Ip("addr add 10.0.0.8/24 dev eth0");
  EXPECT_EQ(Next(), "eth0: got 10.0.0.8");
  EXPECT_GT(monitor_->stats().events, 3u);
}

// What comes and goes within the time to settle never was. One process makes all the events: the
// start of one for each may take a busy machine longer than that time.
TEST_F(LinkMonitorTest, AFloodOfEventsIsOneChange) {
  Ip("-batch - <<END\n$(for i in $(seq 50); do echo addr add 10.0.1.1/24 dev eth0; "
     "echo addr del 10.0.1.1/24 dev eth0; done)\nEND");
  Ip("addr add 10.0.0.8/24 dev eth0");
  std::string all;
  for (std::string what; all.find("10.0.0.8") == std::string::npos; all += what + "\n") {
    what = Next();
    ASSERT_NE(what, "nothing") << all;
  }
  const LinkMonitorStats stats = monitor_->stats();
  EXPECT_GE(stats.events, 101u);
  EXPECT_LT(stats.changes + stats.noise, 101u) << all;
}

TEST_F(LinkMonitorTest, StopsAtOnce) {
  Ip("addr add 10.0.0.8/24 dev eth0");
  monitor_.reset();  // with an event under way or not: it returns, and nothing is told afterwards
  const size_t told = told_.size();
  Ip("addr add 10.0.0.9/24 dev eth0");
  EXPECT_EQ(told_.size(), told);
}

}  // namespace
}  // namespace ringsock
