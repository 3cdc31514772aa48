// A client's session: the recorded session byte for byte, then limits, silence and bad relays.
#include "derp/client_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/derp/vectors.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using SendResult = ClientSession::SendResult;

const Instant kStart = Instant(std::chrono::hours(1));
constexpr char kReply[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n";

// Writes every event down as text.
class Recorder final : public ClientEvents {
 public:
  void OnReady(const ServerInfo& info) override {
    events.push_back(absl::StrCat("ready ", info.token_bucket_bytes_per_second));
  }
  void OnPacket(const PublicKey& source, Bytes packet) override {
    events.push_back(absl::StrCat("packet ", source == PublicVector("peer") ? "peer" : "other", " ",
                                  ToHex(packet)));
  }
  void OnPeerGone(const PublicKey&, PeerGoneReason reason) override {
    events.push_back(absl::StrCat("gone ", static_cast<int>(reason)));
  }
  void OnHealth(absl::string_view problem) override {
    events.push_back(absl::StrCat("health ", problem));
  }
  void OnRestarting(const RestartingFrame& frame) override {
    events.push_back(
        absl::StrCat("restarting ", frame.reconnect_in.count(), " ", frame.try_for.count()));
  }
  void OnPong(const PingData& data) override { events.push_back("pong " + ToHex(data)); }
  void OnPeerPresent(const PeerPresentFrame& frame) override {
    events.push_back(absl::StrCat(
        "present ", frame.endpoint.has_value() ? frame.endpoint->ToString() : "nowhere"));
  }

  std::vector<std::string> Take() { return std::exchange(events, {}); }
  std::vector<std::string> events;
};

class ClientSessionTest : public ::testing::Test {
 protected:
  std::unique_ptr<ClientSession> MakeSession(const PrivateKey& key) {
    ClientSessionOptions options;
    options.http = {.host = "127.0.0.1:18081", .user_agent = "Go-http-client/1.1"};
    return std::make_unique<ClientSession>(std::move(options), &key, &random_, &events_);
  }
  absl::Status Receive(ClientSession& session, ByteVector bytes, Instant now = kStart) {
    return session.Receive(bytes, now);
  }
  absl::Status Receive(ClientSession& session, const std::string& frame, Instant now = kStart) {
    return Receive(session, FrameVector(frame), now);
  }
  ByteVector TakeOutput(ClientSession& session) {
    const ByteVector output(session.output().begin(), session.output().end());
    session.ConsumeOutput(output.size());
    return output;
  }
  // A session past HTTP and login.
  std::unique_ptr<ClientSession> ReadySession(const std::string& server_info = "server_info") {
    auto session = MakeSession(key_);
    EXPECT_TRUE(session->Start(kStart, kStart + kConnectTimeout, nullptr).ok());
    EXPECT_TRUE(Receive(*session, FromText(kReply)).ok());
    EXPECT_TRUE(Receive(*session, "server_key").ok());
    EXPECT_TRUE(Receive(*session, server_info).ok());
    EXPECT_TRUE(session->ready());
    TakeOutput(*session);
    events_.Take();
    return session;
  }

  const PrivateKey key_ = PrivateVector("client");
  ScriptedRandom random_;
  Recorder events_;
  ByteVector out_ = ByteVector(2 * kMaxPacket);
};

// What the client of the recording does after each chunk of the server.
void Act(ClientSession& session, size_t chunk, Bytes recorded, ByteVector* packets) {
  if (chunk == 2) {
    ASSERT_TRUE(session.NotePreferred(true));
  } else if (chunk == 4 || chunk == 6) {
    PingData data;
    std::copy_n(recorded.begin() + kFrameHeaderSize, data.size(), data.begin());
    ASSERT_TRUE(session.Ping(data));
  } else if (chunk >= 8) {
    packets->resize(2000);
    size_t written = 0;
    ASSERT_EQ(session.SendPacket(PublicVector("peer"), recorded.subspan(kPacketHeaderSize), kStart,
                                 *packets, &written),
              SendResult::kOk);
    packets->resize(written);
  }
}

// spec: derp.md: a whole session of the reference client, in chunks of many sizes.
TEST_F(ClientSessionTest, RecordedSessionReplaysByteForByte) {
  const PrivateKey key = RecordedClientKey();
  const std::vector<SessionChunk> chunks = RecordedSession();
  for (size_t max_chunk : {1u, 3u, 10u, 100u, 100000u}) {
    // The nonce that the reference drew stands behind the client's key.
    random_ = ScriptedRandom();
    random_.Script(Bytes(chunks[2].bytes).subspan(kPacketHeaderSize, kBoxNonceSize));
    SeededRandom cuts(max_chunk);
    const auto session = MakeSession(key);
    ASSERT_TRUE(session->Start(kStart, kStart + kConnectTimeout, nullptr).ok());
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (!chunks[i].from_client) {
        InChunks(chunks[i].bytes, max_chunk, cuts, [&](MutableBytes chunk) {
          const absl::Status status = session->Receive(chunk, kStart);
          ASSERT_TRUE(status.ok()) << status;
        });
        continue;
      }
      ByteVector packets;
      Act(*session, i, chunks[i].bytes, &packets);
      ByteVector sent = TakeOutput(*session);
      Append(&sent, packets);
      EXPECT_EQ(ToHex(sent), ToHex(chunks[i].bytes)) << "chunk " << i;
    }
    const std::string zeroes(72, '0');  // 40 bytes of packet, less the number
    EXPECT_THAT(events_.Take(),
                ElementsAre("ready 0", "pong cfb2724edd99025e", "pong 7cf51237fc49e709",
                            "packet peer 00000000" + zeroes, "packet peer 00000001" + zeroes,
                            "packet peer 00000002" + zeroes, "gone 0"));
  }
}

