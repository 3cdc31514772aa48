// A relay's side of a session: the recorded session byte for byte, then limits and bad clients.
#include "derp/server_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/derp/vectors.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Instant kStart = Instant(std::chrono::hours(1));
constexpr char kRequest[] =
    "GET /derp HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n";

// Writes every event down as text, and does with packets what a peer that echoes would.
class Recorder final : public ServerEvents {
 public:
  absl::Status OnLogin(ServerSession& session) override {
    events.push_back(
        absl::StrCat("login ", session.client().ToShortString(), session.is_mesh() ? " mesh" : ""));
    EXPECT_FALSE(session.SendHealth("too early"));
    return admit;
  }
  void OnReady(ServerSession& session) override {
    if (!health.empty()) {
      EXPECT_TRUE(session.SendHealth(health));
    }
  }
  void OnSendPacket(ServerSession&, const PublicKey& destination, Bytes packet,
                    const Frame& frame) override {
    events.push_back(absl::StrCat("packet ", packet.size()));
    TurnIntoRecv(frame, destination);
    Append(&echoed, frame.bytes);
  }
  void OnNotePreferred(ServerSession&, bool preferred) override {
    events.push_back(preferred ? "home" : "not home");
  }
  void OnPong(ServerSession&, const PingData& data) override {
    events.push_back("pong " + ToHex(data));
  }
  void OnForwardPacket(ServerSession&, const ForwardPacketFrame& frame) override {
    events.push_back(absl::StrCat("forward ", frame.packet.size()));
  }
  void OnWatchConns(ServerSession&) override { events.push_back("watch"); }
  void OnClosePeer(ServerSession&, const PublicKey&) override { events.push_back("close"); }

  std::vector<std::string> Take() { return std::exchange(events, {}); }

  absl::Status admit;
  std::string health;
  std::vector<std::string> events;
  ByteVector echoed;
};

// The relay of the recording: its private key is not known, what it shares with the client is.
class RecordedIdentity final : public ServerIdentity {
 public:
  explicit RecordedIdentity(const PublicKey& key) : ServerIdentity(key) {}
  absl::StatusOr<BoxKey> Agree(const PublicKey& client) const override {
    const PrivateKey key = RecordedClientKey();
    EXPECT_EQ(client, key.Public());
    return BoxKey::Agree(key, public_key());
  }
};

class ServerSessionTest : public ::testing::Test {
 protected:
  ServerSessionTest() {
    config_.identity = &identity_;
    config_.mesh_key = &mesh_key_;
    config_.random = &random_;
  }
  absl::Status Receive(ServerSession& session, ByteVector bytes, Instant now = kStart) {
    return session.Receive(bytes, now);
  }
  absl::Status Receive(ServerSession& session, const std::string& frame, Instant now = kStart) {
    return Receive(session, FrameVector(frame), now);
  }
  ByteVector TakeOutput(ServerSession& session) {
    const ByteVector output(session.output().begin(), session.output().end());
    session.ConsumeOutput(output.size());
    return output;
  }
  // A session past HTTP and login.
  std::unique_ptr<ServerSession> Ready(bool mesh = false) {
    auto session = std::make_unique<ServerSession>(&config_, &events_, kStart);
    EXPECT_TRUE(Receive(*session, FromText(kRequest)).ok());
    EXPECT_TRUE(Receive(*session, mesh ? MeshInfo() : FrameVector("client_info")).ok());
    EXPECT_TRUE(session->ready());
    EXPECT_EQ(session->is_mesh(), mesh);
    TakeOutput(*session);
    events_.Take();
    return session;
  }
  ByteVector MeshInfo() {
    const PrivateKey key = PrivateVector("client");
    ClientInfo info;
    info.mesh_key = mesh_key_.Clone();
    ClientLogin login(&key, std::move(info), &random_);
    OutputBuffer out(1000);
    EXPECT_TRUE(login.StartFast(PublicVector("server"), &out).ok());
    return ByteVector(out.bytes().begin(), out.bytes().end());
  }

  const ServerIdentity identity_{PrivateVector("server")};
  const MeshKey mesh_key_ = *MeshKey::Parse(std::string(64, 'a'));
  ScriptedRandom random_;
  Recorder events_;
  ServerSessionConfig config_;
};

