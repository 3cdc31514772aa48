// Fuzzes a relay's side of a session. The first byte says how the stream is cut and whether it
// starts behind a good login, with or without the mesh key; a session must stay within its bounds
// whatever a client sends, and stay dead once dead.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "base/random.h"
#include "derp/server_session.h"

namespace ringsock::derp {
namespace {

const Instant kNow = Instant(std::chrono::hours(1));

void Check(bool good) {
  if (!good) std::abort();
}

class Sink final : public ServerEvents {
 public:
  absl::Status OnLogin(ServerSession& session) override {
    Check(!session.ready());
    return absl::OkStatus();
  }
  void OnReady(ServerSession& session) override { Check(session.ready()); }
  void OnSendPacket(ServerSession& session, const PublicKey& destination, Bytes packet,
                    const Frame& frame) override {
    Check(session.ready() && packet.size() <= kMaxPacket);
    TurnIntoRecv(frame, destination);
    RecvPacketFrame recv;
    Check(Parse(frame.payload(), &recv) && recv.source == destination);
    (void)session.SendNotHere(destination, kNow);
  }
  void OnNotePreferred(ServerSession& session, bool) override { Check(session.ready()); }
  void OnPong(ServerSession& session, const PingData&) override { Check(session.ready()); }
  void OnForwardPacket(ServerSession& session, const ForwardPacketFrame& frame) override {
    Check(session.is_mesh() && frame.packet.size() <= kMaxPacket);
  }
  void OnWatchConns(ServerSession& session) override {
    Check(session.is_mesh());
    (void)session.SendPeerPresent({session.client(), {}, {}});
  }
  void OnClosePeer(ServerSession& session, const PublicKey&) override { Check(session.is_mesh()); }
};

const ServerIdentity& Identity() {
  static const ServerIdentity identity(PrivateKey::FromBytes({4, 5, 6}));
  return identity;
}
const MeshKey& Mesh() {
  static const MeshKey key = PrivateKey::FromBytes({7, 8, 9});
  return key;
}

// What a good client says up to the end of the login.
std::vector<std::byte> GoodLogin(bool mesh) {
  static const PrivateKey key = PrivateKey::FromBytes({1, 2, 3});
  SeededRandom random(1);
  OutputBuffer out(1 << 16);
  const auto request = UpgradeRequest({.host = "relay", .fast_start = true});
  Check(out.Append(std::as_bytes(std::span(*request))));
  ClientInfo info;
  if (mesh) info.mesh_key = Mesh().Clone();
  ClientLogin login(&key, std::move(info), &random);
  Check(login.StartFast(Identity().public_key(), &out).ok());
  return {out.bytes().begin(), out.bytes().end()};
}

void Run(std::vector<std::byte> stream, size_t chunk_size, int kind) {
  static const std::vector<std::byte> good_login[2] = {GoodLogin(false), GoodLogin(true)};
  SeededRandom random(1);
  Sink sink;
  ServerSessionConfig config;
  config.identity = &Identity();
  config.mesh_key = &Mesh();
  config.random = &random;
  ServerSession session(&config, &sink, kNow);
  if (kind > 0) {
    std::vector<std::byte> login = good_login[kind - 1];
    Check(session.Receive(login, kNow).ok() && session.ready());
  }
  for (MutableBytes rest = stream; !rest.empty();) {
    const MutableBytes chunk = rest.first(std::min(chunk_size, rest.size()));
    rest = rest.subspan(chunk.size());
    const absl::Status status = session.Receive(chunk, kNow);
    Check(session.output().size() <= config.max_output);
    if (status.ok()) continue;
    Check(!session.ready() && session.output().empty() && !status.message().empty());
    Check(session.Receive({}, kNow) == status && session.deadline() == Instant::max());
    return;
  }
  Check(session.deadline() > kNow && session.deadline() <= kNow + std::chrono::seconds(65));
}

}  // namespace
}  // namespace ringsock::derp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  ringsock::derp::Run({bytes + 1, bytes + size}, 1 + data[0] / 3, data[0] % 3);
  return 0;
}