// spec: derp.md, Transport: Fast start.
TEST_F(ClientSessionTest, FastStartSavesTheRoundTrip) {
  random_.Script(FromHex(Vector("/client_info_box/nonce")));
  const auto session = MakeSession(key_);
  const PublicKey server = PublicVector("server");
  ASSERT_TRUE(session->Start(kStart, kStart + kConnectTimeout, &server).ok());
  const ByteVector sent = TakeOutput(*session);
  EXPECT_THAT(std::string(AsText(sent)), HasSubstr("\r\nDerp-Fast-Start: 1\r\n"));
  const ByteVector info = FrameVector("client_info");
  ASSERT_GE(sent.size(), info.size());
  EXPECT_EQ(ToHex(Bytes(sent).last(info.size())), ToHex(info));
  // Packets may follow at once; no HTTP reply comes.
  EXPECT_TRUE(session->can_send());
  EXPECT_FALSE(session->ready());
  ASSERT_TRUE(Receive(*session, "server_key").ok());
  ASSERT_TRUE(Receive(*session, "server_info").ok());
  EXPECT_TRUE(session->ready());
}

// spec: derp.md, Frames: Ping is echoed.
TEST_F(ClientSessionTest, PingsAreAnswered) {
  const auto session = ReadySession();
  ASSERT_TRUE(Receive(*session, "ping").ok());
  EXPECT_EQ(ToHex(TakeOutput(*session)), Vector("/frames/pong"));
}

TEST_F(ClientSessionTest, APingFloodIsBounded) {
  const auto session = ReadySession();
  for (int i = 0; i < 10000; ++i) ASSERT_TRUE(Receive(*session, "ping").ok());
  EXPECT_LE(session->output().size(), 16384u);
  EXPECT_GT(session->counters().dropped_pongs, 8000u);
  // Once it is sent, pings are answered again.
  TakeOutput(*session);
  ASSERT_TRUE(Receive(*session, "ping").ok());
  EXPECT_EQ(session->output().size(), 13u);
}

