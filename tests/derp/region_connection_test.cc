#include "derp/region_connection.h"

#include "tests/derp/client_world.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class RegionConnectionTest : public ClientWorldTest {};

TEST_F(RegionConnectionTest, ConnectsAndCarriesPacketsBothWays) {
  RelayFixture& relay = AddRelay(1);
  const auto connection = Connect(RegionOf({&relay}), &events);
  EXPECT_FALSE(connection->up());
  net.RunFor(kEnough);
  ASSERT_TRUE(connection->up()) << connection->Status().last_error;
  EXPECT_EQ(events.story, "up ");
  EXPECT_EQ(connection->region(), 1);

  std::vector<size_t> sent;
  relay.on_packet = [&](const PublicKey& from, const PublicKey& to, Bytes packet) {
    EXPECT_EQ(from, self);
    EXPECT_EQ(to, PeerKey(1));
    sent.push_back(packet.size());
    return true;
  };
  for (const size_t size : {0u, 1u, 1400u, 65536u}) {
    EXPECT_TRUE(connection->Send(PeerKey(1), Packet(size)));
  }
  EXPECT_FALSE(connection->Send(PeerKey(1), Packet(65537)));
  connection->Flush();
  net.RunFor(kEnough);
  EXPECT_EQ(sent, (std::vector<size_t>{0, 1, 1400, 65536}));

  EXPECT_TRUE(relay.Deliver(self, PeerKey(2), Packet(1400)));
  EXPECT_TRUE(relay.Deliver(self, PeerKey(3), Packet(100)));
  net.RunFor(kEnough);
  EXPECT_EQ(events.sources, (std::vector<PublicKey>{PeerKey(2), PeerKey(3)}));
  EXPECT_EQ(events.sizes, (std::vector<size_t>{1400, 100}));
  EXPECT_GE(events.packet_ends, 1);

  const RegionConnectionStatus status = connection->Status();
  EXPECT_EQ(status.node, "1a");
  EXPECT_EQ(status.remote, relay.at());
  EXPECT_EQ(status.description, "plain TCP");
  EXPECT_EQ(status.queued_packets, 0u);
  EXPECT_EQ(status.counters.connects, 1u);
  EXPECT_EQ(status.counters.tx_packets, 4u);
  EXPECT_EQ(status.counters.tx_bytes, 66937u);
  EXPECT_EQ(status.counters.rx_packets, 2u);
  EXPECT_EQ(status.counters.rx_bytes, 1500u);
}

}  // namespace
}  // namespace ringsock::derp
