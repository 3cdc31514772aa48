// The relay with clients on a simulated network: routing and order, duplicates, who is told of
// what, graceful stop, and all of it across workers.
#include "relay/server.h"

#include <gmock/gmock.h>

#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/relay/relay_world.h"

namespace ringsock::relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

constexpr auto kDisconnected = derp::PeerGoneReason::kDisconnected;
constexpr auto kNotHere = derp::PeerGoneReason::kNotHere;

// A packet of path discovery of later clients.
std::string Disco() { return "TS\xf0\x9f\x92\xac" + std::string(56, 'x') + "box"; }

// The parameter is the worker of every second client: its own, or that of the others.
class ServerTest : public RelayTest, public testing::WithParamInterface<int> {
 protected:
  void StartHere() { Start(GetParam() + 1); }
  int other() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Workers, ServerTest, testing::Values(0, 1),
                         [](const auto& info) { return info.param == 0 ? "One" : "Two"; });

TEST_P(ServerTest, ForwardsBothWaysInOrder) {
  StartHere();
  TestClient& a = Join(1);
  TestClient& b = Join(2, other());
  std::string to_a, to_b;
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(a.Send(b.key(), absl::StrCat("to b ", i)));
    ASSERT_TRUE(b.Send(a.key(), absl::StrCat("to a ", i)));
    absl::StrAppend(&to_b, "to b ", i, "|");
    absl::StrAppend(&to_a, "to a ", i, "|");
  }
  RunFor(seconds(1));
  EXPECT_EQ(b.Text(&a), to_b);
  EXPECT_EQ(a.Text(&b), to_a);
  EXPECT_EQ(stats().packets_in, 400u);
  EXPECT_EQ(stats().packets_out, 400u);
  EXPECT_EQ(stats().logins, 2u);
  EXPECT_EQ(stats().clients, 2u);
}

TEST_P(ServerTest, CarriesPacketsOfAllSizes) {
  options_.queues.stream_bytes = 64 << 10;  // the largest go in parts
  StartHere();
  TestClient& a = Join(1);
  TestClient& b = Join(2, other());
  const std::vector<size_t> sizes = {0, 1, 64, 1400, 16347, 16348, 16384, 65000, 65536, 3};
  for (const size_t size : sizes) {
    ASSERT_TRUE(a.Send(b.key(), std::string(size, 'p')));
    RunFor(milliseconds(100));
  }
  ASSERT_EQ(b.packets.size(), sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(b.packets[i].second, std::string(sizes[i], 'p')) << sizes[i];
  }
  EXPECT_EQ(stats().packets_out, sizes.size());
  EXPECT_EQ(stats().bytes_in, std::accumulate(sizes.begin(), sizes.end(), size_t{0}));
  EXPECT_EQ(stats().bytes_out, stats().bytes_in);
}

TEST_P(ServerTest, PacketsThatFollowTheLoginAtOnceArrive) {
  StartHere();
  TestClient& b = Join(2, other());
  TestClient& a = Join(1, 0, TestClient::Config(), /*wait=*/false);
  RunUntil([&] { return a.session().can_send(); }, "can send");
  ASSERT_TRUE(a.Send(b.key(), "early"));
  RunFor(seconds(1));
  EXPECT_EQ(b.Text(), "early|");
}

TEST_P(ServerTest, ManyToOneAndOneToManyKeepTheOrderOfEachPair) {
  StartHere();
  std::vector<TestClient*> all;
  for (uint8_t i = 0; i < 6; ++i) all.push_back(&Join(i + 1, i % 2 == 0 ? 0 : other()));
  std::string expected;
  for (int round = 0; round < 50; ++round) {
    for (TestClient* from : all) {
      for (TestClient* to : all) ASSERT_TRUE(from->Send(to->key(), absl::StrCat(round)));
    }
    absl::StrAppend(&expected, round, "|");
  }
  RunFor(seconds(2));
  for (const TestClient* to : all) {
    for (const TestClient* from : all) EXPECT_EQ(to->Text(from), expected);
  }
}

TEST_P(ServerTest, UnknownPeersAreCountedAndDiscoSendersToldAtMostThriceASecond) {
  StartHere();
  TestClient& a = Join(1);
  const PublicKey nobody = KeyOf(99).Public();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(a.Send(nobody, "data"));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(a.Send(nobody, Disco()));
  RunFor(milliseconds(500));
  EXPECT_EQ(stats().dropped_unknown, 10u);
  EXPECT_THAT(a.gone,
              ElementsAre(Pair(nobody, kNotHere), Pair(nobody, kNotHere), Pair(nobody, kNotHere)));
  EXPECT_EQ(stats().not_here_sent, 3u);
  EXPECT_EQ(stats().not_here_limited, 2u);
}