TEST_F(ClientSessionTest, EventsOfEveryFrame) {
  const auto session = ReadySession();
  for (const char* frame :
       {"recv_packet_from_peer", "keep_alive", "peer_gone_not_here", "peer_gone_old_no_reason",
        "health_problem", "health_ok", "restarting_500ms_5000ms", "pong", "peer_present_addr_v4",
        "peer_present_key_only", "unknown_0x7f"}) {
    ASSERT_TRUE(Receive(*session, frame).ok()) << frame;
  }
  EXPECT_THAT(events_.Take(),
              ElementsAre("packet peer 0400000001020304fffe", "gone 1", "gone 0",
                          "health duplicate connection", "health ", "restarting 500 5000",
                          "pong 0102030405060708", "present 192.0.2.7:4321", "present nowhere"));
  EXPECT_EQ(session->counters().keep_alives, 1u);
  EXPECT_EQ(session->counters().packets_in, 1u);
  EXPECT_EQ(session->counters().bytes_in, 10u);
  EXPECT_EQ(session->frame_counters().skipped_unknown, 1u);
}

// spec: derp.md, Frames: "A client drops short frames … and goes on".
TEST_F(ClientSessionTest, ShortFramesAreDroppedAndCounted) {
  const auto session = ReadySession();
  for (const char* name : {"recv_packet_from_peer", "peer_gone_disconnected", "ping", "pong",
                           "restarting_500ms_5000ms", "peer_present_key_only"}) {
    ByteVector frame = FrameVector(name);
    frame.resize(kFrameHeaderSize + 7);
    frame[1] = frame[2] = frame[3] = std::byte{0};
    frame[4] = std::byte{7};
    ASSERT_TRUE(Receive(*session, frame).ok()) << name;
  }
  EXPECT_EQ(session->counters().dropped_short, 6u);
  EXPECT_THAT(events_.Take(), IsEmpty());
  EXPECT_TRUE(session->ready());
}

TEST_F(ClientSessionTest, LoginFramesAfterTheLoginAreDropped) {
  const auto session = ReadySession();
  ASSERT_TRUE(Receive(*session, "server_key").ok());
  ASSERT_TRUE(Receive(*session, "server_info").ok());
  EXPECT_EQ(session->counters().dropped_out_of_order, 2u);
  EXPECT_TRUE(session->output().empty());
}

TEST_F(ClientSessionTest, FramesOutOfOrderEndTheLogin) {
  const auto session = MakeSession(key_);
  ASSERT_TRUE(session->Start(kStart, kStart + kConnectTimeout, nullptr).ok());
  ASSERT_TRUE(Receive(*session, FromText(kReply)).ok());
  const absl::Status status = Receive(*session, "recv_packet_from_peer");
  EXPECT_THAT(std::string(status.message()), HasSubstr("RecvPacket in place of ServerKey"));
  // And stays ended.
  EXPECT_EQ(Receive(*session, "server_key"), status);
  EXPECT_EQ(session->deadline(), Instant::max());
  EXPECT_FALSE(session->can_send());
}

TEST_F(ClientSessionTest, AFrameOverOneMebibyteEndsIt) {
  const auto session = ReadySession();
  EXPECT_FALSE(Receive(*session, FromHex("0500100001")).ok());
  EXPECT_FALSE(session->ready());
}

// spec: derp.md, Frames: Login: the token bucket: "dropping what is over".
TEST_F(ClientSessionTest, RateLimitOfTheRelayIsKept) {
  const auto session = ReadySession("server_info_token_bucket");  // 1 MB/s, burst 131,072
  const ByteVector packet(1400);
  size_t written = 0;
  int sent = 0;
  while (session->SendPacket(PublicVector("peer"), packet, kStart, out_, &written) ==
         SendResult::kOk) {
    ++sent;
    ASSERT_LT(sent, 1000);
  }
  EXPECT_EQ(sent, 131072 / (1400 + 37));
  EXPECT_EQ(session->counters().dropped_rate_limit, 1u);
  EXPECT_EQ(
      session->SendPacket(PublicVector("peer"), packet, kStart + milliseconds(2), out_, &written),
      SendResult::kOk);
}

