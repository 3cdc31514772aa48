// Relays of one region that share a mesh key: clients of one reach those of another.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/relay/relay_world.h"

namespace ringsock::relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr auto kDisconnected = derp::PeerGoneReason::kDisconnected;

// Server 0 on hosts 0 and 1 (two workers), server 1 on host 2.
class MeshTest : public RelayTest {
 protected:
  static Options MeshOptions(const std::vector<int>& peers) {
    Options options;
    options.mesh_key = KeyOf(77);
    for (const int peer : peers) options.mesh.push_back({RelayAt(peer), /*tls=*/false, {}});
    return options;
  }
  ~MeshTest() override { clients_.clear(); }

  // Each dials the other.
  void StartBoth() {
    server_ = Open(MeshOptions({2}), 2);
    Options options = MeshOptions({0});
    options.identity = &identity_1_;
    second_ = Open(std::move(options), 1);
    RunUntil([&] { return stats().mesh_connects == 1 && Second().mesh_connects == 1; }, "mesh");
  }
  Stats Second() const { return second_->GetStats(); }

  const derp::ServerIdentity identity_1_{KeyOf(201)};
  std::unique_ptr<ServerImpl> second_;
};

TEST_F(MeshTest, ForwardsBothWaysInOrderFromEveryWorker) {
  StartBoth();
  TestClient& a = Join(1, 0);
  TestClient& b = Join(2, 1);
  TestClient& far = Join(3, 2);
  RunFor(milliseconds(100));
  std::string expected;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(a.Send(far.key(), absl::StrCat(i)));
    ASSERT_TRUE(b.Send(far.key(), absl::StrCat(i)));
    ASSERT_TRUE(far.Send(a.key(), absl::StrCat(i)));
    ASSERT_TRUE(far.Send(b.key(), absl::StrCat(i)));
    absl::StrAppend(&expected, i, "|");
  }
  RunFor(seconds(1));
  EXPECT_EQ(far.Text(&a), expected);
  EXPECT_EQ(far.Text(&b), expected);
  EXPECT_EQ(a.Text(&far), expected);
  EXPECT_EQ(b.Text(&far), expected);
  EXPECT_EQ(stats().forwarded_out, 200u);
  EXPECT_EQ(stats().forwarded_in, 200u);
  EXPECT_EQ(stats().mesh_keys, 1u);
  EXPECT_EQ(Second().mesh_keys, 2u);
}

TEST_F(MeshTest, LargePacketsCross) {
  StartBoth();
  TestClient& a = Join(1, 0);
  TestClient& far = Join(3, 2);
  RunFor(milliseconds(100));
  ASSERT_TRUE(a.Send(far.key(), std::string(65536, 'x')));
  RunFor(seconds(1));
  EXPECT_EQ(far.Text(), std::string(65536, 'x') + "|");
  // Bytes are those of clients, at either end.
  EXPECT_EQ(stats().bytes_in, 65536u);
  EXPECT_EQ(stats().bytes_out, 0u);
  EXPECT_EQ(Second().bytes_in, 0u);
  EXPECT_EQ(Second().bytes_out, 65536u);
}

// The limit is one client's; a server of the mesh carries those of many.
TEST_F(MeshTest, AMeshedServerIsNotHeldToTheRateOfAClient) {
  server_ = Open(MeshOptions({2}), 2);
  Options options = MeshOptions({0});
  options.identity = &identity_1_;
  options.limits.client_bytes_per_second = 10'000;
  options.limits.client_bytes_burst = 5'000;
  second_ = Open(std::move(options), 1);
  RunUntil([&] { return stats().mesh_connects == 1 && Second().mesh_connects == 1; }, "mesh");
  TestClient& a = Join(1, 0);
  TestClient& far = Join(3, 2);
  RunFor(milliseconds(100));
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(a.Send(far.key(), std::string(1000, 'x')));
  RunFor(seconds(1));
  EXPECT_EQ(far.packets.size(), 100u);
  EXPECT_EQ(Second().rate_pauses, 0u);
}

TEST_F(MeshTest, PeersThatGoAreKnownAndTold) {
  StartBoth();
  TestClient& a = Join(1, 0);
  TestClient& b = Join(2, 1);
  TestClient& far = Join(3, 2);
  RunFor(milliseconds(100));
  ASSERT_TRUE(far.Send(a.key(), "hello"));
  RunFor(milliseconds(100));
  const PublicKey key = far.key();
  far.Close();
  RunFor(milliseconds(100));
  EXPECT_THAT(a.gone, ElementsAre(Pair(key, kDisconnected)));
  EXPECT_THAT(b.gone, IsEmpty());
  EXPECT_EQ(stats().mesh_keys, 0u);
  ASSERT_TRUE(a.Send(key, "to nobody"));
  RunFor(milliseconds(100));
  EXPECT_EQ(stats().dropped_unknown, 1u);
}

