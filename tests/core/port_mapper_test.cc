// Port mapping: the mapper with fake protocols, and the real ones against a fake router in a
// network namespace of its own.
#include "core/port_mapper.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "tests/core/fake_router.h"

namespace ringsock {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A test that waits longer has failed.
constexpr auto kPatience = seconds(20);
const IpAddress kGateway = IpAddress::V4(127, 0, 0, 1);

// What a mapper tells, one after the other.
class Told {
 public:
  PortMapper::Callback callback() {
    return [this](const Endpoint& external) {
      std::lock_guard lock(mutex_);
      told_.push_back(external.IsNone() ? "none" : external.ToString());
      changed_.notify_all();
    };
  }
  std::string Next() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [this] { return !told_.empty(); })) return "nothing";
    std::string first = told_.front();
    told_.pop_front();
    return first;
  }
  bool empty() {
    std::lock_guard lock(mutex_);
    return told_.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> told_;
};

// Gives what a script says, and counts.
struct Script {
  std::mutex mutex;
  std::condition_variable asked_more;
  int asked = 0;  // guarded by mutex, like all of it
  int unmapped = 0;
  bool works = true;
  bool wait_once = false;  // the next request fails when it is interrupted, not before
  uint16_t unmapped_port = 0;
  Duration lifetime = hours(2);
  PortMappingRequest last;

  void WaitAsked(int count) {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(asked_more.wait_for(lock, kPatience, [&] { return asked >= count; }));
  }
};

class ScriptedProtocol final : public PortMappingProtocol {
 public:
  explicit ScriptedProtocol(Script* script) : script_(*script) {}
  absl::StatusOr<PortMapping> Map(const PortMappingRequest& request) override {
    std::unique_lock lock(script_.mutex);
    ++script_.asked;
    script_.last = request;
    script_.asked_more.notify_all();
    if (std::exchange(script_.wait_once, false)) {
      lock.unlock();
      pollfd interrupt{request.interrupt, POLLIN, 0};
      poll(&interrupt, 1, static_cast<int>(milliseconds(kPatience).count()));
      return absl::UnavailableError("scripted: interrupted");
    }
    if (!script_.works) return absl::UnavailableError("scripted: no");
    return PortMapping{
        {IpAddress::V4(198, 51, 100, 9), request.external}, script_.lifetime, "test"};
  }
  void Unmap(const PortMappingRequest& request) override {
    std::lock_guard lock(script_.mutex);
    ++script_.unmapped;
    script_.unmapped_port = request.port;
  }

 private:
  Script& script_;
};

std::unique_ptr<PortMapper> StartMapper(const PortMapperOptions& options, Told* told,
                                        std::vector<Script*> scripts) {
  std::vector<std::unique_ptr<PortMappingProtocol>> protocols;
  for (Script* script : scripts) protocols.push_back(std::make_unique<ScriptedProtocol>(script));
  return PortMapper::Start(options, std::move(protocols), told->callback()).value();
}

TEST(PortMapperTest, AsksWhenThereIsAGatewayAndGivesBack) {
  Script script;
  Told told;
  auto mapper = StartMapper({.port = 41641}, &told, {&script});
  EXPECT_TRUE(told.empty());
  mapper->SetGateway(kGateway, 41641);
  EXPECT_EQ(told.Next(), "198.51.100.9:41641");
  EXPECT_EQ(mapper->status().protocol, "test");
  EXPECT_EQ(script.unmapped, 0);
  mapper.reset();
  EXPECT_EQ(script.unmapped, 1);
}

TEST(PortMapperTest, TheSecondProtocolIsAskedWhenTheFirstFails) {
  Script first, second;
  first.works = false;
  Told told;
  auto mapper = StartMapper({.port = 7}, &told, {&first, &second});
  mapper->SetGateway(kGateway, 7);
  EXPECT_EQ(told.Next(), "198.51.100.9:7");
  // What worked comes first from then on.
  mapper->SetGateway(IpAddress::V4(127, 0, 0, 2), 7);
  EXPECT_EQ(told.Next(), "none");
  EXPECT_EQ(told.Next(), "198.51.100.9:7");
  EXPECT_EQ(first.asked, 1);
  EXPECT_EQ(second.asked, 2);
}

TEST(PortMapperTest, TriesAgainWhenNobodyAnswered) {
  Script script;
  script.works = false;
  Told told;
  auto mapper = StartMapper({.port = 7, .retry = milliseconds(1)}, &told, {&script});
  mapper->SetGateway(kGateway, 7);
  script.WaitAsked(3);
  EXPECT_NE(mapper->status().last_error.find("scripted: no"), std::string::npos);
  {
    std::lock_guard lock(script.mutex);
    script.works = true;
  }
  EXPECT_EQ(told.Next(), "198.51.100.9:7");
  EXPECT_GE(mapper->status().failures, 3u);
  EXPECT_EQ(mapper->status().last_error, "");
}

