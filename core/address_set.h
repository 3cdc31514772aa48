// The addresses of one peer and which of them is used now: a fixed ordered list (slowest and most
// reliable first), the index `cur` of the best one that is known to work, and at times a roaming
// address outside the list. Packets of unknown fate are sprayed to all of them.
//
// Every shard reads and every thread may learn a path, at the same time, without locks. What
// changes is one 64-bit word, `state_`: cur, whether there is a roaming address and in which of
// three slots it lies, whether the spray window may be open, and the number of slots ever taken for
// writing. A learner of a roaming address takes the slot after the current one by a
// compare-and-swap of that word, writes it, and publishes it by another; a reader of a slot knows
// from the number that nobody began to overwrite it meanwhile. Readers never wait; a learner that
// meets another gives way, and the next packet teaches the same again.
#ifndef RINGSOCK_CORE_ADDRESS_SET_H_
#define RINGSOCK_CORE_ADDRESS_SET_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

#include "base/clock.h"
#include "base/endpoint.h"

namespace ringsock {

// The most addresses of one peer. Real lists have a relay, a global and a few local addresses; each
// handshake goes to all of them, so the bound is also one on how much a packet is multiplied.
inline constexpr size_t kMaxEndpoints = 16;

// From the last handshake sent until packets are no longer sprayed (spec: SEND-2).
inline constexpr Duration kSprayWindow = std::chrono::seconds(3);
// Shortest time between two sprays of packets that are not handshakes (spec: SEND-3).
inline constexpr Duration kSprayInterval = std::chrono::milliseconds(250);

// Where one packet goes. Made once and used again: Choose() writes only what it needs.
struct Destinations {
  std::array<Endpoint, kMaxEndpoints + 1> endpoints;  // the list in order, then the roaming address
  uint32_t count = 0;                                 // 0: no destinations (spec: SEND-4)
  bool spray = false;

  std::span<const Endpoint> view() const { return {endpoints.data(), count}; }
};

// Whether anything can be sent to `endpoint`: it has a port, and an address that is one host's.
inline bool IsDestination(const Endpoint& endpoint) {
  return endpoint.port != 0 && !endpoint.ip.IsUnspecified();
}

// What an authenticated packet taught.
enum class PathChange : uint8_t {
  kUnchanged,     // nothing new, another thread was learning at the same time (PATH-1, PATH-2), or
                  // nothing can be sent there
  kRoamSet,       // an unlisted address, the first one (PATH-3)
  kRoamReplaced,  // an unlisted address after another (PATH-3)
  kRoamCleared,   // a listed address after an unlisted one (PATH-4)
  kCurrentSet,    // the first listed address (PATH-5)
  kUpgraded,      // a better listed address (PATH-5)
  kLowerKept,     // a worse listed address: the current one stays (PATH-5)
};
const char* PathChangeName(PathChange change);  // "unchanged", "roaming address set", ...

// Which path is in use, at one moment.
struct PathState {
  int current = -1;  // index of `cur`, -1 for none
  bool roaming = false;
  Endpoint roam;  // if roaming
};

// Lives at the start of a block of SizeFor(n) bytes: the list follows the object, so that the state
// and the first two addresses share a cache line.
class AddressSet {
 public:
  struct Free {
    void operator()(AddressSet* set) const;
  };
  using Owner = std::unique_ptr<AddressSet, Free>;

  // Bytes for a set of `count` addresses, the object included.
  static constexpr size_t SizeFor(size_t count);
  // A set on the heap. `endpoints`: at most kMaxEndpoints (more is a bug of the caller and ends the
  // process). `label` is a word of the owner's, kept beside the state.
  static Owner New(std::span<const Endpoint> endpoints, uint64_t label = 0);
  // Makes a set at `this`, which must be followed by room for the list.
  AddressSet(std::span<const Endpoint> endpoints, uint64_t label);
  AddressSet(const AddressSet&) = delete;
  AddressSet& operator=(const AddressSet&) = delete;

  uint64_t label() const { return label_; }
  // The list. Never changes.
  std::span<const Endpoint> endpoints() const { return {List(), Count(Load())}; }
  const Endpoint& endpoint(size_t index) const { return List()[index]; }
  // Index in the list, or -1.
  int IndexOf(const Endpoint& endpoint) const;

