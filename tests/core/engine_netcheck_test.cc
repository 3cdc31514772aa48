// Netchecks of engines on real loops and sockets, with STUN servers on loopback: answers come to
// whatever shard the kernel chooses.
#include <atomic>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/engine.h"
#include "gtest/gtest.h"
#include "stun/server.h"
#include "tests/core/engine_param_test.h"

namespace ringsock {
namespace {

// Servers with a port of their own each, on one thread.
class StunServers {
 public:
  StunServers(size_t count, bool v6) : loop_(io::CreateLoop({}).value()) {
    const IpAddress ip = v6 ? *IpAddress::Parse("::1") : IpAddress::V4(127, 0, 0, 1);
    for (size_t i = 0; i < count; ++i) {
      servers_.push_back(std::make_unique<stun::Server>(loop_.get(), stun::Dialect::kReference));
      EXPECT_TRUE(servers_.back()->Open({ip, 0, 0}).ok());
      endpoints_.push_back(servers_.back()->endpoints().at(0));
    }
    thread_ = std::thread([this] {
      while (!stop_.load()) loop_->Poll(Instant::max());
      servers_.clear();
    });
  }
  ~StunServers() {
    stop_.store(true);
    loop_->Wake();
    thread_.join();
  }

  // One region for each. Nobody serves DERP there.
  derp::RelayMap Map() const {
    derp::RelayMap map;
    for (size_t i = 0; i < endpoints_.size(); ++i) {
      const auto id = static_cast<RegionId>(i + 1);
      derp::RelayRegion& region = map.regions[id];
      region.region_id = id;
      region.region_code = absl::StrCat("r", id);
      derp::RelayNode node;
      node.name = absl::StrCat(id, "a");
      node.region_id = id;
      node.host_name = "stun.invalid";
      const bool v4 = endpoints_[i].IsV4();
      node.ipv4 = v4 ? endpoints_[i].ip.ToString() : "none";
      node.ipv6 = v4 ? "none" : endpoints_[i].ip.ToString();
      node.stun_port = endpoints_[i].port;
      region.nodes.push_back(node);
    }
    return map;
  }