// spec: derp.md: a whole session of the reference relay, in chunks of many sizes.
TEST_F(ServerSessionTest, RecordedSessionReplaysByteForByte) {
  const std::vector<SessionChunk> chunks = RecordedSession();
  // The ServerKey frame ends the second chunk.
  PublicKey key;
  std::copy_n(
      reinterpret_cast<const uint8_t*>(chunks[1].bytes.data()) + chunks[1].bytes.size() - kKeySize,
      kKeySize, key.bytes.begin());
  const RecordedIdentity identity(key);
  config_.identity = &identity;
  for (size_t max_chunk : {1u, 3u, 10u, 100u, 100000u}) {
    random_ = ScriptedRandom();
    random_.Script(Bytes(chunks[3].bytes).subspan(kFrameHeaderSize, kBoxNonceSize));
    SeededRandom cuts(max_chunk);
    ServerSession session(&config_, &events_, kStart);
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (chunks[i].from_client) {
        InChunks(chunks[i].bytes, max_chunk, cuts, [&](MutableBytes chunk) {
          const absl::Status status = session.Receive(chunk, kStart);
          ASSERT_TRUE(status.ok()) << status;
        });
        continue;
      }
      if (i + 1 == chunks.size()) {
        ASSERT_TRUE(session.SendPeerGone(PublicVector("peer"), PeerGoneReason::kDisconnected));
      }
      ByteVector sent = TakeOutput(session);
      Append(&sent, std::exchange(events_.echoed, {}));
      EXPECT_EQ(ToHex(sent), ToHex(chunks[i].bytes)) << "chunk " << i;
    }
    EXPECT_THAT(events_.Take(), ElementsAre("login " + RecordedClientKey().Public().ToShortString(),
                                            "home", "packet 40", "packet 40", "packet 40"));
    EXPECT_EQ(session.counters().packets_in, 3u);
    EXPECT_EQ(session.counters().bytes_in, 120u);
    EXPECT_EQ(session.counters().pings, 2u);
  }
}

// spec: derp.md, Transport: Fast start: ClientInfo comes with the request, no HTTP reply goes out.
TEST_F(ServerSessionTest, FastStart) {
  random_.Script(FromHex(Vector("/server_info_box/nonce")));
  ServerSession session(&config_, &events_, kStart);
  ByteVector bytes = FromText(
      "GET /derp HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"
      "Derp-Fast-Start: 1\r\nIdeal-Node: 1a\r\n\r\n");
  Append(&bytes, FrameVector("client_info"));
  ASSERT_TRUE(Receive(session, bytes).ok());
  EXPECT_TRUE(session.ready());
  EXPECT_EQ(session.ideal_node(), "1a");
  EXPECT_EQ(ToHex(TakeOutput(session)),
            Vector("/frames/server_key") + Vector("/frames/server_info"));
}

TEST_F(ServerSessionTest, HelperPagesCloseTheConnection) {
  ServerSession session(&config_, &events_, kStart);
  ASSERT_TRUE(Receive(session, FromText("GET /derp/probe HTTP/1.1\r\nHost: r\r\n\r\nmore")).ok());
  EXPECT_TRUE(session.close_after_output());
  EXPECT_EQ(session.http_status(), 200);
  EXPECT_TRUE(absl::StartsWith(AsText(session.output()), "HTTP/1.1 200 OK\r\n"));
  // What comes after is not looked at.
  ASSERT_TRUE(Receive(session, FromText(std::string(100000, 'x'))).ok());
  EXPECT_THAT(events_.Take(), IsEmpty());
}

TEST_F(ServerSessionTest, EndlessHeadersAreAnsweredAndClosed) {
  ServerSession session(&config_, &events_, kStart);
  ASSERT_TRUE(Receive(session, FromText("GET / HTTP/1.1\r\n" + std::string(9000, 'x'))).ok());
  EXPECT_TRUE(session.close_after_output());
  EXPECT_EQ(session.http_status(), 431);
}

// spec: derp.md, Frames: "a client that has not logged in within 10 s is dropped".
TEST_F(ServerSessionTest, SlowLoginIsDropped) {
  ServerSession session(&config_, &events_, kStart);
  EXPECT_EQ(session.deadline(), kStart + seconds(10));
  for (int second = 1; second < 10; ++second) {
    ASSERT_TRUE(Receive(session, FromText("G"), kStart + seconds(second)).ok());
    EXPECT_EQ(session.deadline(), kStart + seconds(10));
    EXPECT_TRUE(session.OnDeadline(kStart + seconds(second)).ok());
  }
  EXPECT_THAT(std::string(session.OnDeadline(kStart + seconds(10)).message()),
              HasSubstr("did not log in within 10 s"));
  EXPECT_FALSE(Receive(session, FromText("G")).ok());
  EXPECT_EQ(session.deadline(), Instant::max());
}

