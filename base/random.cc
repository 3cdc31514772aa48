#include "base/random.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ringsock {
namespace {

class KernelRandom final : public Random {
 public:
  uint64_t Next() override {
    uint64_t bits;
    // Fails only on kernels before 3.17 or under a filter that forbids it. There is no second
    // source worth falling back to.
    if (getentropy(&bits, sizeof(bits)) != 0) {
      std::perror("ringsock: getentropy");
      std::abort();
    }
    return bits;
  }
};

uint64_t SplitMix64(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t Random::Below(uint64_t bound) {
  if (bound == 0) return 0;
  // Numbers under 2^64 mod bound are drawn again: what is left divides evenly.
  const uint64_t uneven = (0 - bound) % bound;
  uint64_t bits = Next();
  while (bits < uneven) bits = Next();
  return bits % bound;
}

Duration Random::Between(Duration low, Duration high) {
  if (high <= low) return low;
  // In unsigned arithmetic: the distance may be larger than Duration::max().
  const uint64_t distance =
      static_cast<uint64_t>(high.count()) - static_cast<uint64_t>(low.count());
  const uint64_t step = distance == UINT64_MAX ? Next() : Below(distance + 1);
  return Duration(static_cast<int64_t>(static_cast<uint64_t>(low.count()) + step));
}

double Random::Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

bool Random::Chance(double p) {
  // The certain cases draw nothing, so that switching a fault on does not shift other draws.
  if (p <= 0) return false;
  if (p >= 1) return true;
  return Unit() < p;
}

void Random::Fill(std::span<std::byte> out) {
  while (!out.empty()) {
    const uint64_t bits = Next();
    const size_t count = std::min(out.size(), sizeof(bits));
    std::memcpy(out.data(), &bits, count);
    out = out.subspan(count);
  }
}

Random& SystemRandom() {
  static KernelRandom random;
  return random;
}

SeededRandom::SeededRandom(uint64_t seed) {
  for (uint64_t& word : state_) word = SplitMix64(&seed);
}

uint64_t SeededRandom::Next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

}  // namespace ringsock
