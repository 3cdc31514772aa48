// Latency over HTTPS: what is measured, and servers that are slow, silent, endless or no relays.
#include "derp/latency_check.h"

#include "tests/derp/client_world.h"
#include "tests/derp/tls_certificates.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

// Links of 5 ms each way on both sides: one round trip.
constexpr Duration kRoundTrip = milliseconds(20);

// A relay of plain HTTP that answers what a test wants, when it wants.
struct ScriptedServer final : io::ListenHandler, io::StreamHandler {
  ScriptedServer(io::SimNetwork* net, const IpAddress& ip) : world(net, "scripted", {ip}) {
    const auto listener = world.loop->streams()->Listen({.bind = {ip, 443, 0}}, this);
    EXPECT_TRUE(listener.ok()) << listener.status();
  }
  io::StreamHandler* OnAccept(io::StreamId, io::StreamId, const Endpoint&) override {
    ++accepts;
    return this;
  }
  void OnConnect(io::StreamId) override {}
  void OnReceive(io::StreamId id, std::span<std::byte> bytes) override {
    request.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (answered) return;
    answered = true;
    stream = id;
    send.Schedule(world.loop->clock().Now() + delay);
  }
  void OnWritable(io::StreamId) override { Write(); }
  void OnEnd(io::StreamId id) override { world.loop->streams()->Close(id); }
  void OnClose(io::StreamId, const absl::Status&) override {}
  // In pieces, with a pause between them.
  void Write() {
    const size_t take = std::min(piece, answer.size());
    world.loop->streams()->Send(stream, std::as_bytes(std::span(answer.data(), take)));
    answer.erase(0, take);
    if (endless) answer += "X-Header: and so on\r\n";
    if (!answer.empty()) return send.Schedule(world.loop->clock().Now() + pause);
    if (close) world.loop->streams()->Close(stream);
  }

  WorldHost world;
  Timer send{&world.timers, [this] { Write(); }};
  std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
  size_t piece = 1 << 20;
  Duration pause{};
  Duration delay{};
  bool endless = false;
  bool close = false;
  bool answered = false;
  io::StreamId stream = io::kNoStream;
  int accepts = 0;
  std::string request;
};

class LatencyCheckTest : public ClientWorldTest {
 protected:
  static LatencyCheckOptions PlainHttp() { return {.plain_http_for_tests = true}; }
  static RelayNode NodeAt(uint8_t last) {
    RelayNode node;
    node.name = "1a";
    node.host_name = "relay.test";
    node.ipv4 = IpAddress::V4(198, 51, 100, last).ToString();
    node.ipv6 = "none";
    return node;
  }
  void Start(const RelayNode& node) {
    const absl::Status status = checks->Start(
        node, [this](absl::StatusOr<Duration> latency) { results.push_back(std::move(latency)); });
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(results.empty()) << "not from inside the call";
  }
  // The one result, in words, after `time`.
  std::string ResultAfter(Duration time) {
    Run(time);
    if (results.size() != 1) return std::to_string(results.size()) + " results";
    if (!results[0].ok()) return results[0].status().ToString();
    return std::to_string(*results[0] / milliseconds(1)) + " ms";
  }

  DialContext context{.streams = client.loop->streams(),
                      .clock = &client.loop->clock(),
                      .timers = &client.timers,
                      .resolver = &resolver,
                      .prefer_ipv6 = false,
                      .device = {}};
  std::vector<absl::StatusOr<Duration>> results;
  std::optional<LatencyChecks> checks{std::in_place, context, nullptr, PlainHttp()};
};

// spec: NC-9
TEST_F(LatencyCheckTest, MeasuresFromTheRequestToTheFirstByte) {
  RelayFixture& relay = AddRelay(1);
  resolver.Set("relay.test", {IpAddress::V4(198, 51, 100, 1)});
  resolver.delay = milliseconds(300);
  RelayNode node = relay.Node("1a");
  node.ipv4 = "";
  Start(node);
  EXPECT_EQ(ResultAfter(seconds(1)), "20 ms") << "DNS and TCP do not count";
  EXPECT_EQ(relay.clients(), 0u) << "the connection is closed";
  EXPECT_EQ(checks->running(), 0u);
}

TEST_F(LatencyCheckTest, TheServersOwnTimeCounts) {
  ScriptedServer server(&net, IpAddress::V4(198, 51, 100, 1));
  server.delay = milliseconds(700);
  // What comes after the first byte does not.
  server.piece = 1;
  server.pause = milliseconds(50);
  Start(NodeAt(1));
  EXPECT_EQ(ResultAfter(seconds(4)), "720 ms");
  EXPECT_EQ(server.request,
            "GET /derp/latency-check HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n");
}

