// Randomness behind one seam: the system's source for production, a seeded one for tests and the
// simulator, so that a run can be repeated from one number. Keys are not made here but in base/key.
#ifndef RINGSOCK_BASE_RANDOM_H_
#define RINGSOCK_BASE_RANDOM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"

namespace ringsock {

// Source of uniformly distributed bits. SystemRandom() is safe on every thread, a SeededRandom
// belongs to one.
class Random {
 public:
  virtual ~Random() = default;

  virtual uint64_t Next() = 0;

  // Uniform in [0, bound), without modulo bias. A bound of 0 gives 0.
  uint64_t Below(uint64_t bound);
  // Uniform in [low, high], both included; `low` if high <= low.
  Duration Between(Duration low, Duration high);
  // Uniform in [0, 1).
  double Unit();
  // True with probability p; never for p <= 0, always for p >= 1.
  bool Chance(double p);
  // Fills `out` with random bytes: transaction ids, cookies.
  void Fill(std::span<std::byte> out);
};

// The kernel's generator (getentropy): unpredictable, at the price of a system call per number, so
// for seeds, ids and jitter, not for the packet path. Lives for the whole process.
Random& SystemRandom();

// xoshiro256** 1.0 (Blackman, Vigna 2018), its state filled by SplitMix64: the same seed gives the
// same numbers on every machine and compiler. Predictable: never for anything an attacker must not
// guess.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed);
  uint64_t Next() override;

 private:
  std::array<uint64_t, 4> state_;
};

}  // namespace ringsock

#endif  // RINGSOCK_BASE_RANDOM_H_