TEST_F(MeshTest, AClientThatMovesIsFollowed) {
  StartBoth();
  TestClient& a = Join(1, 0);
  TestClient& first = Join(3, 2);
  RunFor(milliseconds(100));
  ASSERT_TRUE(a.Send(first.key(), "1"));
  RunFor(milliseconds(100));
  TestClient& moved = Join(3, 0);  // a local connection goes before one in the mesh
  RunFor(milliseconds(100));
  ASSERT_TRUE(a.Send(first.key(), "2"));
  RunFor(milliseconds(100));
  moved.Close();
  RunFor(milliseconds(100));
  ASSERT_TRUE(a.Send(first.key(), "3"));
  RunFor(milliseconds(100));
  EXPECT_EQ(first.Text(), "1|3|");
  EXPECT_EQ(moved.Text(), "2|");
}

TEST_F(MeshTest, AForwardedPacketIsNeverForwardedAgain) {
  StartBoth();
  TestClient& far = Join(3, 2);
  TestClient::Config config;
  config.mesh_key = KeyOf(77);
  TestClient& sibling = Join(50, 0, std::move(config), true);
  RunFor(milliseconds(100));
  sibling.Forward(KeyOf(9).Public(), far.key(), "round and round");
  RunFor(milliseconds(100));
  EXPECT_THAT(far.packets, IsEmpty());
  EXPECT_EQ(stats().dropped_mesh_loop, 1u);
  EXPECT_EQ(stats().forwarded_out, 0u);
}

TEST_F(MeshTest, AWatcherLearnsOfClientsOfThisServerAlone) {
  StartBoth();
  TestClient& early = Join(1, 0);
  Join(3, 2);
  TestClient::Config config;
  config.mesh_key = KeyOf(77);
  TestClient& watcher = Join(50, 1, std::move(config), true);
  ASSERT_TRUE(watcher.SendRaw(std::string("\x10\x00\x00\x00\x00", 5)));
  RunFor(milliseconds(100));
  EXPECT_THAT(watcher.present, ElementsAre(early.key()));
  TestClient& late = Join(2, 1);
  const PublicKey gone = early.key();
  early.Close();
  RunFor(milliseconds(100));
  EXPECT_THAT(watcher.present, UnorderedElementsAre(gone, late.key()));
  EXPECT_THAT(watcher.gone, ElementsAre(Pair(gone, kDisconnected)));
}

TEST_F(MeshTest, ALinkThatBreaksIsDialedAgain) {
  StartBoth();
  TestClient& a = Join(1, 0);
  second_->Stop(milliseconds(10));
  RunFor(seconds(1));
  EXPECT_GT(stats().mesh_failures, 0u);
  Options options = MeshOptions({0});
  options.identity = &identity_1_;
  auto third = Open(std::move(options), 1);  // on host 3, which nobody dials
  TestClient& far = Join(3, 3);
  RunFor(seconds(30));
  // It dials server 0, so what it sends arrives; server 0 does not know the way back.
  ASSERT_TRUE(far.Send(a.key(), "one way"));
  RunFor(milliseconds(100));
  EXPECT_EQ(a.Text(), "one way|");
  clients_.clear();
  second_ = std::move(third);
}

TEST_F(MeshTest, AServerThatDialsItselfStops) {
  server_ = Open(MeshOptions({0}), 1);
  RunFor(seconds(60));
  EXPECT_EQ(stats().mesh_failures, 1u);
  EXPECT_EQ(stats().connections, 0u);
}

TEST_F(MeshTest, ClosePeerClosesTheClient) {
  StartBoth();
  TestClient& a = Join(1, 1);
  TestClient::Config config;
  config.mesh_key = KeyOf(77);
  TestClient& sibling = Join(50, 0, std::move(config), true);
  std::string frame("\x11\x00\x00\x00\x20", 5);
  frame.append(reinterpret_cast<const char*>(a.key().bytes.data()), kKeySize);
  ASSERT_TRUE(sibling.SendRaw(frame));
  RunFor(milliseconds(100));
  EXPECT_TRUE(a.closed);
  EXPECT_EQ(stats().closed_by_mesh, 1u);
}

TEST_F(MeshTest, AWrongMeshKeyIsNoMesh) {
  StartBoth();
  TestClient::Config config;
  config.mesh_key = KeyOf(78);
  TestClient& impostor = Join(50, 0, std::move(config), /*wait=*/false);
  RunFor(milliseconds(100));
  if (impostor.ready()) {
    ASSERT_TRUE(impostor.SendRaw(std::string("\x10\x00\x00\x00\x00", 5)));
  }
  RunFor(milliseconds(100));
  EXPECT_TRUE(impostor.closed);
  EXPECT_THAT(impostor.present, IsEmpty());
}

}  // namespace
}  // namespace ringsock::relay