TEST_F(LatencyCheckTest, TheHostIsNamedAsHttpWants) {
  ScriptedServer server(&net, IpAddress::V4(198, 51, 100, 1));
  RelayNode node = NodeAt(1);
  node.host_name = "";
  Start(node);
  EXPECT_EQ(ResultAfter(seconds(1)), "20 ms");
  EXPECT_THAT(server.request, HasSubstr("Host: 198.51.100.1\r\n"));
  // A map that was not read from JSON may hold anything.
  results.clear();
  node.host_name = "a\r\nX-Evil: 1";
  Start(node);
  EXPECT_THAT(ResultAfter(seconds(1)), HasSubstr("INVALID_ARGUMENT: node 1a: host"));
  EXPECT_THAT(server.request, testing::Not(HasSubstr("Evil")));
}

TEST_F(LatencyCheckTest, ASilentServerHas5Seconds) {
  RelayFixture& relay = AddRelay(1);
  relay.mute = true;
  Start(relay.Node("1a"));
  Run(milliseconds(4999));
  EXPECT_TRUE(results.empty());
  EXPECT_EQ(ResultAfter(milliseconds(1)),
            "DEADLINE_EXCEEDED: node 1a: no answer to the request in time");
  Run(seconds(3));
  EXPECT_EQ(relay.clients(), 0u) << "and is left in peace";
}

TEST_F(LatencyCheckTest, NobodyThereAndNoSuchName) {
  net.AddHost("refuses", {IpAddress::V4(198, 51, 100, 2)});
  Start(NodeAt(2));
  EXPECT_THAT(ResultAfter(seconds(1)),
              HasSubstr("UNAVAILABLE: node 1a: IPv4: TCP 198.51.100.2:443"));
  results.clear();
  RelayNode node = NodeAt(2);
  node.ipv4 = "";
  Start(node);
  EXPECT_THAT(ResultAfter(seconds(1)), HasSubstr("DNS: relay.test has no such address"));
  results.clear();
  resolver.silent = true;
  Start(node);
  EXPECT_THAT(ResultAfter(seconds(5)), HasSubstr("DEADLINE_EXCEEDED: node 1a:"));
  EXPECT_EQ(resolver.running(), 0u);
}

TEST_F(LatencyCheckTest, AnswersThatAreNone) {
  const std::pair<const char*, const char*> kAnswers[] = {
      {"SSH-2.0-OpenSSH_9.2p1 Debian", "does not speak HTTP"},
      {"HTTP/1.1x200 OK\r\n\r\n", "does not speak HTTP"},
      {"HTTP/2.0 200 OK\r\n\r\n", "does not speak HTTP"},
      {"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", "answered 302"},
      {"HTTP/1.1 204 No Content\r\n\r\n", "answered 204"},
      {"HTTP/1.1 \x01\x02\x03 \r\n\r\n", "answered"},
  };
  uint8_t last = 10;
  for (const auto& [answer, want] : kAnswers) {
    ScriptedServer server(&net, IpAddress::V4(198, 51, 100, ++last));
    server.answer = answer;
    Start(NodeAt(last));
    EXPECT_THAT(ResultAfter(seconds(1)), HasSubstr(want)) << answer;
    Run(seconds(3));  // its connection is gone before it is
    results.clear();
  }
}

TEST_F(LatencyCheckTest, AnEndInTheMiddleIsAnError) {
  ScriptedServer server(&net, IpAddress::V4(198, 51, 100, 1));
  server.answer = "HTTP/1.1";
  server.close = true;
  Start(NodeAt(1));
  EXPECT_EQ(ResultAfter(seconds(1)), "UNAVAILABLE: node 1a: closed the connection");
}

TEST_F(LatencyCheckTest, EndlessHeadersAreNotRead) {
  ScriptedServer server(&net, IpAddress::V4(198, 51, 100, 1));
  server.answer = "HTTP/1.1 200 OK\r\n";
  server.endless = true;
  server.pause = milliseconds(1);
  Start(NodeAt(1));
  EXPECT_EQ(ResultAfter(milliseconds(100)), "20 ms");
}

TEST_F(LatencyCheckTest, ADribbleHas5SecondsToo) {
  ScriptedServer server(&net, IpAddress::V4(198, 51, 100, 1));
  server.piece = 1;
  server.pause = seconds(1);
  Start(NodeAt(1));
  EXPECT_THAT(ResultAfter(seconds(5)), HasSubstr("DEADLINE_EXCEEDED"));
}

