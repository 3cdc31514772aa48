// A relay in trouble: clients that do not read, do not log in, send nonsense or too much. Each is
// bounded in time and memory and counted, and the others go on.
#include <gmock/gmock.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/relay/relay_world.h"

namespace ringsock::relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class TroubleTest : public RelayTest {
 protected:
  // Queues so small that a test fills them soon.
  void MakeQueuesSmall() {
    options_.queues.max_bytes = 128 << 10;
    options_.queues.stream_bytes = 64 << 10;
  }
  // Sends `count` packets of 1000 bytes, numbered from `first` on, a few in each millisecond.
  void SendNumbered(TestClient& from, const TestClient& to, int first, int count) {
    for (int i = first; i < first + count; ++i) {
      std::string packet = absl::StrCat(i, " ");
      packet.resize(1000, '.');
      ASSERT_TRUE(from.Send(to.key(), packet));
      if (i % 20 == 0) RunFor(milliseconds(1));
    }
  }
  // The others are served.
  void ExpectAllIsWell() {
    TestClient& a = Join(101);
    TestClient& b = Join(102);
    ASSERT_TRUE(a.Send(b.key(), "well"));
    RunFor(milliseconds(100));
    EXPECT_EQ(b.Text(), "well|");
  }
  static std::vector<int> Numbers(const TestClient& client) {
    std::vector<int> numbers;
    for (const auto& [source, packet] : client.packets) numbers.push_back(std::stoi(packet));
    return numbers;
  }
};

// ---- Those who do not read ----

TEST_F(TroubleTest, ASlowReceiverLosesItsOldestPacketsAndHoldsUpNobodyElse) {
  MakeQueuesSmall();
  Start();
  TestClient& a = Join(1);
  TestClient& slow = Join(2);
  TestClient& fast = Join(3);
  slow.SetReceiving(false);
  RunFor(milliseconds(10));
  for (int i = 0; i < 2000; i += 20) {
    SendNumbered(a, slow, i, 20);
    SendNumbered(a, fast, i, 20);
    RunFor(milliseconds(1));
    // Whatever waits for the slow one, what is for the other is there a millisecond later.
    ASSERT_EQ(fast.packets.size(), static_cast<size_t>(i + 20));
  }
  EXPECT_GT(stats().dropped_queue_full, 500u);
  slow.SetReceiving(true);
  RunFor(seconds(1));
  const std::vector<int> numbers = Numbers(slow);
  EXPECT_TRUE(std::is_sorted(numbers.begin(), numbers.end()));
  ASSERT_FALSE(numbers.empty());
  EXPECT_EQ(numbers.back(), 1999) << "the newest is kept";
  EXPECT_EQ(numbers.size() + stats().dropped_queue_full + stats().dropped_queue_age, 2000u);
  EXPECT_EQ(stats().queued_bytes, 0u);
  EXPECT_FALSE(slow.closed);
}

TEST_F(TroubleTest, AClientThatStopsReadingIsClosedAfterTwoSeconds) {
  MakeQueuesSmall();
  Start();
  TestClient& a = Join(1);
  TestClient& slow = Join(2);
  slow.SetReceiving(false);
  SendNumbered(a, slow, 0, 2000);
  RunFor(milliseconds(1800));
  EXPECT_EQ(stats().clients, 2u);
  RunFor(milliseconds(1200));
  EXPECT_EQ(stats().clients, 1u);
  EXPECT_EQ(stats().closed_write_timeout, 1u);
  EXPECT_EQ(stats().queued_bytes, 0u);
  ExpectAllIsWell();
}

TEST_F(TroubleTest, AClientBehindASlowLinkIsNotClosed) {
  MakeQueuesSmall();
  options_.queues.max_age = seconds(1);
  Start();
  TestClient& a = Join(1);
  TestClient& slow = Join(2);
  net_.downlink(HostOf(slow)).options.bytes_per_second = 20'000;
  for (int i = 0; i < 200; ++i) {
    SendNumbered(a, slow, i * 10, 10);
    RunFor(milliseconds(100));
  }
  EXPECT_FALSE(slow.closed);
  EXPECT_EQ(stats().closed_write_timeout, 0u);
  // Its queue is not full, but what waits in it grows old.
  EXPECT_GT(stats().dropped_queue_age, 100u);
  EXPECT_GT(slow.packets.size(), 200u);
}

