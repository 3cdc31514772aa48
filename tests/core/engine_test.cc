// The engine on loopback, on both real backends and both families.
#include "core/engine.h"

#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {
namespace {

using Param = std::tuple<io::Backend, bool>;  // backend, IPv6

class EngineTest : public testing::TestWithParam<Param> {
 protected:
  bool v6() const { return std::get<1>(GetParam()); }

  EngineOptions Options(uint32_t shards = 1) const {
    EngineOptions options;
    options.shards = shards;
    options.pin_threads = false;
    options.io.backend = std::get<0>(GetParam());
    return options;
  }

  // False, with the test skipped, where this backend or family is not to be had.
  bool StartEngine(const EngineOptions& options) {
    if (!remote_.ok()) return false;
    absl::StatusOr<std::unique_ptr<io::Loop>> probe = io::CreateLoop(options.io);
    if (!probe.ok()) {
      reason_ = probe.status().ToString();
      return false;
    }
    auto engine = Engine::Start(options, &handler_);
    EXPECT_TRUE(engine.ok()) << engine.status().ToString();
    if (!engine.ok()) return false;
    engine_ = *std::move(engine);
    return true;
  }

  PeerId AddPeer(uint32_t number, const std::string& endpoints) {
    absl::StatusOr<PeerId> id = engine_->CreateEndpoint(KeyNumber(number), endpoints);
    EXPECT_TRUE(id.ok()) << id.status().ToString();
    return id.value_or(PeerId::kNone);
  }

  KeepingHandler handler_;
  RemoteHost remote_{v6()};
  std::unique_ptr<Engine> engine_;
  std::string reason_ = "no such address family here";
};

#define START_OR_SKIP(options) \
  if (!StartEngine(options)) GTEST_SKIP() << reason_

TEST_P(EngineTest, EchoesToAPeer) {
  handler_.reaction = [](Shard& shard, const ReceivedTrain& train) {
    EXPECT_EQ(shard.Send(train.peer, train.packets), SendResult::kOk);
  };
  START_OR_SKIP(Options());
  const PeerId peer = AddPeer(1, remote_.text());
  remote_.Send(engine_->port(), Message(4, "ping"));
  EXPECT_EQ(remote_.Receive(), Message(4, "ping"));
  const auto packets = handler_.WaitFor(1);
  EXPECT_EQ(packets[0].peer, peer);  // spec: RECV-2
  EXPECT_EQ(packets[0].from, remote_.endpoint());
  EXPECT_EQ(packets[0].path, v6() ? PathKind::kDirectV6 : PathKind::kDirectV4);
}

std::string ParamName(const testing::TestParamInfo<Param>& info) {
  return absl::StrCat(std::get<0>(info.param) == io::Backend::kUring ? "Uring" : "Mmsg",
                      std::get<1>(info.param) ? "V6" : "V4");
}

INSTANTIATE_TEST_SUITE_P(All, EngineTest,
                         testing::Combine(testing::Values(io::Backend::kMmsg, io::Backend::kUring),
                                          testing::Bool()),
                         ParamName);

}  // namespace
}  // namespace ringsock
