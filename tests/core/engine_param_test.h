// The parameterised fixture of engine_test.cc and engine_lifecycle_test.cc: an engine on loopback,
// on both real backends and both families.
#ifndef RINGSOCK_TESTS_CORE_ENGINE_PARAM_TEST_H_
#define RINGSOCK_TESTS_CORE_ENGINE_PARAM_TEST_H_

#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "core/engine.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"

namespace ringsock {

using EngineParam = std::tuple<io::Backend, bool>;  // backend, IPv6

class EngineTest : public testing::TestWithParam<EngineParam> {
 protected:
  bool v6() const { return std::get<1>(GetParam()); }

  EngineOptions Options(uint32_t shards = 1) const {
    EngineOptions options;
    options.shards = shards;
    options.pin_threads = false;
    // What happens to the network of the host that the test runs on has paths looked for anew.
    options.network.watch_links = false;
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

  PeerStatus Status(PeerId id) const {
    for (const PeerStatus& peer : engine_->Status().peers) {
      if (peer.id == id) return peer;
    }
    ADD_FAILURE() << "no such peer";
    return {};
  }

  static uint64_t Count(const CounterSnapshot& counters, Drop drop) {
    return counters.drops[static_cast<size_t>(drop)];
  }

  KeepingHandler handler_;
  RemoteHost remote_{v6()};
  std::unique_ptr<Engine> engine_;
  std::string reason_ = "no such address family here";
};

#define START_OR_SKIP(options) \
  if (!StartEngine(options)) GTEST_SKIP() << reason_

inline std::string EngineParamName(const testing::TestParamInfo<EngineParam>& info) {
  return absl::StrCat(std::get<0>(info.param) == io::Backend::kUring ? "Uring" : "Mmsg",
                      std::get<1>(info.param) ? "V6" : "V4");
}

#define RINGSOCK_INSTANTIATE_ENGINE_TEST()                                                         \
  INSTANTIATE_TEST_SUITE_P(                                                                        \
      All, EngineTest,                                                                             \
      testing::Combine(testing::Values(io::Backend::kMmsg, io::Backend::kUring), testing::Bool()), \
      EngineParamName)

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_ENGINE_PARAM_TEST_H_
