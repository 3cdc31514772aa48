#include "tests/derp/vectors.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"

namespace ringsock::derp {
namespace {

nlohmann::json Load(const std::string& name) {
  std::ifstream file("tests/derp/testdata/" + name);
  return nlohmann::json::parse(file);
}

}  // namespace

std::string Vector(const std::string& pointer) {
  static const nlohmann::json vectors = Load("derp.json");
  return vectors.at(nlohmann::json::json_pointer(pointer)).get<std::string>();
}

std::vector<SessionChunk> RecordedSession() {
  std::vector<SessionChunk> chunks;
  const nlohmann::json session = Load("derp-session.json");
  for (const auto& chunk : session.at("chunks")) {
    chunks.push_back({chunk.at("from") == "client", FromHex(chunk.at("bytes").get<std::string>())});
  }
  return chunks;
}

PrivateKey RecordedClientKey() {
  return *PrivateKey::Parse(Load("derp-session.json").at("client_private").get<std::string>());
}

ByteVector FromHex(absl::string_view hex) { return FromText(absl::HexStringToBytes(hex)); }

std::string ToHex(std::span<const std::byte> bytes) {
  return absl::BytesToHexString(AsText(bytes));
}

ByteVector FromText(absl::string_view text) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  return ByteVector(bytes.begin(), bytes.end());
}

absl::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

ByteVector FrameVector(const std::string& name) { return FromHex(Vector("/frames/" + name)); }

PrivateKey PrivateVector(const std::string& who) {
  return *PrivateKey::Parse(Vector("/keys/" + who + "_private"));
}

PublicKey PublicVector(const std::string& who) {
  return *PublicKey::Parse(Vector("/keys/" + who + "_public"));
}

void Append(ByteVector* bytes, std::span<const std::byte> more) {
  bytes->insert(bytes->end(), more.begin(), more.end());
}

uint64_t ScriptedRandom::Next() {
  if (script_.size() < sizeof(uint64_t)) return after_.Next();
  uint64_t bits = 0;
  for (size_t i = 0; i < sizeof(bits); ++i) {
    std::memcpy(reinterpret_cast<char*>(&bits) + i, &script_.front(), 1);
    script_.pop_front();
  }
  return bits;
}

}  // namespace ringsock::derp