TEST_F(LatencyCheckTest, ManyAtOnceWithinBounds) {
  checks.emplace(
      context, nullptr,
      LatencyCheckOptions{.max_running = 4, .max_waiting = 8, .plain_http_for_tests = true});
  RelayFixture& relay = AddRelay(1);
  for (int i = 0; i < 12; ++i) Start(relay.Node("1a"));
  EXPECT_EQ(checks->running(), 4u);
  EXPECT_EQ(checks->waiting(), 8u);
  EXPECT_EQ(checks->Start(relay.Node("1a"), [](const auto&) { FAIL(); }).code(),
            absl::StatusCode::kResourceExhausted);
  Run(seconds(1));
  EXPECT_EQ(results.size(), 12u);
  for (const auto& result : results) {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(*result, kRoundTrip);
  }
  // Who waits behind the silent ones has no more time than they.
  relay.mute = true;
  results.clear();
  for (int i = 0; i < 5; ++i) Start(relay.Node("1a"));
  Run(seconds(5));
  ASSERT_EQ(results.size(), 5u);
  for (const auto& result : results) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded);
  }
}

TEST_F(LatencyCheckTest, CancelledAtAnyMomentItIsSilent) {
  RelayFixture& relay = AddRelay(1);
  resolver.Set("relay.test", {IpAddress::V4(198, 51, 100, 1)});
  resolver.delay = milliseconds(10);
  RelayNode node = relay.Node("1a");
  node.ipv4 = "";
  for (int ms = 0; ms < 60; ms += 3) {
    Start(node);
    Run(milliseconds(ms));
    checks->CancelAll();
    EXPECT_EQ(checks->running(), 0u);
    const size_t before = results.size();
    Run(seconds(6));
    EXPECT_EQ(results.size(), before) << ms;
    EXPECT_EQ(relay.clients(), 0u);
    results.clear();
  }
}

TEST_F(LatencyCheckTest, DoneMayStartAnotherOrDestroyThemAll) {
  RelayFixture& relay = AddRelay(1);
  int second = 0;
  ASSERT_TRUE(checks
                  ->Start(relay.Node("1a"),
                          [&](const auto&) {
                            const auto status = checks->Start(
                                relay.Node("1a"), [&](const auto&) { ++second, checks.reset(); });
                            EXPECT_TRUE(status.ok());
                          })
                  .ok());
  Run(seconds(1));
  EXPECT_EQ(second, 1);
  EXPECT_FALSE(checks.has_value());
}

// ---- TLS ----

class LatencyCheckTlsTest : public LatencyCheckTest {
 protected:
  void SetUp() override {
    const TestCertificate root = MakeTestCertificate(AuthorityNamed("root"), nullptr);
    const TestCertificate certificate = MakeTestCertificate({}, &root);
    server_tls = *TlsServerContext::Create({.meta_key = {}, .meta_certificate = false});
    ASSERT_TRUE(server_tls->Load(certificate.chain_pem(), certificate.key_pem).ok());
    TlsClientContext::Options options;
    options.roots_file = WriteTestFile("roots.pem", root.pem);
    options.unix_time = [] { return kTestTime; };
    client_tls = *TlsClientContext::Create(options);
    checks.emplace(context, client_tls.get(), LatencyCheckOptions{});
    relay = &AddRelay(1, {.bind = {}, .tls = server_tls.get(), .info = {}});
    node = relay->Node("1a");
    node.insecure_for_tests = false;
  }
  std::unique_ptr<TlsServerContext> server_tls;
  std::unique_ptr<TlsClientContext> client_tls;
  RelayFixture* relay = nullptr;
  RelayNode node;
};

TEST_F(LatencyCheckTlsTest, TheHandshakeDoesNotCount) {
  Start(node);
  EXPECT_EQ(ResultAfter(seconds(1)), "20 ms");
}

TEST_F(LatencyCheckTlsTest, AStrangersCertificateIsAnError) {
  node.host_name = "other.test";
  Start(node);
  const std::string result = ResultAfter(seconds(1));
  EXPECT_THAT(result, HasSubstr("UNAUTHENTICATED: node 1a: "));
  EXPECT_THAT(result, HasSubstr("other.test"));
}

TEST_F(LatencyCheckTlsTest, WhatIsNoTlsIsAnError) {
  ScriptedServer server(&net, IpAddress::V4(198, 51, 100, 9));
  Start(NodeAt(9));
  EXPECT_THAT(ResultAfter(seconds(1)), HasSubstr("node 1a: "));
  EXPECT_FALSE(results[0].ok());
  relay->mute = true;
  results.clear();
  Start(node);
  EXPECT_EQ(ResultAfter(seconds(5)), "DEADLINE_EXCEEDED: node 1a: TLS handshake not done in time");
}

}  // namespace
}  // namespace ringsock::derp
