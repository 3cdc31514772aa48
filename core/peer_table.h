// All peers, found by ip:port, by key and by id. Any number of readers without locks, one writer.
//
// The table of IPv4 addresses has the addresses and the ids of their owners in itself: what a
// received packet needs to know costs one cache line, and the peer is not looked at. The tables of
// IPv6 addresses and of keys hold pointers to the peers, so a lookup costs a line of each.
#ifndef RINGSOCK_CORE_PEER_TABLE_H_
#define RINGSOCK_CORE_PEER_TABLE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "core/lock_free_table.h"
#include "core/peer.h"
#include "core/peer_id.h"
#include "core/quiescence.h"
#include "core/table_line.h"

namespace ringsock {

namespace internal {

// An entry of the table of IPv4 addresses: the id of a peer.
struct V4Traits {
  using Key = Endpoint;
  static constexpr size_t kMostSixteenths = 13;

  // Whether the table can have it: 48 bits are all that it is.
  static bool Fits(const Endpoint& key) {
    constexpr auto kMapped = std::bit_cast<uint32_t>(std::array<uint8_t, 4>{0, 0, 0xff, 0xff});
    return (key.Word(0) | (Part(key, 8) ^ kMapped) | key.ip.zone | key.reserved) == 0;
  }
  // Different for different addresses, as every step can be undone. The lowest two bits are 0.
  static uint64_t Hash(const Endpoint& key, uint64_t seed) {
    constexpr uint64_t kUsed = ~uint64_t{3};
    uint64_t bits = (uint64_t{Part(key, 12)} << 18) | (uint64_t{key.port} << 2);
    bits = (bits ^ (seed & kUsed)) * 0x9e3779b97f4a7c15u;
    bits = (bits ^ ((bits >> 29) & kUsed)) * 0xa0761d6478bd642fu;
    return bits ^ ((bits >> 32) & kUsed);
  }

 private:
  static uint32_t Part(const Endpoint& key, size_t offset) {
    uint32_t part;
    std::memcpy(&part, key.ip.bytes.data() + offset, sizeof(part));
    return part;
  }
};

// An entry of the table of all other addresses: a peer, and in the low bits which of its addresses
// it is.
struct AddressTraits {
  using Key = Endpoint;
  static constexpr size_t kMostSixteenths = 12;
  static constexpr uint64_t kIndexMask = kMaxEndpoints - 1;

  static uint64_t Entry(const Peer* peer, size_t index) {
    return reinterpret_cast<uintptr_t>(peer) | index;
  }
  static Peer* PeerOf(uint64_t entry) { return reinterpret_cast<Peer*>(entry & ~kIndexMask); }
  static PeerId OwnerOf(uint64_t entry) { return entry == 0 ? PeerId::kNone : PeerOf(entry)->id(); }
  static uint64_t Hash(const Endpoint& key, uint64_t seed) { return HashEndpoint(key, seed); }
  static const Endpoint& KeyOf(uint64_t entry) {
    return PeerOf(entry)->addresses().endpoint(entry & kIndexMask);
  }
  static bool Equal(uint64_t entry, const Endpoint& key) { return KeyOf(entry) == key; }
  // Right for the first two addresses; the state, read next, is there in any case.
  static const void* LineOf(uint64_t entry) { return PeerOf(entry)->hot_line(); }
};

// An entry of the by-key table: a peer.
struct KeyTraits {
  using Key = PublicKey;
  static constexpr size_t kMostSixteenths = 14;
  static uint64_t Entry(const Peer* peer) { return reinterpret_cast<uintptr_t>(peer); }
  static Peer* PeerOf(uint64_t entry) { return reinterpret_cast<Peer*>(entry); }
  static uint64_t Hash(const PublicKey& key, uint64_t seed);
  static const PublicKey& KeyOf(uint64_t entry) { return PeerOf(entry)->key(); }
  static bool Equal(uint64_t entry, const PublicKey& key) { return KeyOf(entry) == key; }
  static const void* LineOf(uint64_t entry) { return PeerOf(entry); }
};

}  // namespace internal

struct PeerTableOptions {
  // The most peers at one time. Memory follows use: this costs one pointer per 4,096.
  uint32_t max_peers = 1u << 20;
  // Of the hashes, so that nobody outside can choose addresses that collide. 0: from the system.
  uint64_t seed = 0;
};

class PeerTable {
 public:
  // Readers of the table are readers of `quiescence`, which outlives the table.
  PeerTable(const PeerTableOptions& options, Quiescence* quiescence);
  // No reader may be left. What the table has retired lives on in the Quiescence.
  ~PeerTable();
  PeerTable(const PeerTable&) = delete;
  PeerTable& operator=(const PeerTable&) = delete;

  // --- Any online reader. Pointers are good until the reader's next quiescent point. ---

  // The peer that owns the source address `from`, or kNone (spec: RECV-2).
  PeerId OwnerOf(const Endpoint& from) const {
    if (internal::V4Traits::Fits(from)) return static_cast<PeerId>(by_v4_.Find(from));  // 0: kNone
    return internal::AddressTraits::OwnerOf(by_address_.Find(from));
  }
  // The same for a batch, with the waits for memory overlapped: out[i] for *from[i].
  void OwnersOf(std::span<const Endpoint* const> from, PeerId* out) const;
  // Starts to fetch what FindById() and the use of these peers will read first.
  void PrefetchPeers(std::span<const PeerId> ids) const;
  // Itself, or null, also while its id is being taken back.
  Peer* FindByAddress(const Endpoint& from) const { return FindById(OwnerOf(from)); }

