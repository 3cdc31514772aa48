// An engine in a network namespace whose network changes under it, by a real kernel: addresses,
// default routes, a link that goes down and comes back; and a router that maps its port.
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "core/engine.h"
#include "core/network_state.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_router.h"

namespace ringsock {
namespace {

constexpr uint16_t kPort = 41641;

void Shell(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

// A thread in a network namespace of its own, on the far side of our link: 10.0.0.1 and 10.0.0.2,
// which are routers to us, and 192.0.2.9, where the peer is.
class FarSide {
 public:
  FarSide()
      : thread_([this] {
          if (unshare(CLONE_NEWNET) == 0) tid_.set_value(static_cast<pid_t>(syscall(SYS_gettid)));
          for (std::function<void()> task; (task = Next());) task();
        }) {}
  ~FarSide() {
    Do(nullptr);
    thread_.join();
  }
  // What `ip link set ... netns` takes.
  pid_t id() { return tid_.get_future().get(); }
  // Runs it there; sockets stay there.
  void Do(std::function<void()> task) {
    if (task == nullptr) return Push(nullptr);
    const auto done = std::make_shared<std::promise<void>>();
    Push([&task, done] {
      task();
      done->set_value();
    });
    done->get_future().wait();
  }

 private:
  void Push(std::function<void()> task) {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    more_.notify_one();
  }
  std::function<void()> Next() {
    std::unique_lock lock(mutex_);
    more_.wait(lock, [this] { return !tasks_.empty(); });
    std::function<void()> task = std::move(tasks_.front());
    tasks_.erase(tasks_.begin());
    return task;
  }

  std::mutex mutex_;
  std::condition_variable more_;
  std::vector<std::function<void()>> tasks_;  // guarded by mutex_
  std::promise<pid_t> tid_;
  std::thread thread_;
};

class EngineNetworkTest : public testing::TestWithParam<io::Backend> {
 protected:
  void SetUp() override {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "needs root";
    options_.io.backend = GetParam();
    if (const auto loop = io::CreateLoop(options_.io); !loop.ok()) {
      GTEST_SKIP() << loop.status().ToString();
    }
    Shell("ip link set lo up");
    Shell("ip link add eth0 type veth peer name eth0p");
    Shell(absl::StrCat("ip link set eth0p netns ", far_.id()));
    Shell("ip link set eth0 up");
    Shell("ip addr add 10.0.0.7/24 dev eth0");
    far_.Do([] {
      Shell("ip link set lo up");
      Shell("ip link set eth0p up");
      Shell("ip addr add 10.0.0.1/24 dev eth0p");
      Shell("ip addr add 10.0.0.2/24 dev eth0p");
      Shell("ip addr add 192.0.2.9/32 dev lo");
    });
    Shell("ip route add default via 10.0.0.1");
    // The kernel notes later, on a thread of its own, that the link has a carrier.
    ASSERT_TRUE(WaitUntil([] {
      const auto state = ReadNetworkState({});
      return state.ok() && state->addresses.contains("eth0") && !state->default_routes.empty();
    }));
    far_.Do([this] { remote_ = std::make_unique<Remote>(); });
    options_.port = kPort;
    options_.shards = 2;
    options_.pin_threads = false;
    options_.ipv6 = false;
  }
  void TearDown() override {
    sender_.reset();
    if (engine_ != nullptr) engine_->Close();
    far_.Do([this] { remote_.reset(); });
  }

  void Start() {
    auto started = Engine::Start(options_, &handler_);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    engine_ = *std::move(started);
    const auto id = engine_->CreateEndpoint(KeyNumber(1), "192.0.2.9:7");
    ASSERT_TRUE(id.ok());
    id_ = *id;
    sender_ = *engine_->NewSender();
  }

  // The peer's socket, at 192.0.2.9:7.
  struct Remote {
    Remote() {
      sockaddr_storage address{};
      const socklen_t length = Endpoint::Parse("192.0.2.9:7")->ToSockaddr(&address);
      fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0) << strerror(errno);
    }
    ~Remote() { close(fd); }
    // Where the next datagram is from; none: there is none.
    Endpoint Next() const {
      sockaddr_storage from{};
      socklen_t size = sizeof from;
      char byte;
      if (recvfrom(fd, &byte, 1, MSG_TRUNC, reinterpret_cast<sockaddr*>(&from), &size) < 0) {
        return {};
      }
      return Endpoint::FromSockaddr(from);
    }
    int fd = -1;
  };

  // Sends one packet. The sender never sees an error; a ring that is full, because the shard does
  // not get the CPU for as long as it takes to fill it, is none.
  void Send() {
    const SendResult result = sender_->Send(id_, TrainOf(data_));
    ++sent_;
    EXPECT_TRUE(result == SendResult::kOk || result == SendResult::kQueueFull)
        << static_cast<int>(result);
    sender_->Flush();
    std::this_thread::yield();
  }
  // Until nothing waits to be sent: what is sent while the network changes fails.
  void ExpectAllSent() {
    EXPECT_TRUE(WaitUntil([&] {
      const CounterSnapshot counters = engine_->Counters();
      uint64_t ends = counters.paths[static_cast<size_t>(PathKind::kDirectV4)].tx_packets;
      for (const uint64_t drop : counters.drops) ends += drop;
      return ends >= sent_;
    })) << "of "
        << sent_ << "; " << engine_->Counters().ToString();
  }
  // Sends until the peer gets something from there.
  void ExpectReached(const std::string& from) {
    while (!remote_->Next().IsNone()) continue;
    Endpoint got;
    EXPECT_TRUE(WaitUntil([&] {
      Send();
      got = remote_->Next();
      return got.ToString() == from;
    })) << "got "
        << got.ToString() << "; " << engine_->Counters().ToString();
    ExpectAllSent();
  }
  // Until our own endpoints have one, or do not have it (any more).
  void ExpectEndpoint(const OwnEndpoint& endpoint, bool there = true) {
    EXPECT_TRUE(WaitUntil([&] {
      const std::vector<OwnEndpoint> all = engine_->Status().endpoints;
      return (std::find(all.begin(), all.end(), endpoint) != all.end()) == there;
    })) << ToString(engine_->Status().endpoints);
  }
  void ExpectChanges(uint64_t count) {
    EXPECT_TRUE(WaitUntil([&] { return engine_->Status().link_changes >= count; }))
        << engine_->Status().link_changes;
  }

  // A router that did not get the CPU in time is asked again in two minutes, or in a new network.
  void ExpectMapping(const std::string& mapping) {
    Instant next = SystemClock().Now() + kPatience / 4;
    EXPECT_TRUE(WaitUntil([&] {
      if (engine_->Status().port_mapping == mapping) return true;
      if (SystemClock().Now() >= next) {
        engine_->LinkChanged("the router was too slow");
        next += kPatience / 4;
      }
      return false;
    })) << engine_->Status().port_mapping;
  }

  EngineOptions options_;
  KeepingHandler handler_;
  FarSide far_;
  std::unique_ptr<Remote> remote_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Sender> sender_;
  PeerId id_ = PeerId::kNone;
  const std::string data_ = Message(4, "data");
  uint64_t sent_ = 0;  // packets
};

TEST_P(EngineNetworkTest, AnotherAddressAndAnotherRoute) {
  Start();
  ASSERT_NE(engine_, nullptr);
  ExpectReached("10.0.0.7:41641");
  engine_->ConfirmPath(id_, *Endpoint::Parse("192.0.2.9:7"));
  EXPECT_FALSE(engine_->Status().peers[0].current.IsNone());
  EXPECT_EQ(engine_->Status().link_changes, 0u);
  // spec: PATH-6
  Shell("ip addr add 10.0.0.8/24 dev eth0");
  ExpectChanges(1);
  EXPECT_TRUE(engine_->Status().peers[0].current.IsNone());
  Shell("ip addr del 10.0.0.7/24 dev eth0");  // the routes go with it, as it was the primary one
  Shell("ip addr replace 10.0.0.8/24 dev eth0");
  Shell("ip route replace default via 10.0.0.1");
  ExpectChanges(2);
  ExpectReached("10.0.0.8:41641");
  ExpectEndpoint({*Endpoint::Parse("10.0.0.8:41641"), EndpointSource::kLocal});
  ExpectEndpoint({*Endpoint::Parse("10.0.0.7:41641"), EndpointSource::kLocal}, false);
  const uint64_t changes = engine_->Status().link_changes;
  Shell("ip route replace default via 10.0.0.2");
  ExpectChanges(changes + 1);
  ExpectReached("10.0.0.8:41641");
  EXPECT_EQ(engine_->port(), kPort);
  EXPECT_EQ(engine_->Status().rebinds, 0u) << "the sockets were well all the time";
}

TEST_P(EngineNetworkTest, ALinkThatGoesDownAndComesBack) {
  Start();
  ASSERT_NE(engine_, nullptr);
  ExpectReached("10.0.0.7:41641");
  Shell("ip link set eth0 down");
  ExpectChanges(1);
  // Sends fail for as long as it takes to think that the sockets are dead; new ones do not help.
  EXPECT_TRUE(WaitUntil([&] {
    Send();
    return engine_->Status().rebinds > 0;
  }));
  EXPECT_GT(engine_->Counters().drops[static_cast<size_t>(Drop::kTxUnreachable)], 0u);
  const uint64_t changes = engine_->Status().link_changes;
  Shell("ip link set eth0 up");
  Shell("ip route replace default via 10.0.0.1");
  ExpectReached("10.0.0.7:41641");
  ExpectChanges(changes + 1);
  EXPECT_EQ(engine_->port(), kPort);
}

TEST_P(EngineNetworkTest, TheAddressItIsBoundToComesBack) {
  options_.bind_v4 = IpAddress::V4(10, 0, 0, 8);
  Shell("ip addr add 10.0.0.8/32 dev eth0");
  Start();
  ASSERT_NE(engine_, nullptr);
  ExpectReached("10.0.0.8:41641");
  Shell("ip addr del 10.0.0.8/32 dev eth0");
  ExpectChanges(1);
  Shell("ip addr add 10.0.0.8/32 dev eth0");
  EXPECT_TRUE(WaitUntil([&] { return engine_->Status().rebinds > 0; }));
  EXPECT_EQ(engine_->Status().last_rebind,
            "rebind (its address is back): 0 packets in old sockets lost");
  ExpectReached("10.0.0.8:41641");
}

TEST_P(EngineNetworkTest, IgnoredInterfacesChangeNothing) {
  options_.network.ignored_interfaces = {"wg0"};
  Start();
  ASSERT_NE(engine_, nullptr);
  Shell("ip link add wg0 type veth peer name wg0p");
  Shell("ip link set wg0p up");
  Shell("ip link set wg0 up");
  Shell("ip addr add 10.99.0.1/24 dev wg0");
  Shell("ip addr add 10.0.0.9/24 dev eth0");
  ExpectChanges(1);
  EXPECT_EQ(engine_->Status().link_changes, 1u);
}

TEST_P(EngineNetworkTest, TheRouterMapsThePortOfEachNetwork) {
  std::unique_ptr<FakeRouter> router;
  far_.Do([&] {
    router =
        std::make_unique<FakeRouter>(FakeRouter::Options{.upnp = false, .address = "10.0.0.1"});
  });
  options_.network.port_mapping = true;
  Start();
  ASSERT_NE(engine_, nullptr);
  const std::string mapped = "198.51.100.9:41641 (NAT-PMP)";
  ExpectMapping(mapped);
  EXPECT_EQ(router->mappings().size(), 1u);
  const OwnEndpoint external{*Endpoint::Parse("198.51.100.9:41641"), EndpointSource::kPortMapping};
  ExpectEndpoint(external);
  // One that speaks neither, and back.
  Shell("ip route replace default via 10.0.0.2");
  EXPECT_TRUE(WaitUntil([&] { return engine_->Status().port_mapping != mapped; }));
  ExpectEndpoint(external, false);
  const uint64_t changes = engine_->Status().link_changes;
  Shell("ip route replace default via 10.0.0.1");
  ExpectChanges(changes + 1);
  ExpectMapping(mapped);
  engine_->Close();
  EXPECT_TRUE(WaitUntil([&] { return router->mappings().empty(); })) << "it was not taken back";
  far_.Do([&] { router.reset(); });
}

INSTANTIATE_TEST_SUITE_P(All, EngineNetworkTest,
                         testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                         [](const testing::TestParamInfo<io::Backend>& info) {
                           return info.param == io::Backend::kUring ? "Uring" : "Mmsg";
                         });

}  // namespace
}  // namespace ringsock