TEST_P(ServerTest, ThoseItSentToAreToldWhenAClientGoes) {
  StartHere();
  TestClient& a = Join(1);
  TestClient& b = Join(2, other());
  TestClient& c = Join(3, other());
  ASSERT_TRUE(a.Send(b.key(), "hello"));
  ASSERT_TRUE(c.Send(a.key(), "hello"));  // the other way: c is not told
  RunFor(seconds(1));
  const PublicKey key = a.key();
  a.Close();
  RunFor(seconds(1));
  EXPECT_THAT(b.gone, ElementsAre(Pair(key, kDisconnected)));
  EXPECT_THAT(c.gone, IsEmpty());
  EXPECT_EQ(stats().closed_by_client, 1u);
  EXPECT_EQ(stats().peer_gone_sent, 1u);
  EXPECT_EQ(stats().clients, 2u);
  ASSERT_TRUE(c.Send(key, "to nobody"));
  RunFor(seconds(1));
  EXPECT_EQ(stats().dropped_unknown, 1u);
}

TEST_P(ServerTest, TheNewerOfTwoConnectionsReceivesAndBothAreTold) {
  StartHere();
  TestClient& peer = Join(9);
  TestClient& old = Join(1);
  ASSERT_TRUE(peer.Send(old.key(), "1"));
  RunFor(milliseconds(100));
  TestClient& young = Join(1, other());
  RunFor(milliseconds(100));
  ASSERT_TRUE(peer.Send(old.key(), "2"));
  ASSERT_TRUE(old.Send(peer.key(), "from the old one"));
  RunFor(milliseconds(100));
  EXPECT_EQ(old.Text(), "1|");
  EXPECT_EQ(young.Text(), "2|");
  EXPECT_EQ(peer.Text(), "from the old one|");
  EXPECT_THAT(old.health, ElementsAre(HasSubstr("same key")));
  EXPECT_THAT(young.health, ElementsAre(HasSubstr("same key")));
  EXPECT_EQ(stats().keys, 2u);
  EXPECT_EQ(stats().clients, 3u);

  young.Close();
  RunFor(milliseconds(100));
  EXPECT_EQ(old.health.size(), 2u);
  EXPECT_EQ(old.health.back(), "");
  EXPECT_THAT(peer.gone, IsEmpty()) << "the key is still here";
  ASSERT_TRUE(peer.Send(old.key(), "3"));
  RunFor(milliseconds(100));
  EXPECT_EQ(old.Text(), "1|3|");
}

TEST_P(ServerTest, TheOldestOfTooManyConnectionsOfAKeyIsClosed) {
  options_.limits.max_connections_per_key = 2;
  StartHere();
  TestClient& first = Join(1);
  TestClient& second = Join(1, other());
  TestClient& third = Join(1);
  RunFor(milliseconds(100));
  EXPECT_TRUE(first.closed);
  EXPECT_FALSE(second.closed);
  EXPECT_FALSE(third.closed);
  EXPECT_EQ(stats().closed_duplicate, 1u);
  EXPECT_EQ(stats().clients, 2u);
}

// What either connection of a key has sent is told of when the last one goes.
TEST_P(ServerTest, PeersOfAConnectionThatWasReplacedAreToldToo) {
  StartHere();
  TestClient& peer = Join(3);
  TestClient& old = Join(1);
  ASSERT_TRUE(old.Send(peer.key(), "from the old one"));
  RunFor(milliseconds(100));
  TestClient& newer = Join(1, other());
  old.Close();
  RunFor(milliseconds(100));
  EXPECT_THAT(peer.gone, IsEmpty());
  newer.Close();
  RunFor(milliseconds(100));
  EXPECT_THAT(peer.gone, ElementsAre(Pair(newer.key(), kDisconnected)));
}

TEST_P(ServerTest, KeepAlivesComeEvery60To65Seconds) {
  StartHere();
  TestClient& a = Join(1, other());
  RunFor(seconds(600));
  EXPECT_FALSE(a.closed);
  EXPECT_GE(a.session().counters().keep_alives, 9u);
  EXPECT_LE(a.session().counters().keep_alives, 10u);
  EXPECT_EQ(stats().keep_alives, a.session().counters().keep_alives);
}