TEST(PortMapperTest, AnotherPortOrNoRouteMakesItVoid) {
  Script script;
  Told told;
  auto mapper = StartMapper({.port = 7}, &told, {&script});
  mapper->SetGateway(kGateway, 7);
  EXPECT_EQ(told.Next(), "198.51.100.9:7");
  mapper->SetGateway(kGateway, 8);  // a rebind
  EXPECT_EQ(told.Next(), "none");
  EXPECT_EQ(told.Next(), "198.51.100.9:8");
  EXPECT_EQ(script.unmapped, 1) << "the router is still there, and had the old one";
  EXPECT_EQ(script.unmapped_port, 7);
  mapper->SetGateway(IpAddress::AnyV4(), 8);
  EXPECT_EQ(told.Next(), "none");
  mapper.reset();
  EXPECT_EQ(script.unmapped, 1) << "there is no router to tell";
}

TEST(PortMapperTest, AnOrderInTheMiddleIsNotKeptWaitingByTheOtherProtocols) {
  Script first, second;
  first.wait_once = true;
  Told told;
  auto mapper = StartMapper({.port = 7}, &told, {&first, &second});
  mapper->SetGateway(kGateway, 7);
  first.WaitAsked(1);
  mapper->SetGateway(IpAddress::V4(127, 0, 0, 2), 7);
  EXPECT_EQ(told.Next(), "198.51.100.9:7");
  {
    std::lock_guard lock(first.mutex);
    EXPECT_EQ(first.last.gateway, IpAddress::V4(127, 0, 0, 2));
    first.wait_once = true;
  }
  EXPECT_EQ(second.asked, 0);
  // The same for the end.
  mapper->SetGateway(kGateway, 7);
  first.WaitAsked(3);
  mapper.reset();
  EXPECT_EQ(second.asked, 0);
}

TEST(PortMapperTest, AMappingThatCannotBeRenewedIsGoodUntilItsTimeIsOver) {
  Script script;
  script.lifetime = seconds(2);
  Told told;
  auto mapper = StartMapper({.port = 7, .retry = milliseconds(1), .min_renewal = milliseconds(1)},
                            &told, {&script});
  mapper->SetGateway(kGateway, 7);
  EXPECT_EQ(told.Next(), "198.51.100.9:7");
  // A mapper that does not get the CPU in the second half of that time has no time to try.
  int tries = 0;
  for (int round = 0; round < 5 && tries <= 3; ++round) {
    int before = 0;
    {
      std::lock_guard lock(script.mutex);
      script.works = false;
      before = script.asked;
    }
    EXPECT_EQ(told.Next(), "none");
    {
      std::lock_guard lock(script.mutex);
      tries = script.asked - before;
      script.works = true;
    }
    EXPECT_EQ(told.Next(), "198.51.100.9:7");
  }
  EXPECT_GT(tries, 3) << "it was tried while the mapping was good";
  EXPECT_EQ(mapper->status().last_error, "");
}

TEST(PortMapperTest, AMappingThatIsRenewedIsNoNews) {
  Script script;
  script.lifetime = milliseconds(200);
  Told told;
  auto mapper = StartMapper({.port = 7, .min_renewal = milliseconds(1)}, &told, {&script});
  mapper->SetGateway(kGateway, 7);
  EXPECT_EQ(told.Next(), "198.51.100.9:7");
  {
    std::lock_guard lock(script.mutex);
    script.lifetime = hours(1);
  }
  script.WaitAsked(2);
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(mapper->status().external.ToString(), "198.51.100.9:7");
}

// ---- the real protocols ----

class PortMappingTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "needs root";
    for (const char* command :
         {"link set lo up", "link add eth0 type veth peer name eth0p", "link set eth0p up",
          "link set eth0 up", "addr add 10.0.0.1/24 dev eth0",
          "route add 239.0.0.0/8 dev eth0 src 10.0.0.1"}) {
      ASSERT_EQ(std::system((std::string("ip ") + command).c_str()), 0) << command;
    }
    request_.gateway = kGateway;
    request_.port = 41641;
    request_.external = 41641;
    request_.lifetime = hours(2);
  }

  // A router that does not get the CPU is asked again; what it says itself is an answer.
  absl::StatusOr<PortMapping> Map(PortMappingProtocol& protocol) {
    const Instant end = SystemClock().Now() + kPatience;
    for (;;) {
      auto mapping = protocol.Map(request_);
      if (mapping.ok() || SystemClock().Now() >= end) return mapping;
      const absl::string_view why = mapping.status().message();
      if (why != "NAT-PMP: no answer" && !absl::StartsWith(why, "UPnP:")) return mapping;
    }
  }

  PortMappingRequest request_;
};

