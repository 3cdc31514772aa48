// Login of both roles: the recorded frames byte for byte, then everything that must end it.
#include "derp/login.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/derp/vectors.h"

namespace ringsock::derp {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMaxOutput = 1 << 20;

class LoginTest : public ::testing::Test {
 protected:
  // A frame as the decoder gives it; the bytes stay until the next call.
  Frame View(ByteVector bytes) {
    bytes_ = std::move(bytes);
    return Frame{static_cast<FrameType>(bytes_[0]), bytes_};
  }
  Frame Recorded(const std::string& name) { return View(FrameVector(name)); }
  // A ClientInfo frame around any JSON.
  Frame SealedClientInfo(absl::string_view json) {
    const BoxKey box = *BoxKey::Agree(PrivateVector("client"), PublicVector("server"));
    const ByteVector sealed = box.SealWithNonce(FromText(json), random_);
    ByteVector out(kPacketHeaderSize + sealed.size());
    Encode(ClientInfoFrame{PublicVector("client"), sealed}, out);
    return View(out);
  }
  Frame SealedServerInfo(absl::string_view json) {
    const BoxKey box = *BoxKey::Agree(PrivateVector("server"), PublicVector("client"));
    const ByteVector sealed = box.SealWithNonce(FromText(json), random_);
    ByteVector out(kPacketHeaderSize + sealed.size());
    out.resize(Encode(ServerInfoFrame{sealed}, out));
    return View(out);
  }