 private:
  const std::unique_ptr<io::Loop> loop_;
  std::vector<std::unique_ptr<stun::Server>> servers_;
  std::vector<Endpoint> endpoints_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class NetworkNews final : public NetworkObserver {
 public:
  void OnEndpoints(std::span<const OwnEndpoint> list) override {
    std::lock_guard lock(mutex_);
    endpoints_.assign(list.begin(), list.end());
    if (engine_ == nullptr) return;
    // An observer may ask, on the control thread's time; what it must not do is ignored.
    EXPECT_EQ(engine_->Status().endpoints, endpoints_);
    EXPECT_TRUE(engine_->UpdatePeers({}).ok());
    engine_->Close();
    ++asked_;
  }
  void Use(Engine* engine) {
    std::lock_guard lock(mutex_);
    engine_ = engine;
  }
  std::vector<OwnEndpoint> endpoints() {
    std::lock_guard lock(mutex_);
    return endpoints_;
  }
  int asked() {
    std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  std::mutex mutex_;
  std::vector<OwnEndpoint> endpoints_;
  Engine* engine_ = nullptr;
  int asked_ = 0;
};

class EngineNetcheckTest : public EngineTest {
 protected:
  void TearDown() override { engine_.reset(); }  // it calls the observer until then
  // Bound to loopback, so that it is the address there is.
  EngineOptions Loopback(uint32_t shards) const {
    EngineOptions options = Options(shards);
    (v6() ? options.ipv4 : options.ipv6) = false;
    options.bind_v4 = IpAddress::V4(127, 0, 0, 1);
    options.bind_v6 = *IpAddress::Parse("::1");
    return options;
  }
  bool StartObserved(const EngineOptions& options) {
    if (!StartEngine(options)) return false;  // finds out whether it can
    engine_ = *Engine::Start(options, &handler_, &news_);
    return true;
  }

  NetworkNews news_;
};

// spec: NC-1. One shard asks; with 16 servers it would take luck of 1 in 4^16 for no answer to come
// to another one.
TEST_P(EngineNetcheckTest, AnswersComeToAnyShard) {
  constexpr size_t kServers = 16;
  StunServers servers(kServers, v6());
  EngineStatus status;
  const auto in_time = [&] {
    return status.last_report->latency.size() == kServers &&
           (v6() || status.last_report->hairpin == stun::Answer::kYes);
  };
  // Answers have two seconds, that of the hairpin half a second, which is little on a busy machine.
  for (int tries = 0; tries == 0 || (tries < 5 && !in_time()); ++tries) {
    if (!StartObserved(Loopback(4))) GTEST_SKIP() << reason_;
    ASSERT_TRUE(engine_->SetRelayMap(servers.Map()).ok());
    ASSERT_TRUE(WaitUntil([&] {
      status = engine_->Status();
      return status.last_report.has_value();
    }));
  }
  EXPECT_EQ(status.last_report->latency.size(), kServers);
  EXPECT_EQ(status.netcheck.malformed + status.netcheck.unknown_id, 0u);
  EXPECT_GE(status.netcheck.answers, kServers);
  EXPECT_EQ(Count(engine_->Counters(), Drop::kRxStun), 0u);
  ASSERT_TRUE(WaitUntil([&] {
    const auto list = news_.endpoints();
    return !list.empty() && list[0].source == EndpointSource::kStun &&
           list[0].endpoint.port == engine_->port();
  }));
  EXPECT_EQ(news_.endpoints().size(), 1u);
  if (!v6()) {
    EXPECT_EQ(status.last_report->mapping_varies, stun::Answer::kNo);
    EXPECT_EQ(status.last_report->hairpin, stun::Answer::kYes);
  }
  // The engine ends in the middle of the next one.
  engine_->ReStun("test");
  engine_->Close();
  EXPECT_EQ(handler_.size(), 0u);
}

TEST_P(EngineNetcheckTest, ObserversMayAskTheEngine) {
  if (!StartObserved(Loopback(2))) GTEST_SKIP() << reason_;
  ASSERT_TRUE(WaitUntil([&] { return !news_.endpoints().empty(); }));
  news_.Use(engine_.get());
  // Asks at the same time; neither may wait for the other.
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) EXPECT_EQ(engine_->Status().shards, 2u);
  });
  StunServers servers(2, v6());
  EXPECT_TRUE(engine_->SetRelayMap(servers.Map()).ok());
  EXPECT_TRUE(WaitUntil([&] {
    if (engine_->Status().last_report.has_value()) engine_->ReStun("no answer in time");
    return news_.asked() > 0;
  }));
  done = true;
  other.join();
  // It did not close.
  EXPECT_TRUE(engine_->CreateEndpoint(KeyNumber(1), "").ok());
  engine_->Close();
}

// Handlers may ask, too.
TEST_P(EngineNetcheckTest, ReStunFromAHandler) {
  handler_.reaction = [this](Shard&, const ReceivedTrain&) { engine_->ReStun("handler"); };
  if (!StartObserved(Loopback(1))) GTEST_SKIP() << reason_;
  StunServers servers(1, v6());
  ASSERT_TRUE(engine_->SetRelayMap(servers.Map()).ok());
  const auto started = [&] {
    const auto report = engine_->Status().last_report;
    return report.has_value() ? report->started : Instant{};
  };
  ASSERT_TRUE(WaitUntil([&] { return started() != Instant{}; }));
  const Instant first = started();
  remote_.Send(engine_->port(), Message(4, "x"));
  EXPECT_TRUE(WaitUntil([&] { return started() != first; }));
}

INSTANTIATE_TEST_SUITE_P(All, EngineNetcheckTest,
                         testing::Combine(testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                                          testing::Bool()),
                         EngineParamName);

}  // namespace
}  // namespace ringsock