TEST_F(TroubleTest, WhatWaitsForSomebodyWhoGoesIsCounted) {
  MakeQueuesSmall();
  Start();
  TestClient& a = Join(1);
  TestClient& slow = Join(2);
  slow.SetReceiving(false);
  SendNumbered(a, slow, 0, 1500);
  RunFor(milliseconds(100));
  slow.Abort();
  RunFor(milliseconds(100));
  EXPECT_EQ(stats().closed_broken, 1u);
  EXPECT_GT(stats().dropped_gone, 50u);
  EXPECT_EQ(stats().packets_in, stats().packets_out + stats().dropped_gone +
                                    stats().dropped_queue_full + stats().dropped_queue_age +
                                    stats().dropped_memory + stats().dropped_unknown);
}

TEST_F(TroubleTest, ManyThatDoNotReadShareTheMemoryAndLeaveSomeToOthers) {
  options_.queues.max_bytes = 256 << 10;
  options_.queues.stream_bytes = 64 << 10;
  options_.queues.worker_bytes = 1 << 20;
  options_.queues.write_timeout = seconds(100);
  options_.queues.max_age = seconds(100);
  Start();
  TestClient& a = Join(1);
  std::vector<TestClient*> slow;
  for (uint8_t i = 0; i < 8; ++i) slow.push_back(&Join(10 + i));
  for (TestClient* client : slow) client->SetReceiving(false);
  for (TestClient* client : slow) SendNumbered(a, *client, 0, 1500);
  RunFor(milliseconds(100));
  EXPECT_LE(stats().queued_bytes, uint64_t{1} << 20);
  EXPECT_GT(stats().dropped_memory, 0u);
  ExpectAllIsWell();
}

// ---- Those who do not log in ----

TEST_F(TroubleTest, ALoginThatTakesTooLongIsEnded) {
  Start();
  TestClient& silent = JoinRaw();
  TestClient& slow = JoinRaw();
  const std::string request = "GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: DERP\r\n";
  for (int i = 0; i < 9; ++i) {
    ASSERT_TRUE(slow.SendRaw(request.substr(static_cast<size_t>(i), 1)));
    RunFor(seconds(1));
    EXPECT_FALSE(slow.closed);
  }
  RunFor(seconds(2));
  EXPECT_TRUE(silent.closed);
  EXPECT_TRUE(slow.closed);
  EXPECT_EQ(stats().login_timeout, 2u);
  EXPECT_EQ(stats().connections, 0u);
}

TEST_F(TroubleTest, EndlessHeadersAreAnsweredOnceAndEnded) {
  Start();
  TestClient& client = JoinRaw();
  ASSERT_TRUE(client.SendRaw("GET /derp HTTP/1.1\r\n"));
  for (int i = 0; i < 100 && !client.closed; ++i) {
    client.SendRaw(absl::StrCat("X-", i, ": ", std::string(1000, 'a'), "\r\n"));
    RunFor(milliseconds(10));
  }
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(client.raw.substr(0, 13), "HTTP/1.1 431 ");
  EXPECT_EQ(stats().connections, 0u);
}

TEST_F(TroubleTest, GarbageInsteadOfALoginIsEnded) {
  Start();
  SeededRandom random(3);
  for (int i = 0; i < 20; ++i) {
    TestClient& client = JoinRaw();
    std::string bytes(3000, '\0');
    random.Fill(std::as_writable_bytes(std::span(bytes)));
    client.SendRaw(i % 2 == 0 ? bytes
                              : "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n"
                                "Connection: Upgrade\r\n\r\n" +
                                    bytes);
    RunFor(seconds(11));
    EXPECT_TRUE(client.closed) << i;
  }
  EXPECT_EQ(stats().login_failed + stats().login_timeout + stats().http_requests, 20u);
  EXPECT_EQ(stats().connections, 0u);
  ExpectAllIsWell();
}

