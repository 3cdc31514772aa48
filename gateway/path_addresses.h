// The loopback addresses by which WireGuard knows its peers' paths. Each stands for one (peer,
// path) pair: a packet that came over the path is handed to WireGuard from that address, and what
// WireGuard sends to it tells which path it has authenticated.
//
//   home        a peer whose path is not known yet; what `wg set ... endpoint` is given
//   path        a peer and the endpoint its packets come from; the peer may not be known yet
//   adopted     an address WireGuard still used when we started; the peer is known, the path is not
//
// Homes and the paths of configured endpoints follow from key and endpoint alone, so they are the
// same after a restart. All others are given out at run time by a PathAssigner per shard. Peers and
// endpoints that come with a new configuration get theirs at run time as well, and then it may be
// the next one, if a path has the first.
//
// One table for all shards, an array indexed by (address - first address). Reading is wait-free on
// every thread. A slot is written by the shard that owns its part of the range; what other shards
// learn (the owner of a path, that WireGuard answered) they add with a compare-and-swap on the
// state, whose generation counts the uses of the slot, so nothing is added to the wrong one.
#ifndef RINGSOCK_GATEWAY_PATH_ADDRESSES_H_
#define RINGSOCK_GATEWAY_PATH_ADDRESSES_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "gateway/config.h"
#include "gateway/mac1.h"

namespace ringsock::gateway {

// An address as its distance from the first one of the range.
using AddressOffset = uint32_t;
inline constexpr AddressOffset kNoAddress = ~AddressOffset{0};

enum class AddressKind : uint8_t { kFree, kBusy, kHome, kPath, kAdopted };

// What one address means, as read at one moment.
struct PathAddress {
  AddressOffset offset = kNoAddress;
  AddressKind kind = AddressKind::kFree;
  PeerIndex owner = kNoPeer;
  Endpoint path;          // only of kPath
  bool answered = false;  // WireGuard has authenticated a packet that came from here
  uint64_t state = 0;     // for the calls that change it
};

// What makes two packets come over the same path. A relay's endpoint is shared by many peers, any
// other has one at a time.
struct PathKey {
  Endpoint from;
  PeerIndex relayed = kNoPeer;  // the peer, if `from` is a relay

  static PathKey Of(const Endpoint& from, PeerIndex peer) {
    return {from, IsRelay(from) ? peer : kNoPeer};
  }
  friend bool operator==(const PathKey&, const PathKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const PathKey& key) {
    return H::combine(std::move(h), key.from, key.relayed);
  }
};

// How likely a path is a peer's, which is also what competes for the same addresses.
enum class PathClass : uint8_t {
  kUnknown,     // nothing speaks for it
  kHandshake,   // began with an initiation for our WireGuard's key, which is public
  kRecognised,  // began with a session index that our WireGuard has given out
  kLive,        // the engine knows it, or WireGuard has answered
};
inline constexpr size_t kPathClasses = 4;

// What a PathAssigner notes about its addresses, kept beside what it is about.
struct AssignerNote {
  PeerIndex relayed = kNoPeer;  // part of the PathKey
  AddressOffset older = kNoAddress;
  AddressOffset newer = kNoAddress;
  PathClass kind = PathClass::kUnknown;
};

// Addresses of configured endpoints, and whose these are in the configuration.
struct ConfiguredPath {
  AddressOffset offset = kNoAddress;
  PeerIndex owner = kNoPeer;
};
using ConfiguredPaths = absl::flat_hash_map<PathKey, ConfiguredPath>;

// Peers there can have been since the start: a peer keeps its index, also when it has gone. Four
// times as many as there can be at one time (config.h).
inline constexpr uint32_t kMaxPeerIndices = 1u << 22;
// WireGuard keys are refused after 180 s, so by then a silent path carries no session.
inline constexpr uint32_t kIdlePathSeconds = 180;

class PathAddresses {
 public:
  // Gives every peer its home and every configured endpoint its address. The range is of a checked
  // configuration; fails only without memory for it (64 bytes an address, touched as they are
  // used).
  static absl::StatusOr<std::unique_ptr<PathAddresses>> Create(const LoopbackRange& range,
                                                               std::span<const PeerConfig> peers);
  ~PathAddresses();
  PathAddresses(const PathAddresses&) = delete;
  PathAddresses& operator=(const PathAddresses&) = delete;

  uint32_t size() const { return range_.size; }
  IpAddress Address(AddressOffset offset) const { return IpAddress::V4(range_.base + offset); }
  // kNoAddress if it is outside the range.
  AddressOffset OffsetOf(const IpAddress& ip) const {
    return range_.Contains(ip) ? ip.V4HostOrder() - range_.base : kNoAddress;
  }
  // For the control thread.
  AddressOffset Home(PeerIndex peer) const { return homes_[peer]; }
  // The address of a configured endpoint; kNoAddress if there is none. Other threads than the
  // control thread hold off the next Publish() meanwhile.
  AddressOffset Configured(const PathKey& key) const;

