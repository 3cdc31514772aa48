// Fuzzes both sides of the login. What is fuzzed goes in as it is, and once more inside a box that
// opens, so that the JSON behind the encryption is reached.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/random.h"
#include "derp/login.h"

namespace ringsock::derp {
namespace {

const PrivateKey& ClientKey() {
  static const PrivateKey key = PrivateKey::FromBytes({1, 2, 3});
  return key;
}
const ServerIdentity& Server() {
  static const ServerIdentity identity(PrivateKey::FromBytes({4, 5, 6}));
  return identity;
}
const MeshKey& Mesh() {
  static const MeshKey key = PrivateKey::FromBytes({7, 8, 9});
  return key;
}

template <typename Payload>
std::vector<std::byte> Encoded(const Payload& payload, size_t size) {
  std::vector<std::byte> bytes(size + 200);
  bytes.resize(Encode(payload, bytes));
  return bytes;
}

Frame View(std::vector<std::byte>& bytes) { return Frame{static_cast<FrameType>(bytes[0]), bytes}; }

void Raw(FrameType type, Bytes payload) {
  SeededRandom random(1);
  OutputBuffer out(1 << 20);
  std::vector<std::byte> bytes(kFrameHeaderSize);
  bytes[0] = static_cast<std::byte>(type);
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  ServerLogin server(&Server(), &Mesh(), {}, &random);
  (void)server.OnFrame(View(bytes));
  ClientLogin client(&ClientKey(), {}, &random);
  (void)client.OnFrame(View(bytes), &out);
  ClientLogin fast(&ClientKey(), {}, &random);
  if (!fast.StartFast(Server().public_key(), &out).ok()) std::abort();
  (void)fast.OnFrame(View(bytes), &out);
}

void Boxed(Bytes json) {
  SeededRandom random(1);
  OutputBuffer out(1 << 20);
  const BoxKey box = *BoxKey::Agree(ClientKey(), Server().public_key());
  const std::vector<std::byte> sealed = box.SealWithNonce(json, random);

  auto info = Encoded(ClientInfoFrame{ClientKey().Public(), sealed}, sealed.size());
  ServerLogin server(&Server(), &Mesh(), {}, &random);
  const bool accepted = server.OnFrame(View(info)).ok();
  const absl::string_view text(reinterpret_cast<const char*>(json.data()), json.size());
  if (accepted != ParseClientInfo(text).ok()) std::abort();
  if (accepted && !server.Accept(&out).ok()) std::abort();

  auto server_info = Encoded(ServerInfoFrame{sealed}, sealed.size());
  ClientLogin client(&ClientKey(), {}, &random);
  if (!client.StartFast(Server().public_key(), &out).ok()) std::abort();
  if (client.OnFrame(View(server_info), &out).ok() != client.done()) std::abort();
}

}  // namespace
}  // namespace ringsock::derp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const ringsock::derp::Bytes rest(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  ringsock::derp::Raw(static_cast<ringsock::derp::FrameType>(data[0]), rest);
  ringsock::derp::Boxed(rest);
  return 0;
}