TEST_P(ServerTest, AStopTellsClientsSendsWhatWaitsAndEnds) {
  options_.restart_reconnect_in = seconds(2);
  options_.restart_try_for = seconds(7);
  StartHere();
  TestClient& a = Join(1);
  TestClient& b = Join(2, other());
  TestClient& late = JoinRaw();
  RunFor(milliseconds(100));
  ASSERT_TRUE(a.Send(b.key(), "last words"));
  server_->Stop(seconds(5));
  RunFor(milliseconds(100));
  for (TestClient* client : {&a, &b}) {
    ASSERT_EQ(client->restarting.size(), 1u);
    EXPECT_LE(client->restarting[0].reconnect_in, seconds(2));
    EXPECT_EQ(client->restarting[0].try_for, seconds(7));
    EXPECT_TRUE(client->closed);
    client->Close();
  }
  EXPECT_TRUE(late.closed);
  RunFor(milliseconds(200));
  EXPECT_TRUE(server_->worker(0).stopped());
  EXPECT_EQ(stats().clients, 0u);
  EXPECT_EQ(stats().closed_stopping, 3u);
}

TEST_P(ServerTest, AStopDoesNotWaitForThoseWhoDoNotLeave) {
  StartHere();
  TestClient& a = Join(1, other());
  io::SimNetwork& net = net_;
  net.SetPartition(HostOf(a), relay_hosts_[static_cast<size_t>(other())], true);
  server_->Stop(seconds(3));
  RunFor(seconds(3) + milliseconds(1));
  EXPECT_TRUE(server_->worker(static_cast<size_t>(other())).stopped());
}

TEST_P(ServerTest, TheAllowListIsHeldAtLoginAndWhenItChanges) {
  options_.allow = std::make_shared<AllowList>(AllowList{KeyOf(1).Public(), KeyOf(2).Public()});
  StartHere();
  TestClient& a = Join(1);
  TestClient& b = Join(2, other());
  TestClient& stranger = Join(3, 0, TestClient::Config(), /*wait=*/false);
  RunFor(seconds(1));
  EXPECT_FALSE(stranger.ready());
  EXPECT_TRUE(stranger.closed);
  EXPECT_EQ(stats().login_denied, 1u);
  server_->SetAllowList(
      std::make_shared<AllowList>(AllowList{KeyOf(1).Public(), KeyOf(3).Public()}));
  RunFor(seconds(1));
  EXPECT_FALSE(a.closed);
  EXPECT_TRUE(b.closed);
  EXPECT_EQ(stats().closed_denied, 1u);
  EXPECT_EQ(stats().connections, 1u);
  Join(3, other());
  server_->SetAllowList(nullptr);
  Join(4);
}

TEST_P(ServerTest, StatusSaysWhoIsThere) {
  StartHere();
  TestClient& a = Join(1);
  TestClient& b = Join(2, other());
  ASSERT_TRUE(a.Send(b.key(), "12345"));
  RunFor(seconds(1));
  std::vector<ClientStatus> clients;
  for (int i = 0; i <= other(); ++i) {
    server_->worker(static_cast<size_t>(i)).AppendStatus(100, &clients);
  }
  ASSERT_EQ(clients.size(), 2u);
  const bool first = clients[0].key == a.key();
  const ClientStatus& of_a = clients[first ? 0 : 1];
  const ClientStatus& of_b = clients[first ? 1 : 0];
  EXPECT_EQ(of_a.key, a.key());
  EXPECT_EQ(of_a.remote.ip, IpAddress::V4(203, 0, 113, 1));
  EXPECT_EQ(of_a.packets_in, 1u);
  EXPECT_EQ(of_a.bytes_in, 5u);
  EXPECT_TRUE(of_a.active);
  EXPECT_EQ(of_b.packets_out, 1u);
  EXPECT_EQ(of_b.worker, other());
}

TEST(ServerOptionsTest, CreateSaysWhatIsWrong) {
  const derp::ServerIdentity identity(KeyOf(1));
  const auto why = [&](const std::function<void(Options*)>& change) {
    Options options;
    options.identity = &identity;
    options.listen = {{{IpAddress::AnyV4(), 4430, 0}, false}};
    change(&options);
    return std::string(Server::Create(std::move(options)).status().message());
  };
  EXPECT_EQ(why([](Options*) {}), "");
  EXPECT_THAT(why([](Options* o) { o->identity = nullptr; }), HasSubstr("identity"));
  EXPECT_THAT(why([](Options* o) { o->listen.clear(); }), HasSubstr("listen"));
  EXPECT_THAT(why([](Options* o) { o->listen[0].tls = true; }), HasSubstr("TLS"));
  EXPECT_THAT(why([](Options* o) { o->workers = 0; }), HasSubstr("workers"));
  EXPECT_THAT(why([](Options* o) { o->queues.max_bytes = 1000; }), HasSubstr("max_bytes"));
  EXPECT_THAT(why([](Options* o) { o->queues.worker_bytes = 1000; }), HasSubstr("worker_bytes"));
  EXPECT_THAT(why([](Options* o) { o->mesh.resize(1); }), HasSubstr("mesh key"));
}

}  // namespace
}  // namespace ringsock::relay