  const PrivateKey client_key_ = PrivateVector("client");
  const ServerIdentity identity_{PrivateVector("server")};
  const MeshKey mesh_key_ = *MeshKey::Parse(std::string(64, 'a'));
  ScriptedRandom random_;
  OutputBuffer out_{kMaxOutput};
  ByteVector bytes_;
};

// spec: derp.md, Frames: Login.
TEST_F(LoginTest, ClientSendsTheRecordedFrame) {
  random_.Script(FromHex(Vector("/client_info_box/nonce")));
  ClientLogin login(&client_key_, ClientInfo{}, &random_);
  ASSERT_TRUE(login.OnFrame(Recorded("server_key"), &out_).ok());
  EXPECT_EQ(ToHex(out_.bytes()), Vector("/frames/client_info"));
  EXPECT_TRUE(login.can_send());
  EXPECT_FALSE(login.done());
  EXPECT_EQ(login.server_key(), PublicVector("server"));
  ASSERT_TRUE(login.OnFrame(Recorded("server_info"), &out_).ok());
  EXPECT_TRUE(login.done());
  EXPECT_EQ(login.server_info().token_bucket_bytes_per_second, 0u);
}

TEST_F(LoginTest, ClientReadsTheTokenBucket) {
  ClientLogin login(&client_key_, ClientInfo{}, &random_);
  ASSERT_TRUE(login.OnFrame(Recorded("server_key"), &out_).ok());
  ASSERT_TRUE(login.OnFrame(Recorded("server_info_token_bucket"), &out_).ok());
  EXPECT_EQ(login.server_info().token_bucket_bytes_per_second, 1000000u);
  EXPECT_EQ(login.server_info().token_bucket_bytes_burst, 131072u);
}

TEST_F(LoginTest, ServerSendsTheRecordedFrames) {
  random_.Script(FromHex(Vector("/server_info_box/nonce")));
  ServerLogin login(&identity_, nullptr, ServerInfo{}, &random_);
  ASSERT_TRUE(login.Start(&out_).ok());
  EXPECT_EQ(ToHex(out_.bytes()), Vector("/frames/server_key"));
  out_.Clear();
  ASSERT_TRUE(login.OnFrame(Recorded("client_info")).ok());
  EXPECT_EQ(login.client(), PublicVector("client"));
  EXPECT_TRUE(login.client_info().can_ack_pings);
  EXPECT_FALSE(login.is_mesh());
  ASSERT_TRUE(login.Accept(&out_).ok());
  EXPECT_EQ(ToHex(out_.bytes()), Vector("/frames/server_info"));
}

TEST_F(LoginTest, ServerSendsTheRecordedTokenBucket) {
  random_.Script(FromHex(Vector("/server_info_token_bucket_box/nonce")));
  const ServerInfo info{.token_bucket_bytes_per_second = 1000000,
                        .token_bucket_bytes_burst = 131072};
  ServerLogin login(&identity_, nullptr, info, &random_);
  ASSERT_TRUE(login.OnFrame(Recorded("client_info")).ok());
  ASSERT_TRUE(login.Accept(&out_).ok());
  EXPECT_EQ(ToHex(out_.bytes()), Vector("/frames/server_info_token_bucket"));
}

// spec: derp.md, Transport: "The server-key frame is still sent, and the client ignores it."
TEST_F(LoginTest, FastStartSendsFirstAndIgnoresTheServerKey) {
  random_.Script(FromHex(Vector("/client_info_box/nonce")));
  ClientLogin login(&client_key_, ClientInfo{}, &random_);
  ASSERT_TRUE(login.StartFast(PublicVector("server"), &out_).ok());
  EXPECT_EQ(ToHex(out_.bytes()), Vector("/frames/client_info"));
  ByteVector other_key = FrameVector("server_key");
  other_key.back() ^= std::byte{1};
  ASSERT_TRUE(login.OnFrame(View(other_key), &out_).ok());
  EXPECT_EQ(login.server_key(), PublicVector("server"));
  ASSERT_TRUE(login.OnFrame(Recorded("server_info"), &out_).ok());
  EXPECT_TRUE(login.done());
}

TEST_F(LoginTest, WrongMagicEndsTheLogin) {
  ByteVector bytes = FrameVector("server_key");
  bytes[kFrameHeaderSize] ^= std::byte{1};
  ClientLogin login(&client_key_, ClientInfo{}, &random_);
  EXPECT_THAT(std::string(login.OnFrame(View(bytes), &out_).message()), HasSubstr("magic"));
  EXPECT_TRUE(out_.empty());
}

TEST_F(LoginTest, LowOrderKeysEndTheLogin) {
  ByteVector bytes = FrameVector("server_key");
  std::fill(bytes.end() - kKeySize, bytes.end(), std::byte{0});
  ClientLogin client(&client_key_, ClientInfo{}, &random_);
  EXPECT_THAT(std::string(client.OnFrame(View(bytes), &out_).message()), HasSubstr("low order"));
  bytes = FrameVector("client_info");
  std::fill_n(bytes.begin() + kFrameHeaderSize, kKeySize, std::byte{0});
  ServerLogin server(&identity_, nullptr, ServerInfo{}, &random_);
  EXPECT_THAT(std::string(server.OnFrame(View(bytes)).message()), HasSubstr("low order"));
}

TEST_F(LoginTest, BoxesThatDoNotOpenEndTheLogin) {
  for (const size_t cut : {0u, 1u, 40u}) {
    ByteVector bytes = FrameVector("client_info");
    bytes.back() ^= std::byte{1};
    bytes.resize(bytes.size() - cut);
    ServerLogin server(&identity_, nullptr, ServerInfo{}, &random_);
    EXPECT_FALSE(server.OnFrame(View(bytes)).ok());
    // Nobody was let in.
    EXPECT_FALSE(server.Accept(&out_).ok());
  }
  ClientLogin client(&client_key_, ClientInfo{}, &random_);
  ASSERT_TRUE(client.OnFrame(Recorded("server_key"), &out_).ok());
  ByteVector bytes = FrameVector("server_info");
  bytes.back() ^= std::byte{1};
  EXPECT_THAT(std::string(client.OnFrame(View(bytes), &out_).message()), HasSubstr("ServerInfo"));
  EXPECT_FALSE(client.done());
}

// A box made with somebody else's private key under the client's name.
TEST_F(LoginTest, ClientMustHaveTheKeyItClaims) {
  const BoxKey box = *BoxKey::Agree(PrivateVector("peer"), PublicVector("server"));
  const ByteVector sealed = box.SealWithNonce(FromText(ToJson(ClientInfo{})), random_);
  ByteVector out(kPacketHeaderSize + sealed.size());
  Encode(ClientInfoFrame{PublicVector("client"), sealed}, out);
  ServerLogin server(&identity_, nullptr, ServerInfo{}, &random_);
  EXPECT_FALSE(server.OnFrame(View(out)).ok());
}

TEST_F(LoginTest, FramesOutOfOrderEndTheLogin) {
  ClientLogin early(&client_key_, ClientInfo{}, &random_);
  EXPECT_FALSE(early.OnFrame(Recorded("recv_packet_from_peer"), &out_).ok());
  EXPECT_FALSE(early.OnFrame(Recorded("server_info"), &out_).ok());
  ClientLogin twice(&client_key_, ClientInfo{}, &random_);
  ASSERT_TRUE(twice.OnFrame(Recorded("server_key"), &out_).ok());
  EXPECT_THAT(std::string(twice.OnFrame(Recorded("server_key"), &out_).message()),
              HasSubstr("ServerKey in place of ServerInfo"));
  ClientLogin fast(&client_key_, ClientInfo{}, &random_);
  ASSERT_TRUE(fast.StartFast(PublicVector("server"), &out_).ok());
  ASSERT_TRUE(fast.OnFrame(Recorded("server_key"), &out_).ok());
  EXPECT_FALSE(fast.OnFrame(Recorded("server_key"), &out_).ok());
  ServerLogin server(&identity_, nullptr, ServerInfo{}, &random_);
  EXPECT_FALSE(server.OnFrame(Recorded("send_packet_to_peer")).ok());
}

// spec: derp.md, Frames: "meshKey", 64 hex digits.
TEST_F(LoginTest, MeshKeyMakesAMesh) {
  ClientInfo info;
  info.mesh_key = mesh_key_.Clone();
  const std::string json = ToJson(info);
  ServerLogin mesh(&identity_, &mesh_key_, ServerInfo{}, &random_);
  ASSERT_TRUE(mesh.OnFrame(SealedClientInfo(json)).ok());
  EXPECT_TRUE(mesh.is_mesh());
  EXPECT_TRUE(mesh.client_info().mesh_key.IsZero());  // not kept

  const MeshKey other = *MeshKey::Parse(std::string(64, 'b'));
  ServerLogin wrong(&identity_, &other, ServerInfo{}, &random_);
  ASSERT_TRUE(wrong.OnFrame(SealedClientInfo(json)).ok());
  EXPECT_FALSE(wrong.is_mesh());

  // A server without a mesh key takes no key for its own, an empty one least of all.
  const MeshKey none;
  ServerLogin without(&identity_, &none, ServerInfo{}, &random_);
  ASSERT_TRUE(without.OnFrame(SealedClientInfo(ToJson(ClientInfo{}))).ok());
  EXPECT_FALSE(without.is_mesh());
}

TEST_F(LoginTest, JsonOfBothSides) {
  EXPECT_EQ(ToJson(ClientInfo{}), Vector("/client_info_box/json"));
  EXPECT_EQ(ToJson(ServerInfo{}), Vector("/server_info_box/json"));
  ClientInfo info;
  info.is_prober = true;
  info.app_name = "gate\"way";
  const auto parsed = ParseClientInfo(ToJson(info));
  ASSERT_TRUE(parsed.ok());
  EXPECT_TRUE(parsed->is_prober);
  EXPECT_EQ(parsed->app_name, "gate\"way");
  // Unknown fields, blanks, null.
  EXPECT_TRUE(ParseClientInfo(R"( {"new":[{}], "version" : 3, "meshKey":null} )").ok());
}

TEST_F(LoginTest, BadJsonSaysWhich) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "no JSON"},
      {"[]", "not a JSON object"},
      {"{", "no JSON"},
      {R"({"version":2}x)", "no JSON"},
      {R"({"version":"2"})", "version: not a whole number"},
      {R"({"version":2.5})", "version: not a whole number"},
      {R"({})", "version: DERP protocol 0"},
      {R"({"version":1})", "version: DERP protocol 1"},
      {R"({"version":-1})", "version: -1"},
      {R"({"version":99999999999999999999})", "version: not a whole number"},
      {R"({"version":18446744073709551615})", "version: 18446744073709551615"},
      {R"({"version":2,"version":2})", "\"version\" is there twice"},
      {R"({"version":2,"meshKey":"abc"})", "meshKey: not 64 hex digits"},
      {R"({"version":2,"CanAckPings":1})", "CanAckPings: not true or false"},
      {R"({"version":2,"AppName":{}})", "AppName: not a string"},
      {"{\"version\":2,\"AppName\":\"\xff\"}", "no JSON"},
  };
  for (const auto& [json, error] : cases) {
    const auto info = ParseClientInfo(json);
    ASSERT_FALSE(info.ok()) << json;
    EXPECT_THAT(std::string(info.status().message()), HasSubstr(error)) << json;
    ServerLogin server(&identity_, nullptr, ServerInfo{}, &random_);
    EXPECT_THAT(std::string(server.OnFrame(SealedClientInfo(json)).message()), HasSubstr(error));
  }
  EXPECT_FALSE(ParseServerInfo(R"({"version":2,"TokenBucketBytesPerSecond":-1})").ok());
  EXPECT_FALSE(ParseServerInfo(R"({"version":2,"TokenBucketBytesBurst":1e9})").ok());
}

