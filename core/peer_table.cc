#include "core/peer_table.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ringsock {
namespace {

using internal::AddressTraits;
using internal::KeyTraits;
using internal::V4Traits;

uint64_t Fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t SystemSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

absl::Status CheckEndpoint(const Endpoint& endpoint) {
  if (!IsDestination(endpoint)) {
    return absl::InvalidArgumentError(absl::StrCat("nothing can be sent to ", endpoint.ToString()));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t KeyTraits::Hash(const PublicKey& key, uint64_t seed) {
  std::array<uint64_t, 4> words;
  static_assert(sizeof(words) == sizeof(key.bytes));
  std::memcpy(words.data(), key.bytes.data(), sizeof(words));
  const uint64_t low = Fold(words[0] ^ seed, words[1] ^ 0x9e3779b97f4a7c15u);
  const uint64_t high = Fold(words[2] ^ ~seed, words[3] ^ 0xd6e8feb86659fd93u);
  return Fold(low ^ 0xa0761d6478bd642fu, high ^ seed);
}

PeerTable::PeerTable(const PeerTableOptions& options, Quiescence* quiescence)
    : capacity_(std::clamp<uint32_t>(options.max_peers, 1, kNoIndex)),
      id_chunks_(new std::atomic<IdChunk*>[(capacity_ - 1) / kIdsPerChunk + 1]()),
      by_v4_(quiescence, options.seed != 0 ? options.seed : SystemSeed()),
      by_address_(quiescence, options.seed != 0 ? options.seed : SystemSeed()),
      by_key_(quiescence, options.seed != 0 ? options.seed : SystemSeed()),
      quiescence_(quiescence) {}

PeerTable::~PeerTable() {
  for (uint32_t index = 0; index < used_ids_; ++index) {
    if (Peer* peer = PeerAt(index)) FreePeer(peer, &quiescence_->memory());
  }
  for (uint32_t chunk = 0; chunk * kIdsPerChunk < used_ids_; ++chunk) {
    delete id_chunks_[chunk].load(std::memory_order_relaxed);
  }
}

void PeerTable::OwnersOf(std::span<const Endpoint* const> from, PeerId* out) const {
  while (from.size() > kGroup) {
    OwnersOfGroup(from.first(kGroup), out);
    from = from.subspan(kGroup);
    out += kGroup;
  }
  OwnersOfGroup(from, out);
}

// No step waits for memory before the same step of the others has been taken.
void PeerTable::OwnersOfGroup(std::span<const Endpoint* const> from, PeerId* out) const {
  std::array<TableSearch, kGroup> searches;
  std::array<uint64_t, kGroup> entries;
  uint32_t v4 = 0;    // bit i: from[i] is in that table
  uint32_t more = 0;  // bit i: its first look was not all
  for (size_t i = 0; i < from.size(); ++i) {
    if (V4Traits::Fits(*from[i])) {
      v4 |= uint32_t{1} << i;
      searches[i] = by_v4_.Begin(*from[i]);
    } else {
      searches[i] = by_address_.Begin(*from[i]);
    }
  }
  for (size_t i = 0; i < from.size(); ++i) {
    const LineGlance glance =
        ((v4 >> i) & 1) != 0 ? by_v4_.Glance(searches[i]) : by_address_.Glance(searches[i]);
    if (glance.is_all) {
      out[i] = static_cast<PeerId>(glance.entry);  // 0 is kNone
    } else {
      entries[i] = glance.entry;
      more |= uint32_t{1} << i;
    }
  }
  for (; more != 0; more &= more - 1) {
    const auto i = static_cast<size_t>(std::countr_zero(more));
    if (((v4 >> i) & 1) != 0) {
      out[i] = static_cast<PeerId>(by_v4_.Finish(searches[i], *from[i], entries[i]));
    } else {
      out[i] = AddressTraits::OwnerOf(by_address_.Finish(searches[i], *from[i], entries[i]));
    }
  }
}

void PeerTable::PrefetchPeers(std::span<const PeerId> ids) const {
  for (const PeerId id : ids) {
    if (const auto* word = WordOf(id)) __builtin_prefetch(word);
  }
  for (const PeerId id : ids) {
    const auto* word = WordOf(id);
    if (word == nullptr) continue;
    const uint64_t peer = word->load(std::memory_order_acquire);
    if ((peer & kFreeBit) == 0) __builtin_prefetch(reinterpret_cast<const Peer*>(peer)->hot_line());
  }
}

absl::StatusOr<PeerId> PeerTable::Create(const PublicKey& key,
                                         std::span<const Endpoint> endpoints) {
  if (key.IsZero()) return absl::InvalidArgumentError("the all-zero key is no peer's key");
  if (endpoints.size() > kMaxEndpoints) {
    return absl::InvalidArgumentError(
        absl::StrCat("a peer has at most ", kMaxEndpoints, " endpoints; got ", endpoints.size()));
  }
  std::array<Endpoint, kMaxEndpoints> list;
  size_t count = 0;
  for (const Endpoint& endpoint : endpoints) {
    if (const absl::Status status = CheckEndpoint(endpoint); !status.ok()) return status;
    const auto end = list.begin() + static_cast<ptrdiff_t>(count);
    if (std::find(list.begin(), end, endpoint) == end) list[count++] = endpoint;
  }

  Peer* old = FindByKey(key);
  if (old == nullptr && size() >= capacity_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "there are ", size(), " peers, as many as max_peers allows; raise it to have more"));
  }
  const PeerId id = old != nullptr ? old->id() : TakeId();
  if (id == PeerId::kNone) return absl::ResourceExhaustedError("all peer ids have been used up");
  Peer* peer = NewPeer(id, key, {list.data(), count});
  uint64_t previous = 0;
  if (!by_key_.Put(key, KeyTraits::Entry(peer), &previous)) {
    peer_bytes_ -= Peer::SizeFor(count);
    FreePeer(peer, &quiescence_->memory());
    ReturnId(id);
    return absl::ResourceExhaustedError("the table of keys has no room for this key");
  }
  IdWord(IndexOf(id)).store(reinterpret_cast<uintptr_t>(peer), std::memory_order_release);
  Own(peer);
  if (old != nullptr) {
    LetGo(old, peer);
    Retire(old);
  } else {
    size_.store(size() + 1, std::memory_order_relaxed);
  }
  return id;
}

bool PeerTable::Remove(PeerId id) {
  Peer* peer = FindById(id);
  if (peer == nullptr) return false;
  ReturnId(id);
  by_key_.Erase(peer->key());
  LetGo(peer, nullptr);
  Retire(peer);
  size_.store(size() - 1, std::memory_order_relaxed);
  return true;
}

size_t PeerTable::Update(std::span<const PublicKey> keys,
                         const std::function<void(const Peer&)>& removed) {
  std::vector<bool> keep(used_ids_);
  for (const PublicKey& key : keys) {
    if (const Peer* peer = FindByKey(key)) keep[IndexOf(peer->id())] = true;
  }
  size_t count = 0;
  for (uint32_t index = 0; index < used_ids_; ++index) {
    if (keep[index]) continue;
    const Peer* peer = PeerAt(index);
    if (peer == nullptr) continue;
    if (removed) removed(*peer);
    count += Remove(peer->id());
  }
  return count;
}

void PeerTable::ResetPaths(Instant now) {
  for (uint32_t index = 0; index < used_ids_; ++index) {
    if (Peer* peer = PeerAt(index)) peer->addresses().Reset(now);
  }
}

size_t PeerTable::MemoryUsed() const {
  const size_t chunks = (used_ids_ + kIdsPerChunk - 1) / kIdsPerChunk;
  return peer_bytes_ + by_v4_.MemoryUsed() + by_address_.MemoryUsed() + by_key_.MemoryUsed() +
         chunks * sizeof(IdChunk) + ((capacity_ - 1) / kIdsPerChunk + 1) * sizeof(void*);
}

std::atomic<uint64_t>& PeerTable::IdWord(uint32_t index) const {
  return id_chunks_[index / kIdsPerChunk]
      .load(std::memory_order_relaxed)
      ->words[index % kIdsPerChunk];
}

Peer* PeerTable::PeerAt(uint32_t index) const {
  const uint64_t word = IdWord(index).load(std::memory_order_relaxed);
  return (word & kFreeBit) != 0 ? nullptr : reinterpret_cast<Peer*>(word);
}

// The word stays free until the peer is put there.
PeerId PeerTable::TakeId() {
  if (free_id_ == kNoIndex) {
    if (used_ids_ == capacity_) return PeerId::kNone;
    const uint32_t index = used_ids_++;
    if (index % kIdsPerChunk == 0) {
      auto* chunk = new IdChunk;
      for (auto& word : chunk->words) word.store(kFreeBit, std::memory_order_relaxed);
      id_chunks_[index / kIdsPerChunk].store(chunk, std::memory_order_release);
    }
    return static_cast<PeerId>((uint64_t{1} << 32) | index);
  }
  const uint32_t index = free_id_;
  const uint64_t word = IdWord(index).load(std::memory_order_relaxed);
  free_id_ = static_cast<uint32_t>(word) >> 1;
  return static_cast<PeerId>((word & ~uint64_t{UINT32_MAX}) | index);
}

void PeerTable::ReturnId(PeerId id) {
  if (GenerationOf(id) == UINT32_MAX) {  // worn out: the next id here would repeat the first
    IdWord(IndexOf(id)).store(kFreeBit, std::memory_order_release);
    return;
  }
  const uint64_t next_generation = (uint64_t{GenerationOf(id)} + 1) << 32;
  IdWord(IndexOf(id))
      .store(next_generation | (uint64_t{free_id_} << 1) | kFreeBit, std::memory_order_release);
  free_id_ = IndexOf(id);
}

Peer* PeerTable::NewPeer(PeerId id, const PublicKey& key, std::span<const Endpoint> endpoints) {
  const size_t size = Peer::SizeFor(endpoints.size());
  peer_bytes_ += size;
  return Peer::Construct(quiescence_->memory().Allocate(size), id, key, endpoints);
}

void PeerTable::FreePeer(void* object, void* memory) {
  auto* peer = static_cast<Peer*>(object);
  const size_t size = Peer::SizeFor(peer->addresses().endpoints().size());
  peer->~Peer();
  static_cast<BlockArena*>(memory)->Free(peer, size);
}

void PeerTable::Retire(Peer* peer) {
  peer_bytes_ -= Peer::SizeFor(peer->addresses().endpoints().size());
  quiescence_->Retire(peer, FreePeer, &quiescence_->memory());
}

// Makes `peer` the owner of its addresses. Who had one, other than its predecessor, is remembered.
void PeerTable::Own(const Peer* peer) {
  const auto list = peer->addresses().endpoints();
  for (size_t i = 0; i < list.size(); ++i) {
    if (IsRelay(list[i])) continue;
    ForgetEarlierOwner(list[i], peer->id());
    const PeerId owner = PutAddress(peer, i);
    if (owner != PeerId::kNone && owner != peer->id()) earlier_owners_[list[i]].push_back(owner);
  }
}

// Makes `peer` what its address `index` leads to; returns who it was before. If no room could be
// made, the address is like one that is unknown: packets from it still reach the embedder (RECV-4).
PeerId PeerTable::PutAddress(const Peer* peer, size_t index) {
  const Endpoint& address = peer->addresses().endpoint(index);
  uint64_t previous = 0;
  if (V4Traits::Fits(address)) {
    by_v4_.Put(address, static_cast<uint64_t>(peer->id()), &previous);
    return static_cast<PeerId>(previous);
  }
  by_address_.Put(address, AddressTraits::Entry(peer, index), &previous);
  return AddressTraits::OwnerOf(previous);
}

// Ends the ownership of what `peer` lists and `successor`, if there is one, does not.
void PeerTable::LetGo(const Peer* peer, const Peer* successor) {
  for (const Endpoint& address : peer->addresses().endpoints()) {
    if (IsRelay(address)) continue;
    if (successor != nullptr && successor->addresses().IndexOf(address) >= 0) continue;
    if (OwnerOf(address) == peer->id()) {
      HandBack(address);
    } else {
      ForgetEarlierOwner(address, peer->id());
    }
  }
}

// Gives an address that its owner left to the one before, or to nobody.
void PeerTable::HandBack(const Endpoint& address) {
  const auto earlier = earlier_owners_.find(address);
  if (earlier == earlier_owners_.end()) {
    if (V4Traits::Fits(address)) {
      by_v4_.Erase(address);
    } else {
      by_address_.Erase(address);
    }
    return;
  }
  const Peer* peer = FindById(earlier->second.back());
  earlier->second.pop_back();
  if (earlier->second.empty()) earlier_owners_.erase(earlier);
  PutAddress(peer, static_cast<size_t>(peer->addresses().IndexOf(address)));
}

void PeerTable::ForgetEarlierOwner(const Endpoint& address, PeerId id) {
  if (earlier_owners_.empty()) return;
  const auto earlier = earlier_owners_.find(address);
  if (earlier == earlier_owners_.end()) return;
  std::erase(earlier->second, id);
  if (earlier->second.empty()) earlier_owners_.erase(earlier);
}

}  // namespace ringsock
