// What the tests of derp/ share: the recorded bytes in testdata/, randomness that repeats what was
// recorded, and streams cut into chunks.
#ifndef RINGSOCK_TESTS_DERP_VECTORS_H_
#define RINGSOCK_TESTS_DERP_VECTORS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/key.h"
#include "base/random.h"

namespace ringsock::derp {

using ByteVector = std::vector<std::byte>;

// A text of testdata/derp.json by its JSON pointer: "/frames/ping".
std::string Vector(const std::string& pointer);

// testdata/derp-session.json: a whole session of the reference, in the order seen.
struct SessionChunk {
  bool from_client;
  ByteVector bytes;
};
std::vector<SessionChunk> RecordedSession();
PrivateKey RecordedClientKey();

ByteVector FromHex(absl::string_view hex);
std::string ToHex(std::span<const std::byte> bytes);
ByteVector FromText(absl::string_view text);
absl::string_view AsText(std::span<const std::byte> bytes);

// A frame of derp.json by its name there.
ByteVector FrameVector(const std::string& name);
// A key of derp.json: "client", "server", "peer".
PrivateKey PrivateVector(const std::string& who);
PublicKey PublicVector(const std::string& who);
// Appends `more` to `bytes`.
void Append(ByteVector* bytes, std::span<const std::byte> more);

// Gives out recorded bytes, in order; then numbers of a seeded generator.
class ScriptedRandom final : public Random {
 public:
  void Script(std::span<const std::byte> bytes) {
    script_.insert(script_.end(), bytes.begin(), bytes.end());
  }
  uint64_t Next() override;

 private:
  std::deque<std::byte> script_;
  SeededRandom after_{1};
};

// Cuts `bytes` into chunks of 1 to `max` bytes; calls visit(chunk) with writable copies.
template <typename Visit>
void InChunks(std::span<const std::byte> bytes, size_t max, Random& random, const Visit& visit) {
  while (!bytes.empty()) {
    const size_t size = std::min<size_t>(bytes.size(), 1 + random.Below(max));
    ByteVector chunk(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    visit(std::span<std::byte>(chunk));
    bytes = bytes.subspan(size);
  }
}

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_VECTORS_H_
