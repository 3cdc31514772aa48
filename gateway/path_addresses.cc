#include "gateway/path_addresses.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringsock::gateway {
namespace {

// The state of a slot: one word, so that meaning and generation change together.
constexpr uint64_t kOwnerMask = (1u << 27) - 1;
constexpr uint64_t kAnsweredBit = 1u << 27;
constexpr int kKindShift = 28;
constexpr int kGenerationShift = 32;

AddressKind KindOf(uint64_t state) { return static_cast<AddressKind>((state >> kKindShift) & 0xf); }

PeerIndex OwnerOf(uint64_t state) {
  return static_cast<PeerIndex>(state & kOwnerMask) - 1;  // 0 wraps to kNoPeer
}

uint64_t WithOwner(uint64_t state, PeerIndex owner) {
  return (state & ~kOwnerMask) | ((owner + 1) & kOwnerMask);
}

// The state after `state`: the next generation.
uint64_t NextState(uint64_t state, AddressKind kind, PeerIndex owner, bool answered) {
  const uint64_t generation = (state >> kGenerationShift) + 1;
  return WithOwner((generation << kGenerationShift) | (static_cast<uint64_t>(kind) << kKindShift) |
                       (answered ? kAnsweredBit : 0),
                   owner);
}

uint32_t Seconds(Instant now) {
  return static_cast<uint32_t>(
      std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count());
}

// Mapped rather than allocated: the kernel gives zeroed memory page by page as it is touched.
void* MapZeroed(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

void Unmap(void* memory, size_t bytes) {
  if (memory != nullptr) munmap(memory, bytes);
}

// Part of what operators see (the same key has the same address in every version), so not to be
// changed: the first eight bytes of the key, little endian.
uint64_t KeyHash(const PublicKey& key) {
  uint64_t word;
  std::memcpy(&word, key.bytes.data(), sizeof(word));
  return word * 0x9e3779b97f4a7c15u;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PathAddresses>> PathAddresses::Create(
    const LoopbackRange& range, std::span<const PeerConfig> peers) {
  void* slots = MapZeroed(range.size * sizeof(Slot));
  void* current = MapZeroed(kMaxPeerIndices * sizeof(std::atomic<uint32_t>));
  if (slots == nullptr || current == nullptr) {
    const int error = errno;
    Unmap(slots, range.size * sizeof(Slot));
    Unmap(current, kMaxPeerIndices * sizeof(std::atomic<uint32_t>));
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the ", range.size, " addresses of ", range.ToString(), ": ",
                     std::strerror(error), "; a smaller loopback_range needs less"));
  }
  std::unique_ptr<PathAddresses> addresses(
      new PathAddresses(range, static_cast<Slot*>(slots),
                        static_cast<std::atomic<uint32_t>*>(current), peers.size()));
  addresses->PlaceHomes(peers);
  for (PeerIndex peer = 0; peer < peers.size(); ++peer) {
    for (const Endpoint& endpoint : peers[peer].endpoints) {
      addresses->PlaceConfigured(peer, peers[peer].key, endpoint, Instant{});
    }
  }
  addresses->Publish();
  return addresses;
}

PathAddresses::PathAddresses(const LoopbackRange& range, Slot* slots,
                             std::atomic<uint32_t>* current, size_t peers)
    : range_(range),
      slots_(slots),
      current_(current),
      homes_(peers, kNoAddress),
      next_(std::make_unique<ConfiguredPaths>()) {}

PathAddresses::~PathAddresses() {
  delete configured_.load(std::memory_order_relaxed);
  Unmap(slots_, range_.size * sizeof(Slot));
  Unmap(current_, kMaxPeerIndices * sizeof(std::atomic<uint32_t>));
}

void PathAddresses::PlaceHomes(std::span<const PeerConfig> peers) {
  // In the order of the keys, so that collisions do not depend on the order in the file.
  std::vector<PeerIndex> order(peers.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [peers](PeerIndex a, PeerIndex b) { return peers[a].key < peers[b].key; });
  for (const PeerIndex peer : order) {
    homes_[peer] =
        PlaceStatic(KeyHash(peers[peer].key), AddressKind::kHome, peer, Endpoint(), Instant{});
  }
}

void PathAddresses::PlaceConfigured(PeerIndex peer, const PublicKey& key, const Endpoint& endpoint,
                                    Instant now) {
  const AddressOffset offset =
      PlaceStatic(HashEndpoint(endpoint, KeyHash(key)), AddressKind::kPath, peer, endpoint, now);
  // Without one, what comes from there gets an address as a path that was learnt does.
  if (offset != kNoAddress) (*next_)[PathKey::Of(endpoint, peer)] = {offset, peer};
}

AddressOffset PathAddresses::PlaceStatic(uint64_t hash, AddressKind kind, PeerIndex owner,
                                         const Endpoint& path, Instant now) {
  const int bits = std::countr_zero(range_.size);
  uint32_t offset = static_cast<uint32_t>(hash >> (64 - bits));
  for (uint32_t step = 0; step < range_.size; ++step, offset = (offset + 1) & (range_.size - 1)) {
    // The first and the last address look like a network's and its broadcast address.
    if (offset == 0 || offset == range_.size - 1) continue;
    Slot& slot = slots_[offset];
    uint64_t state = slot.state.load(std::memory_order_relaxed);
    if (KindOf(state) != AddressKind::kFree) continue;
    const uint64_t busy = NextState(state, AddressKind::kBusy, kNoPeer, false);
    if (!slot.state.compare_exchange_strong(state, busy, std::memory_order_acquire)) continue;
    const auto words = path.Words();
    for (size_t i = 0; i < words.size(); ++i) {
      slot.path[i].store(words[i], std::memory_order_release);  // as in Write()
    }
    slot.heard.store(0, std::memory_order_relaxed);
    slot.used.store(Seconds(now), std::memory_order_relaxed);
    slot.state.store(NextState(busy, kind, owner, /*answered=*/true), std::memory_order_release);
    return offset;
  }
  return kNoAddress;
}

bool PathAddresses::AddPeer(PeerIndex peer, const PublicKey& key, Instant now) {
  if (peer >= homes_.size()) homes_.resize(peer + 1, kNoAddress);
  const AddressOffset kept = homes_[peer];
  if (kept != kNoAddress) {
    std::erase_if(retired_, [kept](const ConfiguredPath& item) { return item.offset == kept; });
    return true;
  }
  homes_[peer] = PlaceStatic(KeyHash(key), AddressKind::kHome, peer, Endpoint(), now);
  return homes_[peer] != kNoAddress;
}

void PathAddresses::SetEndpoints(PeerIndex peer, const PublicKey& key,
                                 std::span<const Endpoint> before, std::span<const Endpoint> after,
                                 Instant now) {
  const auto listed = [](std::span<const Endpoint> list, const Endpoint& endpoint) {
    return std::find(list.begin(), list.end(), endpoint) != list.end();
  };
  for (const Endpoint& endpoint : before) {
    const auto it = next_->find(PathKey::Of(endpoint, peer));
    // It may be another peer's by now, which has an address of its own for it.
    if (it == next_->end() || it->second.owner != peer || listed(after, endpoint)) continue;
    Retire(it->second, now);
    next_->erase(it);
  }
  for (const Endpoint& endpoint : after) {
    const auto it = next_->find(PathKey::Of(endpoint, peer));
    if (it != next_->end() && it->second.owner == peer) continue;
    if (it != next_->end()) {
      Retire(it->second, now);
      next_->erase(it);
    }
    PlaceConfigured(peer, key, endpoint, now);
  }
}

void PathAddresses::RemovePeer(PeerIndex peer, const PublicKey& key,
                               std::span<const Endpoint> endpoints, Instant now) {
  SetEndpoints(peer, key, endpoints, {}, now);
  if (homes_[peer] != kNoAddress) Retire({homes_[peer], peer}, now);
}

void PathAddresses::Retire(const ConfiguredPath& path, Instant now) {
  Touch(path.offset, now);
  // What was heard there says nothing for it any more.
  slots_[path.offset].heard.store(0, std::memory_order_relaxed);
  retired_.push_back(path);
}

std::unique_ptr<const ConfiguredPaths> PathAddresses::Publish() {
  const ConfiguredPaths* before = configured_.load(std::memory_order_relaxed);
  // Sequentially consistent: readers announce themselves and then look (core/quiescence.h).
  configured_.store(new ConfiguredPaths(*next_), std::memory_order_seq_cst);
  return std::unique_ptr<const ConfiguredPaths>(before);
}

void PathAddresses::FreeRetired(Instant now) {
  std::erase_if(retired_, [this, now](const ConfiguredPath& item) {
    if (SecondsSinceUse(item.offset, now) < kIdlePathSeconds) return false;
    if (homes_[item.owner] == item.offset) homes_[item.owner] = kNoAddress;
    slots_[item.offset].heard.store(0, std::memory_order_relaxed);
    // If WireGuard does send there, it begins with a handshake, which says whose it is.
    std::atomic<uint64_t>& state = slots_[item.offset].state;
    uint64_t expected = state.load(std::memory_order_relaxed);
    while (!state.compare_exchange_weak(expected,
                                        NextState(expected, AddressKind::kFree, kNoPeer, false),
                                        std::memory_order_release, std::memory_order_relaxed)) {
    }
    return true;
  });
}

AddressOffset PathAddresses::Configured(const PathKey& key) const {
  const ConfiguredPaths& configured = *configured_.load(std::memory_order_seq_cst);
  const auto it = configured.find(key);
  return it == configured.end() ? kNoAddress : it->second.offset;
}

PathAddress PathAddresses::Read(AddressOffset offset) const {
  const Slot& slot = slots_[offset];
  PathAddress address;
  address.offset = offset;
  const uint64_t state = slot.state.load(std::memory_order_acquire);
  address.kind = KindOf(state);
  if (address.kind == AddressKind::kPath) {
    std::array<uint64_t, 3> words;
    // Acquire, so that a word of the next generation brings the state that preceded it.
    for (size_t i = 0; i < words.size(); ++i) {
      words[i] = slot.path[i].load(std::memory_order_acquire);
    }
    const uint64_t again = slot.state.load(std::memory_order_relaxed);
    if (again >> kGenerationShift != state >> kGenerationShift) {
      address.kind = AddressKind::kBusy;
      return address;
    }
    address.path = Endpoint::FromWords(words);
  }
  address.owner = OwnerOf(state);
  address.answered = (state & kAnsweredBit) != 0;
  address.state = state;
  return address;
}

void PathAddresses::Touch(AddressOffset offset, Instant now) {
  std::atomic<uint32_t>& used = slots_[offset].used;
  const uint32_t seconds = Seconds(now);
  // Written once a second, so that the line stays shared between the cores.
  if (used.load(std::memory_order_relaxed) != seconds) {
    used.store(seconds, std::memory_order_relaxed);
  }
}

uint32_t PathAddresses::SecondsSinceUse(AddressOffset offset, Instant now) const {
  const uint32_t used = slots_[offset].used.load(std::memory_order_relaxed);
  const auto age = static_cast<int32_t>(Seconds(now) - used);
  return age < 0 ? 0 : static_cast<uint32_t>(age);  // shards look at the clock at different times
}

void PathAddresses::MarkHeard(AddressOffset offset) {
  std::atomic<uint8_t>& heard = slots_[offset].heard;
  if (heard.load(std::memory_order_relaxed) == 0) heard.store(1, std::memory_order_relaxed);
}

bool PathAddresses::TakeHeard(AddressOffset offset) {
  std::atomic<uint8_t>& heard = slots_[offset].heard;
  if (heard.load(std::memory_order_relaxed) == 0) return false;
  heard.store(0, std::memory_order_relaxed);
  return true;
}

bool PathAddresses::MarkAnswered(const PathAddress& address) {
  std::atomic<uint64_t>& state = slots_[address.offset].state;
  uint64_t expected = state.load(std::memory_order_relaxed);
  while (expected >> kGenerationShift == address.state >> kGenerationShift) {
    if ((expected & kAnsweredBit) != 0) return true;
    if (state.compare_exchange_weak(expected, expected | kAnsweredBit, std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

bool PathAddresses::SetOwner(PathAddress* address, PeerIndex owner) {
  std::atomic<uint64_t>& state = slots_[address->offset].state;
  uint64_t expected = address->state;
  while (expected >> kGenerationShift == address->state >> kGenerationShift) {
    const uint64_t wanted = WithOwner(expected, owner);
    if (state.compare_exchange_weak(expected, wanted, std::memory_order_relaxed)) {
      address->state = wanted;
      address->owner = owner;
      return true;
    }
  }
  return false;
}

bool PathAddresses::Adopt(PathAddress* address, PeerIndex owner) {
  if (address->kind != AddressKind::kFree) return false;
  const uint64_t wanted = NextState(address->state, AddressKind::kAdopted, owner, true);
  uint64_t expected = address->state;
  if (!slots_[address->offset].state.compare_exchange_strong(expected, wanted,
                                                             std::memory_order_relaxed)) {
    return false;
  }
  address->kind = AddressKind::kAdopted;
  address->state = wanted;
  address->owner = owner;
  return true;
}

void PathAddresses::SetCurrent(PeerIndex peer, AddressOffset offset) {
  std::atomic<uint32_t>& current = current_[peer];
  if (current.load(std::memory_order_relaxed) != offset + 1) {
    current.store(offset + 1, std::memory_order_relaxed);
  }
}

bool PathAddresses::Write(AddressOffset offset, uint64_t expected, const PathKey& key,
                          PeerIndex owner, bool answered, Instant now) {
  Slot& slot = slots_[offset];
  const uint64_t busy = NextState(expected, AddressKind::kBusy, kNoPeer, false);
  if (!slot.state.compare_exchange_strong(expected, busy, std::memory_order_relaxed)) return false;
  const auto words = key.from.Words();
  // Release, so that who reads a new word also sees that the slot was busy.
  for (size_t i = 0; i < words.size(); ++i) {
    slot.path[i].store(words[i], std::memory_order_release);
  }
  slot.heard.store(0, std::memory_order_relaxed);
  slot.used.store(Seconds(now), std::memory_order_relaxed);
  slot.note.relayed = key.relayed;
  slot.state.store(NextState(busy, AddressKind::kPath, owner, answered), std::memory_order_release);
  return true;
}

bool PathAddresses::Claim(AddressOffset offset, const PathKey& key, PeerIndex owner, bool answered,
                          Instant now) {
  const uint64_t state = slots_[offset].state.load(std::memory_order_relaxed);
  if (KindOf(state) != AddressKind::kFree) return false;
  if (slots_[offset].heard.load(std::memory_order_relaxed) != 0) return false;
  return Write(offset, state, key, owner, answered, now);
}

bool PathAddresses::Reuse(const PathAddress& old, const PathKey& key, PeerIndex owner,
                          bool answered, Instant now) {
  return old.kind == AddressKind::kPath && Write(old.offset, old.state, key, owner, answered, now);
}

PathKey PathAddresses::KeyOf(AddressOffset offset) const {
  const Slot& slot = slots_[offset];
  std::array<uint64_t, 3> words;
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] = slot.path[i].load(std::memory_order_relaxed);
  }
  return {Endpoint::FromWords(words), slot.note.relayed};
}

}  // namespace ringsock::gateway