TEST_F(ClientSessionTest, SendingNeedsALoginRoomAndSize) {
  const auto fresh = MakeSession(key_);
  const ByteVector packet(kMaxPacket + 1);
  const PublicKey peer = PublicVector("peer");
  size_t written = 0;
  EXPECT_EQ(fresh->SendPacket(peer, {}, kStart, out_, &written), SendResult::kNotReady);
  EXPECT_FALSE(fresh->NotePreferred(true));
  const auto session = ReadySession();
  EXPECT_EQ(session->SendPacket(peer, packet, kStart, out_, &written), SendResult::kTooLarge);
  EXPECT_EQ(session->SendPacket(peer, Bytes(packet).first(10), kStart, MutableBytes(out_).first(46),
                                &written),
            SendResult::kNoRoom);
  EXPECT_EQ(session->SendPacket(peer, Bytes(packet).first(kMaxPacket), kStart, out_, &written),
            SendResult::kOk);
  EXPECT_EQ(written, kPacketHeaderSize + kMaxPacket);
}

TEST_F(ClientSessionTest, MeshCommands) {
  const auto session = ReadySession();
  EXPECT_TRUE(session->WatchConns());
  EXPECT_TRUE(session->ClosePeer(PublicVector("peer")));
  EXPECT_EQ(ToHex(TakeOutput(*session)),
            Vector("/frames/watch_conns") + Vector("/frames/close_peer"));
  size_t written = 0;
  ASSERT_EQ(session->ForwardPacket(PublicVector("client"), PublicVector("peer"),
                                   FromHex(Vector("/packet")), out_, &written),
            SendResult::kOk);
  EXPECT_EQ(ToHex(Bytes(out_).first(written)), Vector("/frames/forward_packet_client_to_peer"));
}

// spec: derp.md, Transport: "the whole connect has 10 s".
TEST_F(ClientSessionTest, LoginHasADeadline) {
  const auto session = MakeSession(key_);
  ASSERT_TRUE(session->Start(kStart, kStart + kConnectTimeout, nullptr).ok());
  EXPECT_EQ(session->deadline(), kStart + kConnectTimeout);
  // Bytes that trickle in do not move it.
  ASSERT_TRUE(Receive(*session, FromText("HTTP/1.1 "), kStart + seconds(9)).ok());
  EXPECT_EQ(session->deadline(), kStart + kConnectTimeout);
  EXPECT_TRUE(session->OnDeadline(kStart + milliseconds(9999)).ok());
  EXPECT_EQ(session->OnDeadline(kStart + seconds(10)).message(), "no HTTP reply from the relay");
}

// spec: derp.md, Frames: "it treats 120 s of silence as death".
TEST_F(ClientSessionTest, SilenceIsDeath) {
  const auto session = ReadySession();
  EXPECT_EQ(session->deadline(), kStart + seconds(120));
  ASSERT_TRUE(Receive(*session, "keep_alive", kStart + seconds(65)).ok());
  EXPECT_EQ(session->deadline(), kStart + seconds(185));
  EXPECT_TRUE(session->OnDeadline(kStart + seconds(120)).ok());
  EXPECT_THAT(std::string(session->OnDeadline(kStart + seconds(185)).message()),
              HasSubstr("no sign of life"));
  EXPECT_FALSE(session->ready());
}

TEST_F(ClientSessionTest, TheEndOfTheStreamSaysWhatIsKnown) {
  const auto session = ReadySession();
  EXPECT_EQ(session->OnStreamEnd().message(), "relay closed the connection");
  const auto refused = MakeSession(key_);
  ASSERT_TRUE(refused->Start(kStart, kStart + kConnectTimeout, nullptr).ok());
  ASSERT_TRUE(Receive(*refused, FromText("HTTP/1.1 503 Full\r\n\r\ncome later")).ok());
  EXPECT_EQ(refused->OnStreamEnd().message(), "relay answered 503 Full: come later");
}

TEST_F(ClientSessionTest, HealthTextIsMadePrintable) {
  const auto session = ReadySession();
  ByteVector frame(kFrameHeaderSize + 10);
  frame.resize(Encode(HealthFrame{"a\nb\x1b[0m"}, frame));
  ASSERT_TRUE(Receive(*session, frame).ok());
  EXPECT_THAT(events_.Take(), ElementsAre("health a b?[0m"));
}

}  // namespace
}  // namespace ringsock::derp