TEST_F(PortMappingTest, NatPmpMapsRenewsAndUnmaps) {
  FakeRouter router({});
  auto natpmp = NewNatPmp();
  for (int i = 0; i < 2; ++i) {
    const auto mapping = Map(*natpmp);
    ASSERT_TRUE(mapping.ok()) << mapping.status();
    EXPECT_EQ(mapping->external.ToString(), "198.51.100.9:41641");
    EXPECT_EQ(mapping->lifetime, seconds(7200));
  }
  EXPECT_EQ(router.mappings(), (std::map<uint16_t, uint16_t>{{41641, 41641}}));
  natpmp->Unmap(request_);
  // The router handles requests in order: the answer to one more says that it is done.
  request_.port = request_.external = 5;
  ASSERT_TRUE(Map(*natpmp).ok());
  EXPECT_EQ(router.mappings(), (std::map<uint16_t, uint16_t>{{5, 5}}));
}

TEST_F(PortMappingTest, NatPmpOutlivesLoss) {
  // The protocol must ask again by itself; that a router did not get the CPU is not its fault.
  const Instant end = SystemClock().Now() + kPatience;
  absl::StatusOr<PortMapping> mapping = absl::UnknownError("");
  while (!mapping.ok() && SystemClock().Now() < end) {
    FakeRouter router({.ignore = 1});
    mapping = NewNatPmp()->Map(request_);
  }
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->external.ToString(), "198.51.100.9:41641");
}

TEST_F(PortMappingTest, NatPmpPassesOverAnswersToOtherRequests) {
  FakeRouter router({.late = true});
  auto natpmp = NewNatPmp();
  for (int i = 0; i < 2; ++i) {
    const auto mapping = Map(*natpmp);
    ASSERT_TRUE(mapping.ok()) << mapping.status();
    EXPECT_EQ(mapping->external.ToString(), "198.51.100.9:41641");
    EXPECT_EQ(mapping->lifetime, seconds(7200));
  }
}

TEST_F(PortMappingTest, NatPmpSaysWhyNot) {
  {
    FakeRouter router({.forge = true});
    const auto mapping = Map(*NewNatPmp());
    EXPECT_EQ(mapping.status().message(), "NAT-PMP: the router speaks another version");
  }
  {
    FakeRouter router({.result = 2});
    const auto mapping = Map(*NewNatPmp());
    EXPECT_EQ(mapping.status().message(), "NAT-PMP: the router refused: it is switched off there");
  }
  FakeRouter router({.nat_pmp = false});
  const auto mapping = Map(*NewNatPmp());
  EXPECT_EQ(mapping.status().message(), "NAT-PMP: the router does not speak it");
}

TEST_F(PortMappingTest, UpnpMapsAndUnmaps) {
  FakeRouter router({.nat_pmp = false});
  auto upnp = NewUpnp();
  const auto mapping = Map(*upnp);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->external.ToString(), "8.9.10.11:41641");
  EXPECT_EQ(router.mappings(), (std::map<uint16_t, uint16_t>{{41641, 41641}}));
  // One whose search finds nothing in time does nothing.
  const Instant end = SystemClock().Now() + kPatience;
  do {
    upnp->Unmap(request_);
  } while (!router.mappings().empty() && SystemClock().Now() < end);
  EXPECT_TRUE(router.mappings().empty());
}

TEST_F(PortMappingTest, UpnpWithAPermanentLeaseAndATakenPort) {
  FakeRouter router({.nat_pmp = false, .permanent_only = true, .taken = 41641});
  const auto mapping = Map(*NewUpnp());
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_NE(mapping->external.port, 41641);
  // Of one that was made twice, because the answer came too late, there may be another.
  EXPECT_EQ(router.mappings()[mapping->external.port], 41641);
  EXPECT_FALSE(router.mappings().contains(41641));
}

TEST_F(PortMappingTest, UpnpWithoutARouter) {
  const auto mapping = NewUpnp()->Map(request_);
  EXPECT_EQ(mapping.status().message(), "UPnP: no router answered");
}

TEST_F(PortMappingTest, TheMapperFallsBackToUpnp) {
  FakeRouter router({.nat_pmp = false});
  std::vector<std::unique_ptr<PortMappingProtocol>> protocols;
  protocols.push_back(NewNatPmp());
  protocols.push_back(NewUpnp());
  Told told;
  auto mapper = PortMapper::Start({.port = 41641, .retry = milliseconds(1)}, std::move(protocols),
                                  told.callback())
                    .value();
  mapper->SetGateway(kGateway, 41641);
  EXPECT_EQ(told.Next(), "8.9.10.11:41641");
}

}  // namespace
}  // namespace ringsock
