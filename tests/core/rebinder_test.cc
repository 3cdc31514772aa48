// Rebinds whose port cannot be had again, on loops that say so: another port for all shards, or
// none if it was fixed.
#include "core/rebinder.h"

#include <memory>
#include <vector>

#include "core/engine_internal.h"
#include "gtest/gtest.h"
#include "tests/core/engine_fixture.h"
#include "tests/core/fake_loop.h"

namespace ringsock {
namespace {

using internal::EngineImpl;

class RebinderTest : public testing::Test {
 protected:
  void Start(uint16_t port) {
    EngineOptions options;
    options.port = port;
    options.network.netcheck = false;
    internal::EngineLoops loops;
    for (int i = 0; i < 2; ++i) {
      auto loop = std::make_unique<FakeLoop>();
      shards_.push_back(loop.get());
      loops.shards.push_back(std::move(loop));
    }
    loops.control = std::make_unique<FakeLoop>();
    auto engine =
        EngineImpl::Create(options, &handler_, std::move(loops), EngineImpl::Threads::kCaller);
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
  }
  void Refuse(uint16_t port, absl::StatusCode code) {
    for (FakeLoop* shard : shards_) {
      shard->on_reopen = [port, code](uint16_t wanted) {
        return wanted == port ? absl::Status(code, "taken") : absl::OkStatus();
      };
    }
  }

  KeepingHandler handler_;
  std::vector<FakeLoop*> shards_;
  std::unique_ptr<EngineImpl> engine_;
};

// spec: EP-8
TEST_F(RebinderTest, APortThatIsGoneIsReplacedForAllShards) {
  Start(0);
  const uint16_t before = engine_->port();
  Refuse(before, absl::StatusCode::kAlreadyExists);
  const absl::Status status = engine_->Rebind("test");
  EXPECT_TRUE(status.ok()) << status.ToString();
  const uint16_t after = engine_->port();
  EXPECT_NE(after, before);
  EXPECT_EQ(engine_->Status().port, after);
  for (size_t i = 0; i < shards_.size(); ++i) {
    EXPECT_EQ(engine_->shard(i).BoundTo(/*v6=*/false)->port, after) << "shard " << i;
    EXPECT_EQ(engine_->shard(i).BoundTo(/*v6=*/true)->port, after) << "shard " << i;
  }
  // The next one has it again.
  EXPECT_TRUE(engine_->Rebind("test").ok());
  EXPECT_EQ(engine_->port(), after);
  EXPECT_EQ(engine_->Status().rebinds, 2u);
}

TEST_F(RebinderTest, AFixedPortIsNotGivenUp) {
  Start(41641);
  Refuse(41641, absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(engine_->Rebind("test").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(engine_->port(), 41641);
  EXPECT_EQ(engine_->Status().last_rebind, "rebind (test): not all sockets are new: taken");
}

TEST_F(RebinderTest, AnErrorThatNoOtherPortCuresIsReported) {
  Start(0);
  const uint16_t before = engine_->port();
  Refuse(before, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine_->Rebind("test").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(engine_->port(), before);
}

TEST_F(RebinderTest, NewPortsAreNotTriedForEver) {
  Start(0);
  const uint16_t before = engine_->port();
  int tries = 0;
  for (FakeLoop* shard : shards_) {
    shard->on_reopen = [&](uint16_t) {
      ++tries;
      return absl::AlreadyExistsError("taken");
    };
  }
  EXPECT_EQ(engine_->Rebind("test").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(engine_->port(), before);
  EXPECT_GT(tries, 10);
  EXPECT_LT(tries, 100);
}

}  // namespace
}  // namespace ringsock
