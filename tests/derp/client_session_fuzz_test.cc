// Fuzzes a client's session. The first byte says how the stream is cut and whether it starts behind
// a good login; a session must stay within its bounds whatever a relay sends, and stay dead once
// dead.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "base/random.h"
#include "derp/client_session.h"

namespace ringsock::derp {
namespace {

const Instant kNow = Instant(std::chrono::hours(1));

void Check(bool good) {
  if (!good) std::abort();
}

class Sink final : public ClientEvents {
 public:
  void OnReady(const ServerInfo&) override { Check(!std::exchange(ready_, true)); }
  void OnPacket(const PublicKey&, Bytes packet) override {
    Check(ready_ && packet.size() <= kMaxPacket);
  }
  void OnPeerGone(const PublicKey&, PeerGoneReason) override { Check(ready_); }
  void OnHealth(absl::string_view problem) override {
    for (char c : problem) Check(c >= 0x20 && c < 0x7f);
  }
  void OnRestarting(const RestartingFrame&) override { Check(ready_); }
  void OnPong(const PingData&) override { Check(ready_); }
  void OnPeerPresent(const PeerPresentFrame&) override { Check(ready_); }

 private:
  bool ready_ = false;
};

const PrivateKey& ClientKey() {
  static const PrivateKey key = PrivateKey::FromBytes({1, 2, 3});
  return key;
}

// What a good relay says up to the end of the login.
std::vector<std::byte> GoodLogin() {
  static const ServerIdentity identity(PrivateKey::FromBytes({4, 5, 6}));
  SeededRandom random(1);
  OutputBuffer client_out(1 << 16);
  ClientLogin client(&ClientKey(), {}, &random);
  Check(client.StartFast(identity.public_key(), &client_out).ok());
  std::vector<std::byte> info(client_out.bytes().begin(), client_out.bytes().end());
  OutputBuffer out(1 << 16);
  ServerLogin server(&identity, nullptr, {}, &random);
  Check(server.Start(&out).ok());
  Check(server.OnFrame(Frame{FrameType::kClientInfo, info}).ok() && server.Accept(&out).ok());
  constexpr absl::string_view kReply = "HTTP/1.1 101 x\r\nUpgrade: DERP\r\n\r\n";
  const auto reply = std::as_bytes(std::span(kReply.data(), kReply.size()));
  std::vector<std::byte> bytes(reply.begin(), reply.end());
  bytes.insert(bytes.end(), out.bytes().begin(), out.bytes().end());
  return bytes;
}

void Run(std::vector<std::byte> stream, size_t chunk_size, bool logged_in) {
  static const std::vector<std::byte> good_login = GoodLogin();
  SeededRandom random(1);
  Sink sink;
  ClientSessionOptions options;
  options.http.host = "relay";
  ClientSession session(std::move(options), &ClientKey(), &random, &sink);
  Check(session.Start(kNow, kNow + kConnectTimeout, nullptr).ok());
  if (logged_in) {
    std::vector<std::byte> login = good_login;
    Check(session.Receive(login, kNow).ok() && session.ready());
  }
  for (MutableBytes rest = stream; !rest.empty();) {
    const MutableBytes chunk = rest.first(std::min(chunk_size, rest.size()));
    rest = rest.subspan(chunk.size());
    const absl::Status status = session.Receive(chunk, kNow);
    Check(session.output().size() <= 16384);
    if (status.ok()) continue;
    Check(!session.ready() && session.output().empty() && !status.message().empty());
    Check(session.Receive({}, kNow) == status && session.OnStreamEnd() == status);
    return;
  }
  Check(!session.OnStreamEnd().ok());
}

}  // namespace
}  // namespace ringsock::derp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  ringsock::derp::Run({bytes + 1, bytes + size}, 1 + data[0] / 2, data[0] % 2 == 1);
  return 0;
}