  // Changes while shards read, by one control thread.
  //
  // Gives a peer its home, and the one it had if it was removed a moment ago. `peer` is the next
  // index (the number of peers so far) or an earlier one that was removed. False: the range is
  // full.
  bool AddPeer(PeerIndex peer, const PublicKey& key, Instant now);
  // Replaces the configured endpoints of a peer. What WireGuard sends to those that go still
  // reaches the peer, until they have been silent for kIdlePathSeconds.
  void SetEndpoints(PeerIndex peer, const PublicKey& key, std::span<const Endpoint> before,
                    std::span<const Endpoint> after, Instant now);
  void RemovePeer(PeerIndex peer, const PublicKey& key, std::span<const Endpoint> endpoints,
                  Instant now);
  // Shards see the endpoints as they are now. Returns the map before, which must live until no
  // reader can hold it any more.
  std::unique_ptr<const ConfiguredPaths> Publish();
  // Frees what has gone and is silent.
  void FreeRetired(Instant now);

  // What the address means; kBusy while it changes. `offset` is in the range.
  PathAddress Read(AddressOffset offset) const;

  // Seconds in which the address carried a packet either way. Any thread.
  void Touch(AddressOffset offset, Instant now);
  uint32_t SecondsSinceUse(AddressOffset offset, Instant now) const;
  // A packet was handed to WireGuard from this address. Any thread.
  void MarkHeard(AddressOffset offset);
  // True once after MarkHeard(). Any thread.
  bool TakeHeard(AddressOffset offset);
  // The same on every thread; false if the address has meanwhile come to mean something else.
  bool MarkAnswered(const PathAddress& address);
  bool SetOwner(PathAddress* address, PeerIndex owner);
  // Makes a free address one of `owner`.
  bool Adopt(PathAddress* address, PeerIndex owner);

  // The address that WireGuard sent to last, for this peer; kNoAddress at first. Any thread.
  AddressOffset Current(PeerIndex peer) const {
    return current_[peer].load(std::memory_order_relaxed) - 1;  // 0 wraps to kNoAddress
  }
  void SetCurrent(PeerIndex peer, AddressOffset offset);

  // For the one PathAssigner whose part of the range this is: makes an address stand for `key`.
  // Claim() a free one that WireGuard has sent nothing to (MarkHeard), Reuse() one that was a path
  // when it was read; false if another thread has changed it since.
  bool Claim(AddressOffset offset, const PathKey& key, PeerIndex owner, bool answered, Instant now);
  bool Reuse(const PathAddress& old, const PathKey& key, PeerIndex owner, bool answered,
             Instant now);
  AssignerNote& note(AddressOffset offset) { return slots_[offset].note; }
  // What the address was last made to stand for.
  PathKey KeyOf(AddressOffset offset) const;

 private:
  // A zeroed slot is a free one.
  struct alignas(64) Slot {
    std::atomic<uint64_t> state;  // generation << 32 | kind << 28 | owner + 1
    std::array<std::atomic<uint64_t>, 3> path;
    std::atomic<uint32_t> used;  // second of the last packet
    std::atomic<uint8_t> heard;
    AssignerNote note;
  };
  static_assert(sizeof(Slot) == 64);

  PathAddresses(const LoopbackRange& range, Slot* slots, std::atomic<uint32_t>* current,
                size_t peers);
  void PlaceHomes(std::span<const PeerConfig> peers);
  void PlaceConfigured(PeerIndex peer, const PublicKey& key, const Endpoint& endpoint, Instant now);
  // `path` is only for kPath.
  AddressOffset PlaceStatic(uint64_t hash, AddressKind kind, PeerIndex owner, const Endpoint& path,
                            Instant now);
  void Retire(const ConfiguredPath& path, Instant now);
  bool Write(AddressOffset offset, uint64_t expected, const PathKey& key, PeerIndex owner,
             bool answered, Instant now);

  const LoopbackRange range_;
  Slot* const slots_;                     // range_.size of them, mapped
  std::atomic<uint32_t>* const current_;  // offset + 1, kMaxPeerIndices of them, mapped
  std::atomic<const ConfiguredPaths*> configured_{nullptr};  // owned; never changed
  // The control thread's.
  std::vector<AddressOffset> homes_;
  std::unique_ptr<ConfiguredPaths> next_;  // what Publish() will make the configured ones
  std::vector<ConfiguredPath> retired_;    // and homes; no longer anybody's in the configuration
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_PATH_ADDRESSES_H_