  // Any thread: the destinations of one packet, or of the packets of one train (spec: SEND-2 to
  // SEND-4). `handshake` is IsHandshake() of it. Counts as sent: a spray is the last spray from
  // then on. Of several threads that find a spray due, one gets it.
  void Choose(bool handshake, Instant now, Destinations* out) {
    const uint64_t state = Load();
    if (handshake || (state & kWindowBit) != 0) [[unlikely]] {
      return ChooseInWindow(handshake, now, out);
    }
    ChooseOne(state, out);
  }

  // Any thread: whether an authenticated packet from `from` changes nothing (spec: PATH-2). Reads
  // one cache line as long as the peer does not roam and uses one of its first two addresses. False
  // also when it could not tell; Confirm() then does.
  bool IsCurrent(const Endpoint& from) const {
    const uint64_t state = Load();
    if ((state & kRoamBit) != 0) [[unlikely]]
      return IsRoam(state, from);
    const uint64_t cur = state & kCurMask;
    return cur != kCurNone && List()[cur] == from;
  }

  // Any thread: WireGuard authenticated a packet from `from` (spec: PATH-1 to PATH-5). If
  // `previous` is given it gets the address that was in use before (the default value for none),
  // for the log.
  PathChange Confirm(const Endpoint& from, Endpoint* previous = nullptr);

  // Any thread: the network has changed (spec: PATH-6).
  void Reset(Instant now);

  // Any thread. The parts belong together.
  PathState Snapshot() const;

 private:
  // A roaming address. Words, because a reader may meet a writer here.
  struct Slot {
    std::array<std::atomic<uint64_t>, 3> words{};
  };
  static constexpr uint64_t kSlots = 3;

  // Layout of state_.
  static constexpr uint64_t kCurMask = 31;  // all ones: none, so that an OR forgets cur
  static constexpr uint64_t kCurNone = kCurMask;
  static constexpr int kCountShift = 5;  // length of the list; never changes
  static constexpr uint64_t kCountMask = 31;
  static constexpr uint64_t kRoamBit = 1u << 10;    // there is a roaming address
  static constexpr uint64_t kBusyBit = 1u << 11;    // a learner is writing the next slot
  static constexpr uint64_t kWindowBit = 1u << 12;  // look at the spray window
  static constexpr int kSlotShift = 13;             // the slot last published
  static constexpr uint64_t kSlotMask = 3;
  static constexpr int kTakenShift = 32;  // how often a slot was taken for writing, modulo 2^32

  static constexpr uint64_t Count(uint64_t state) { return (state >> kCountShift) & kCountMask; }
  static constexpr uint64_t SlotOf(uint64_t state) { return (state >> kSlotShift) & kSlotMask; }

  uint64_t Load() const { return state_.load(std::memory_order_acquire); }
  const Endpoint* List() const { return reinterpret_cast<const Endpoint*>(this + 1); }

  void ChooseOne(uint64_t state, Destinations* out) const {
    out->spray = false;
    if ((state & kRoamBit) != 0) [[unlikely]] {
      if (ReadRoam(state, &out->endpoints[0])) {
        out->count = 1;
        return;
      }
      // Roaming addresses came and went too fast to read one: the list is still sound.
    }
    const uint64_t cur = state & kCurMask;
    out->count = Count(state) != 0;
    if (out->count != 0) out->endpoints[0] = List()[cur == kCurNone ? 0 : cur];
  }
  void ChooseInWindow(bool handshake, Instant now, Destinations* out);
  void Spray(Destinations* out) const;
  bool MaySpray(Instant now);
  void OpenWindow(Instant now);
  bool IsRoam(uint64_t state, const Endpoint& from) const;
  // False if there is no roaming address (any more), or none could be read in a few tries.
  bool ReadRoam(uint64_t state, Endpoint* out) const;
  bool ReadSlot(uint64_t state, std::array<uint64_t, 3>* words) const;
  PathChange LearnRoam(uint64_t state, const Endpoint& from);

  // Rarely read.
  std::array<Slot, kSlots> roam_;
  std::atomic<int64_t> last_spray_;  // nanoseconds of the monotonic clock
  std::atomic<int64_t> window_end_;
  // Read for every packet; the list follows.
  const uint64_t label_;
  std::atomic<uint64_t> state_;
};

constexpr size_t AddressSet::SizeFor(size_t count) {
  return sizeof(AddressSet) + count * sizeof(Endpoint);
}

}  // namespace ringsock

#endif  // RINGSOCK_CORE_ADDRESS_SET_H_