TEST_F(LoginTest, JsonBombsAreBounded) {
  const std::string deep = absl::StrCat(R"({"a":)", std::string(20000, '['));
  std::string wide = R"({"version":2,"a":[0)";
  for (int i = 0; i < 1000; ++i) wide += ",0";
  wide += "]}";
  const std::string large = absl::StrCat(R"({"version":2,"a":")", std::string(1 << 16, 'x'), "\"}");
  for (const auto& [json, error] :
       {std::pair(deep, "nested deeper than 8"), std::pair(wide, "more than 256 values"),
        std::pair(large, "bytes, over 65536")}) {
    const auto info = ParseClientInfo(json);
    EXPECT_THAT(std::string(info.status().message()), HasSubstr(error));
    if (json.size() > 50000) continue;  // over the bound of a ServerInfo frame already
    ClientLogin client(&client_key_, ClientInfo{}, &random_);
    ASSERT_TRUE(client.OnFrame(Recorded("server_key"), &out_).ok());
    EXPECT_THAT(std::string(client.OnFrame(SealedServerInfo(json), &out_).message()),
                HasSubstr(error));
  }
}

TEST_F(LoginTest, AppNameIsMadePrintable) {
  const auto info = ParseClientInfo("{\"version\":2,\"AppName\":\"a\\u0000b\\u001b[31m\\u00e9\"}");
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->app_name, "a?b?[31m??");
}

TEST_F(LoginTest, FullOutputIsAnError) {
  OutputBuffer small(20);
  ServerLogin server(&identity_, nullptr, ServerInfo{}, &random_);
  EXPECT_FALSE(server.Start(&small).ok());
  ClientLogin client(&client_key_, ClientInfo{}, &random_);
  EXPECT_FALSE(client.OnFrame(Recorded("server_key"), &small).ok());
}

}  // namespace
}  // namespace ringsock::derp