  Peer* FindByKey(const PublicKey& key) const {
    return internal::KeyTraits::PeerOf(by_key_.Find(key));
  }

  // Null for an id whose peer is gone, whoever has its place now.
  Peer* FindById(PeerId id) const {
    const std::atomic<uint64_t>* at = WordOf(id);
    if (at == nullptr) return nullptr;
    const uint64_t word = at->load(std::memory_order_acquire);
    if ((word & kFreeBit) != 0) return nullptr;
    Peer* peer = reinterpret_cast<Peer*>(word);
    return peer->id() == id ? peer : nullptr;
  }

  // Any thread, online or not.
  size_t size() const { return size_.load(std::memory_order_relaxed); }

  // --- The writer. What it unlinks is retired; call Quiescence::Reclaim() now and then. ---

  // Creates the peer, or replaces its addresses and forgets its path; the id stays (spec: PEER-1).
  // Relay addresses are not registered; a repeated address counts once. An address that two peers
  // list belongs to the one created or replaced last; when that one lets go of it, it goes back to
  // the one before. Errors change nothing: InvalidArgument for the zero key, more than
  // kMaxEndpoints addresses, or one that nothing can be sent to; ResourceExhausted beyond
  // max_peers.
  absl::StatusOr<PeerId> Create(const PublicKey& key, std::span<const Endpoint> endpoints);
  // False if there is no such peer.
  bool Remove(PeerId id);
  // Removes every peer whose key is not among `keys` (spec: PEER-2); returns how many. Costs one
  // lookup per key and one look at each peer; Remove() costs the same however many there are.
  // `removed`, if given, is called for each before it goes.
  size_t Update(std::span<const PublicKey> keys,
                const std::function<void(const Peer&)>& removed = nullptr);
  // After a change of the network (spec: PATH-6).
  void ResetPaths(Instant now);
  // Calls f(const Peer&) for every peer, in the order of ids.
  template <typename F>
  void ForEach(F&& f) const {
    ForSome(0, used_ids_, f);
  }
  // The same for those in `count` places from place `first` on, so that somebody with little time
  // comes round too. Returns the place to go on with; nullopt after the last.
  template <typename F>
  std::optional<uint32_t> ForSome(uint32_t first, uint32_t count, F&& f) const {
    const auto end = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{first} + count, used_ids_));
    for (uint32_t index = first; index < end; ++index) {
      if (const Peer* peer = PeerAt(index)) f(*peer);
    }
    return end == used_ids_ ? std::nullopt : std::optional<uint32_t>(end);
  }
  // Bytes held by peers and tables (not what is retired and waits for readers).
  size_t MemoryUsed() const;

 private:
  // Addresses looked up together: about as many lines as a core can have under way.
  static constexpr size_t kGroup = 32;
  static constexpr uint32_t kIdsPerChunk = 4096;
  static constexpr uint64_t kFreeBit = 1;
  static constexpr uint32_t kNoIndex = 0x7fffffff;
  // A peer's address; or kFreeBit with the next free index above it, and from bit 32 the generation
  // of the next id made here.
  struct IdChunk {
    std::array<std::atomic<uint64_t>, kIdsPerChunk> words;
  };

  // For endpoints that the embedder chose, so no seed.
  struct EndpointHash {
    size_t operator()(const Endpoint& endpoint) const { return HashEndpoint(endpoint, 0); }
  };

  static uint32_t IndexOf(PeerId id) { return static_cast<uint32_t>(id); }
  static uint32_t GenerationOf(PeerId id) {
    return static_cast<uint32_t>(static_cast<uint64_t>(id) >> 32);
  }
  static void FreePeer(void* object, void* memory);

  // Null for an id that is beyond all that ever were, kNone not among them.
  const std::atomic<uint64_t>* WordOf(PeerId id) const {
    const uint32_t index = IndexOf(id);
    if (index >= capacity_) return nullptr;
    const IdChunk* chunk = id_chunks_[index / kIdsPerChunk].load(std::memory_order_acquire);
    return chunk == nullptr ? nullptr : &chunk->words[index % kIdsPerChunk];
  }
  void OwnersOfGroup(std::span<const Endpoint* const> from, PeerId* out) const;
  std::atomic<uint64_t>& IdWord(uint32_t index) const;
  Peer* PeerAt(uint32_t index) const;
  PeerId TakeId();
  void ReturnId(PeerId id);
  Peer* NewPeer(PeerId id, const PublicKey& key, std::span<const Endpoint> endpoints);
  void Retire(Peer* peer);
  void Own(const Peer* peer);
  PeerId PutAddress(const Peer* peer, size_t index);
  void LetGo(const Peer* peer, const Peer* successor);
  void HandBack(const Endpoint& address);
  void ForgetEarlierOwner(const Endpoint& address, PeerId id);

  const uint32_t capacity_;
  std::unique_ptr<std::atomic<IdChunk*>[]> id_chunks_;
  LockFreeTable<internal::V4Traits, KeyedLine> by_v4_;
  LockFreeTable<internal::AddressTraits> by_address_;  // all others
  LockFreeTable<internal::KeyTraits> by_key_;
  std::atomic<size_t> size_{0};

  // The writer's.
  Quiescence* const quiescence_;
  uint32_t used_ids_ = 0;        // indices below have been used at some time
  uint32_t free_id_ = kNoIndex;  // head of the list of free indices
  // Earlier owners of addresses that a later peer took over, the latest last. Usually empty.
  std::unordered_map<Endpoint, std::vector<PeerId>, EndpointHash> earlier_owners_;
  size_t peer_bytes_ = 0;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_PEER_TABLE_H_