TEST_F(TroubleTest, ALoginOfTooManyBytesIsEnded) {
  Start();
  TestClient& client = JoinRaw();
  // A frame of a type that is skipped, 200,000 bytes long.
  ASSERT_TRUE(client.SendRaw(
      absl::StrCat("GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n",
                   std::string("\x7f\x00\x03\x0d\x40", 5), std::string(100'000, 'x'))));
  RunFor(milliseconds(100));
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(stats().login_failed, 1u);
}

TEST_F(TroubleTest, PlainRequestsAreAnsweredAndClosed) {
  Start();
  TestClient& client = JoinRaw();
  ASSERT_TRUE(client.SendRaw("GET /generate_204 HTTP/1.1\r\nHost: x\r\n\r\n"));
  client.Shutdown();  // it will say no more, and still wants the answer
  RunFor(milliseconds(100));
  EXPECT_EQ(client.raw.substr(0, 13), "HTTP/1.1 204 ");
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(stats().http_requests, 1u);
}

// ---- Those who send what they must not ----

TEST_F(TroubleTest, NonsenseAfterTheLoginEndsTheClientAlone) {
  Start();
  const std::string nonsense[] = {
      std::string("\x04\xff\xff\xff\xff", 5),            // a frame of 4 GiB
      std::string("\x04\x00\x00\x00\x05", 5) + "short",  // a packet without a key
      std::string("\x0a\x00\x00\x00\x05", 5) + "xxxxx",  // mesh frames without mesh
      std::string("\x10\x00\x00\x00\x00", 5),            //
      std::string("\x11\x00\x00\x00\x20", 5) + std::string(32, 'k'),
      std::string("\x02\x00\x00\x00\x40", 5) + std::string(64, 'k'),  // a second login
      std::string("\x12\x00\x00\x00\x01", 5) + "p",                   // half a ping
  };
  uint8_t number = 1;
  for (const std::string& bytes : nonsense) {
    TestClient& client = Join(number++);
    ASSERT_TRUE(client.SendRaw(bytes));
    RunFor(milliseconds(100));
    EXPECT_TRUE(client.closed) << int{number};
  }
  EXPECT_EQ(stats().closed_protocol, std::size(nonsense));
  EXPECT_EQ(stats().clients, 0u);
  ExpectAllIsWell();
}

TEST_F(TroubleTest, FramesOfUnknownTypesAreSkipped) {
  Start();
  TestClient& a = Join(1);
  TestClient& b = Join(2);
  ASSERT_TRUE(a.SendRaw(std::string("\x7f\x00\x00\x10\x00", 5) + std::string(4096, 'z')));
  ASSERT_TRUE(a.Send(b.key(), "after"));
  RunFor(milliseconds(100));
  EXPECT_EQ(b.Text(), "after|");
}

TEST_F(TroubleTest, AFloodOfPingsIsAnsweredWithinTheBound) {
  Start();
  TestClient& a = Join(1);
  a.SetReceiving(false);
  std::string pings;
  for (int i = 0; i < 5000; ++i) pings += std::string("\x12\x00\x00\x00\x08", 5) + "12345678";
  ASSERT_TRUE(a.SendRaw(pings));
  RunFor(seconds(1));
  EXPECT_EQ(stats().pings, 5000u);
  a.SetReceiving(true);
  RunFor(seconds(1));
  EXPECT_FALSE(a.closed);
  ExpectAllIsWell();
}

// ---- Limits ----

TEST_F(TroubleTest, ClientsOverTheLimitAreReset) {
  options_.limits.max_clients = 3;
  Start();
  Join(1);
  Join(2);
  TestClient& third = Join(3);
  TestClient& fourth = JoinRaw();
  RunFor(milliseconds(100));
  EXPECT_TRUE(fourth.closed);
  EXPECT_EQ(stats().refused_clients, 1u);
  third.Close();
  RunFor(milliseconds(100));
  Join(5);
}

TEST_F(TroubleTest, LoginsUnderWayOverTheLimitAreReset) {
  options_.limits.max_logins = 2;
  Start();
  Join(1);
  JoinRaw();
  JoinRaw();
  TestClient& third = JoinRaw();
  RunFor(milliseconds(100));
  EXPECT_TRUE(third.closed);
  EXPECT_EQ(stats().refused_pending, 1u);
  RunFor(seconds(11));  // the two have had their time
  Join(2);
}

TEST_F(TroubleTest, AcceptsOverTheRateAreReset) {
  options_.limits.accepts_per_second = 10;
  options_.limits.accept_burst = 5;
  Start();
  for (int i = 0; i < 20; ++i) {
    TestClient::Config config;
    config.login = false;
    Join(50, 0, std::move(config), /*wait=*/false);
  }
  RunFor(milliseconds(50));
  EXPECT_EQ(stats().refused_rate, 15u);
  RunFor(seconds(1));
  ExpectAllIsWell();
}

TEST_F(TroubleTest, AClientOverItsRateIsSlowedDownAndLosesNothing) {
  options_.limits.client_bytes_per_second = 100'000;
  options_.limits.client_bytes_burst = 50'000;
  Start();
  // Clients keep to the rate they are told by dropping; this one is sent as bytes instead.
  TestClient& greedy = Join(1);
  TestClient& other = Join(2);
  TestClient& sink = Join(3);
  std::string packet(1000, 'p');
  std::string frame("\x04\x00\x00\x04\x08", 5);
  frame.append(reinterpret_cast<const char*>(sink.key().bytes.data()), kKeySize);
  frame += packet;
  // 2 s worth of its rate over its burst, at once.
  for (int i = 0; i < 240; ++i) ASSERT_TRUE(greedy.SendRaw(frame));
  RunFor(milliseconds(500));
  EXPECT_GT(stats().rate_pauses, 0u);
  // The burst, what half a second allows, and at most one received piece more.
  EXPECT_LE(sink.packets.size(), 120u);
  ASSERT_TRUE(other.Send(sink.key(), "not slowed"));
  const size_t before = sink.packets.size();
  RunFor(milliseconds(10));
  const auto is_others = [](const auto& received) { return received.second == "not slowed"; };
  EXPECT_TRUE(std::any_of(sink.packets.begin() + before, sink.packets.end(), is_others));
  RunFor(seconds(3));
  EXPECT_EQ(sink.packets.size(), 241u);
  EXPECT_FALSE(greedy.closed);
}

TEST_F(TroubleTest, PeersOverTheBoundAreForgotten) {
  options_.limits.max_peers_remembered = 2;
  Start();
  TestClient& a = Join(1);
  for (uint8_t i = 0; i < 4; ++i) {
    TestClient& peer = Join(10 + i);
    ASSERT_TRUE(a.Send(peer.key(), "hello"));
    RunFor(milliseconds(10));
  }
  EXPECT_EQ(stats().peers_forgotten, 2u);
  a.Close();
  RunFor(milliseconds(100));
  EXPECT_EQ(stats().peer_gone_sent, 2u);
}

TEST_F(TroubleTest, PeersOfAllClientsHaveABound) {
  options_.limits.max_peers_of_worker = 3;
  Start();
  TestClient& p = Join(10);
  TestClient& q = Join(11);
  TestClient& a = Join(1);
  TestClient& b = Join(2);
  TestClient& c = Join(3);
  const auto send = [&](TestClient& from, TestClient& to) {
    ASSERT_TRUE(from.Send(to.key(), "hello"));
    RunFor(milliseconds(10));
  };
  send(a, p);
  send(a, q);
  send(b, p);
  send(b, q);  // in place of p
  send(c, p);  // has none to give up
  EXPECT_EQ(stats().peers_forgotten, 2u);
  EXPECT_EQ(p.packets.size(), 3u);  // nobody's packet is lost by it
  EXPECT_EQ(q.packets.size(), 2u);
  c.Close();
  RunFor(milliseconds(100));
  EXPECT_EQ(stats().peer_gone_sent, 0u);
  b.Close();
  RunFor(milliseconds(100));
  EXPECT_EQ(stats().peer_gone_sent, 1u);
  // There is room again.
  TestClient& d = Join(4);
  send(d, q);
  d.Close();
  a.Close();
  RunFor(milliseconds(100));
  EXPECT_EQ(stats().peer_gone_sent, 4u);
  EXPECT_EQ(stats().peers_forgotten, 2u);
}

}  // namespace
}  // namespace ringsock::relay