TEST_F(ServerSessionTest, OwnerMayRefuse) {
  events_.admit = absl::PermissionDeniedError("not on the list");
  ServerSession session(&config_, &events_, kStart);
  ASSERT_TRUE(Receive(session, FromText(kRequest)).ok());
  EXPECT_EQ(Receive(session, "client_info"), events_.admit);
  EXPECT_FALSE(session.ready());
  EXPECT_TRUE(session.output().empty());
  // Not a word of a refused client is heard.
  events_.Take();
  EXPECT_FALSE(Receive(session, "send_packet_to_peer").ok());
  EXPECT_THAT(events_.Take(), IsEmpty());
}

// spec: derp.md, Frames: Two connections with one key: both get Health.
TEST_F(ServerSessionTest, HealthFollowsServerInfo) {
  events_.health = "duplicate connection";
  ServerSession session(&config_, &events_, kStart);
  ASSERT_TRUE(Receive(session, FromText(kRequest)).ok());
  ASSERT_TRUE(Receive(session, "client_info").ok());
  EXPECT_TRUE(absl::EndsWith(ToHex(TakeOutput(session)), Vector("/frames/health_problem")));
  EXPECT_TRUE(session.SendHealth(""));
  EXPECT_EQ(ToHex(TakeOutput(session)), Vector("/frames/health_ok"));
  EXPECT_TRUE(session.SendHealth(std::string(100000, 'x')));
  EXPECT_EQ(TakeOutput(session).size(), kFrameHeaderSize + 1024);
}

// spec: derp.md, Frames: KeepAlive "every 60 s plus up to 5 s of jitter".
TEST_F(ServerSessionTest, KeepAlives) {
  const auto session = Ready();
  Instant last = kStart;
  for (int i = 0; i < 100; ++i) {
    const Instant due = session->deadline();
    EXPECT_GE(due - last, seconds(60));
    EXPECT_LE(due - last, seconds(65));
    EXPECT_TRUE(session->OnDeadline(due - milliseconds(1)).ok());
    EXPECT_TRUE(session->output().empty());
    EXPECT_TRUE(session->OnDeadline(due).ok());
    EXPECT_EQ(ToHex(TakeOutput(*session)), Vector("/frames/keep_alive"));
    last = due;
  }
}

TEST_F(ServerSessionTest, CommandsAreTheRecordedFrames) {
  const auto session = Ready();
  EXPECT_TRUE(session->SendPeerGone(PublicVector("peer"), PeerGoneReason::kNotHere));
  EXPECT_TRUE(session->SendPeerPresent({PublicVector("peer"), {}, {}}));
  EXPECT_TRUE(session->SendRestarting({milliseconds(500), milliseconds(5000)}));
  EXPECT_EQ(ToHex(TakeOutput(*session)), Vector("/frames/peer_gone_not_here") +
                                             Vector("/frames/peer_present_key_only") +
                                             Vector("/frames/restarting_500ms_5000ms"));
  EXPECT_TRUE(session->SendPing({}));
  ASSERT_TRUE(Receive(*session, "pong").ok());
  EXPECT_THAT(events_.Take(), ElementsAre("pong 0102030405060708"));
}

// spec: derp.md, Frames: PeerGone(not here) "at most 3 a second".
TEST_F(ServerSessionTest, NotHereIsLimited) {
  const auto session = Ready();
  int sent = 0;
  for (int ms = 0; ms < 10000; ++ms) {
    sent += session->SendNotHere(PublicVector("peer"), kStart + milliseconds(ms)) ? 1 : 0;
  }
  EXPECT_GE(sent, 30);
  EXPECT_LE(sent, 33);
  EXPECT_EQ(session->counters().dropped_not_here, 10000u - static_cast<uint64_t>(sent));
}

TEST_F(ServerSessionTest, DiscoPacketsAreKnownByMagicAndSize) {
  ByteVector packet = FromHex("5453f09f92ac");
  packet.resize(6 + 32 + 24);
  EXPECT_TRUE(LooksLikeDisco(packet));
  EXPECT_FALSE(LooksLikeDisco(Bytes(packet).first(61)));
  packet[5] ^= std::byte{1};
  EXPECT_FALSE(LooksLikeDisco(packet));
}

