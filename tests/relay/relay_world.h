// What the tests of the relay share: a relay on the simulated network, and clients of it that keep
// what they get. Worker i of the relay has a host of its own, so that a test says which worker a
// client talks to.
#ifndef RINGSOCK_TESTS_RELAY_RELAY_WORLD_H_
#define RINGSOCK_TESTS_RELAY_RELAY_WORLD_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "derp/client_session.h"
#include "derp/tls.h"
#include "io/sim_network.h"
#include "relay/server_impl.h"

namespace ringsock::relay {

inline constexpr uint16_t kRelayPort = 443;

inline PrivateKey KeyOf(uint8_t number) {
  std::array<uint8_t, kKeySize> bytes{};
  bytes.fill(number);
  bytes[0] = 8;
  bytes[31] = static_cast<uint8_t>(64 | (number & 63));
  return PrivateKey::FromBytes(bytes);
}

// A connection to a relay, on whatever loop.
class TestClient final : private io::StreamHandler,
                         private derp::ClientEvents,
                         private derp::TlsSink,
                         private derp::TlsEvents {
 public:
  struct Config {
    derp::MeshKey mesh_key = {};
    bool login = true;  // false: bytes are those of SendRaw() alone
    derp::TlsClientContext* tls = nullptr;
    derp::TlsTarget target = {};
    int receive_buffer = 0;
  };

  // The loop outlives it.
  TestClient(io::Loop* loop, PrivateKey key, const Endpoint& relay, Config config);
  ~TestClient() override;

  const PublicKey& key() const { return public_key_; }
  bool ready() const { return session_ != nullptr && session_->ready(); }
  derp::ClientSession& session() { return *session_; }
  // True if the stream took the whole frame.
  bool Send(const PublicKey& to, const std::string& packet);
  void Forward(const PublicKey& source, const PublicKey& to, const std::string& packet);
  bool SendRaw(const std::string& bytes);
  void SetReceiving(bool on) { loop_->streams()->SetReceiving(stream_, on); }
  void Shutdown() { loop_->streams()->Shutdown(stream_); }
  void Close() { loop_->streams()->Close(stream_); }
  void Abort() { loop_->streams()->Abort(stream_); }
  // What came, as "packet|packet|" of one source or of all.
  std::string Text(const TestClient* from = nullptr) const;

  std::vector<std::pair<PublicKey, std::string>> packets;
  std::vector<std::pair<PublicKey, derp::PeerGoneReason>> gone;
  std::vector<PublicKey> present;
  std::vector<std::string> health;
  std::vector<derp::RestartingFrame> restarting;
  bool connected = false;
  bool closed = false;  // by the relay: an end, a reset, or an error
  absl::Status why;
  std::string raw;  // bytes received, if !Config::login
  uint64_t bytes_received = 0;
  std::function<void()> on_packet;

 private:
  void OnConnect(io::StreamId) override;
  void OnReceive(io::StreamId, std::span<std::byte> bytes) override;
  void OnWritable(io::StreamId) override {}
  void OnEnd(io::StreamId) override { closed = true; }
  void OnClose(io::StreamId, const absl::Status& status) override;
  void OnReady(const derp::ServerInfo&) override {}
  void OnPacket(const PublicKey& source, derp::Bytes packet) override;
  void OnPeerGone(const PublicKey& peer, derp::PeerGoneReason reason) override {
    gone.emplace_back(peer, reason);
  }
  void OnHealth(absl::string_view problem) override { health.emplace_back(problem); }
  void OnRestarting(const derp::RestartingFrame& frame) override { restarting.push_back(frame); }
  void OnPong(const derp::PingData&) override {}
  void OnPeerPresent(const derp::PeerPresentFrame& frame) override {
    present.push_back(frame.peer);
  }
  size_t Room() const override { return loop_->streams()->SendRoom(stream_); }
  void Write(std::span<const std::byte> bytes) override { loop_->streams()->Send(stream_, bytes); }
  void OnHandshakeDone() override { StartSession(); }
  absl::Status OnPlaintext(std::span<std::byte> bytes) override;
  void StartSession();
  void SendOutput();
  bool SendBytes(derp::Bytes bytes);
  void Fail(const absl::Status& status);
  Instant now() const { return loop_->clock().Now(); }

  io::Loop* const loop_;
  const PrivateKey key_;
  const PublicKey public_key_;
  const Config config_;
  SeededRandom random_{7};
  io::StreamId stream_ = io::kNoStream;
  std::unique_ptr<derp::TlsSession> tls_;
  std::unique_ptr<derp::ClientSession> session_;
};

// A relay of one or more workers, and the network it is on.
class RelayTest : public testing::Test {
 protected:
  ~RelayTest() override {
    clients_.clear();
    loops_.clear();
    if (HasFailure()) ADD_FAILURE() << net_.Describe();
  }

  // With options_, which may be changed before.
  void Start(int workers = 1) { server_ = Open(std::move(options_), workers); }
  // A further one, on the hosts that follow.
  std::unique_ptr<ServerImpl> Open(Options options, int workers);
  static Endpoint RelayAt(int worker = 0) {
    return {IpAddress::V4(198, 51, 100, static_cast<uint8_t>(1 + worker)), kRelayPort, 0};
  }
  // On a host of its own. Logged in when it returns, unless told otherwise.
  TestClient& Join(uint8_t number, int worker = 0) {
    return Join(number, worker, TestClient::Config(), /*wait=*/true);
  }
  TestClient& Join(uint8_t number, int worker, TestClient::Config config, bool wait);
  // One that only sends what it is told to.
  TestClient& JoinRaw(int worker = 0) {
    TestClient::Config config;
    config.login = false;
    TestClient& client = Join(99, worker, std::move(config), false);
    RunUntil([&] { return client.connected; }, "connects");
    return client;
  }
  void RunFor(Duration duration) { net_.RunFor(duration); }
  bool RunUntil(const std::function<bool()>& predicate, const char* what,
                Duration limit = std::chrono::seconds(60));
  Stats stats() const { return server_->GetStats(); }
  io::HostId HostOf(const TestClient& client) const;

  io::SimNetwork net_{20200501};
  SeededRandom random_{1};
  const derp::ServerIdentity identity_{KeyOf(200)};
  Options options_;
  std::vector<io::HostId> relay_hosts_;
  std::vector<io::SimLoop*> relay_loops_;
  std::unique_ptr<ServerImpl> server_;
  std::vector<std::unique_ptr<io::SimLoop>> loops_;  // of clients
  std::vector<std::unique_ptr<TestClient>> clients_;
  std::vector<std::pair<const TestClient*, io::HostId>> hosts_;
  uint8_t next_host_ = 1;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_TESTS_RELAY_RELAY_WORLD_H_