TEST_F(ServerSessionTest, MeshFramesNeedTheMeshKey) {
  for (const char* frame : {"watch_conns", "close_peer", "forward_packet_client_to_peer"}) {
    const auto client = Ready();
    EXPECT_THAT(std::string(Receive(*client, frame).message()), HasSubstr("without the mesh key"));
    EXPECT_THAT(events_.Take(), IsEmpty());
  }
  const auto mesh = Ready(true);
  for (const char* frame : {"watch_conns", "close_peer", "forward_packet_client_to_peer"}) {
    EXPECT_TRUE(Receive(*mesh, frame).ok());
  }
  EXPECT_THAT(events_.Take(), ElementsAre("watch", "close", "forward 10"));
}

TEST_F(ServerSessionTest, APingFloodIsBounded) {
  const auto session = Ready();
  for (int i = 0; i < 10000; ++i) ASSERT_TRUE(Receive(*session, "ping").ok());
  EXPECT_LE(session->output().size(), config_.max_output);
  EXPECT_GT(session->counters().dropped_pongs, 8000u);
  // A keep-alive that does not fit is not missed: bytes are on their way.
  EXPECT_TRUE(session->OnDeadline(session->deadline()).ok());
  TakeOutput(*session);
  ASSERT_TRUE(Receive(*session, "ping").ok());
  EXPECT_EQ(ToHex(TakeOutput(*session)), Vector("/frames/pong"));
}

TEST_F(ServerSessionTest, FramesOfTheOtherDirectionAreSkipped) {
  const auto session = Ready();
  for (const char* frame : {"unknown_0x7f", "recv_packet_from_peer", "server_key", "keep_alive"}) {
    EXPECT_TRUE(Receive(*session, frame).ok()) << frame;
  }
  EXPECT_EQ(session->frame_counters().skipped_unknown, 4u);
  EXPECT_THAT(events_.Take(), IsEmpty());
}

TEST_F(ServerSessionTest, BadFramesEndTheClient) {
  const std::pair<const char*, const char*> cases[] = {
      {"040000001f", "SendPacket of 31 bytes"},  // and 31 bytes
      {"0700000000", "NotePreferred of 0 bytes"}, {"1200000007", "Ping of 7 bytes"},
      {"1300000007", "Pong of 7 bytes"},          {"0400010021", "SendPacket over its bound"},
      {"12000003e9", "Ping over its bound"},      {"7f00100001", "frame over 1048576 bytes"},
  };
  for (const auto& [hex, error] : cases) {
    const auto session = Ready();
    ByteVector bytes = FromHex(hex);
    bytes.resize(kFrameHeaderSize + 31);
    EXPECT_THAT(std::string(Receive(*session, bytes).message()), HasSubstr(error)) << hex;
    EXPECT_FALSE(session->ready());
  }
  const auto session = Ready();
  EXPECT_THAT(std::string(Receive(*session, "client_info").message()),
              HasSubstr("after the login"));
}

// Of a frame that may not come at all nothing is kept until its last byte does, which may be never.
TEST_F(ServerSessionTest, WhatMayNotComeIsRefusedAtItsHeader) {
  auto session = Ready();
  EXPECT_THAT(std::string(Receive(*session, FromHex("0200008000")).message()),
              HasSubstr("ClientInfo after the login"));
  session = Ready();
  EXPECT_THAT(std::string(Receive(*session, FromHex("0a00010040")).message()),
              HasSubstr("ForwardPacket without the mesh key"));
  session = Ready(/*mesh=*/true);
  EXPECT_TRUE(Receive(*session, FromHex("0a00010040")).ok());
  // Before the login.
  ServerSession begun(&config_, &events_, kStart);
  ASSERT_TRUE(Receive(begun, FromText(kRequest)).ok());
  EXPECT_THAT(std::string(Receive(begun, FromHex("0200008001")).message()),
              HasSubstr("ClientInfo over its bound"));
}

// 10,000 idle clients are to fit in little memory: the session itself is a small part of it.
TEST_F(ServerSessionTest, IdleSessionsAreSmall) { EXPECT_LE(sizeof(ServerSession), 1024u); }

}  // namespace
}  // namespace ringsock::derp
