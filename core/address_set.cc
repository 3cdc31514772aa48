#include "core/address_set.h"

#include <algorithm>
#include <cstdlib>

namespace ringsock {
namespace {

// Rounds of a reader or learner that is overtaken by others. Each round is a few loads; to lose one
// takes two roaming addresses learned in that time.
constexpr int kTries = 8;

// "Never", far enough from the ends that a difference does not overflow.
constexpr int64_t kLongAgo = INT64_MIN / 2;

int64_t Nanos(Instant at) { return at.time_since_epoch().count(); }

}  // namespace

const char* PathChangeName(PathChange change) {
  switch (change) {
    case PathChange::kUnchanged:
      return "unchanged";
    case PathChange::kRoamSet:
      return "roaming address set";
    case PathChange::kRoamReplaced:
      return "roaming address replaced";
    case PathChange::kRoamCleared:
      return "back from roaming to a listed address";
    case PathChange::kCurrentSet:
      return "current address set";
    case PathChange::kUpgraded:
      return "better address";
    case PathChange::kLowerKept:
      return "lower priority, current address kept";
  }
  return "?";
}

void AddressSet::Free::operator()(AddressSet* set) const {
  set->~AddressSet();
  ::operator delete(static_cast<void*>(set));
}

AddressSet::Owner AddressSet::New(std::span<const Endpoint> endpoints, uint64_t label) {
  void* memory = ::operator new(SizeFor(endpoints.size()));
  return Owner(new (memory) AddressSet(endpoints, label));
}

AddressSet::AddressSet(std::span<const Endpoint> endpoints, uint64_t label)
    : last_spray_(kLongAgo),
      window_end_(kLongAgo),
      label_(label),
      state_(kCurNone | (endpoints.size() << kCountShift)) {
  if (endpoints.size() > kMaxEndpoints) std::abort();
  static_assert(kMaxEndpoints < kCurNone && kMaxEndpoints <= kCountMask);
  static_assert(alignof(AddressSet) >= alignof(Endpoint) && sizeof(AddressSet) == 104);
  std::uninitialized_copy(endpoints.begin(), endpoints.end(),
                          reinterpret_cast<Endpoint*>(this + 1));
}

int AddressSet::IndexOf(const Endpoint& endpoint) const {
  const auto list = endpoints();
  const auto at = std::find(list.begin(), list.end(), endpoint);
  return at == list.end() ? -1 : static_cast<int>(at - list.begin());
}

bool AddressSet::ReadSlot(uint64_t state, std::array<uint64_t, 3>* words) const {
  const Slot& slot = roam_[SlotOf(state)];
  // Acquire, so that the check below is not made before them; and a writer's words carry with them
  // that it took the slot. At the second slot taken since `state` was read, this one may be in use.
  for (size_t i = 0; i < words->size(); ++i) {
    (*words)[i] = slot.words[i].load(std::memory_order_acquire);
  }
  const uint64_t now = state_.load(std::memory_order_acquire);
  const auto taken = static_cast<uint32_t>((now >> kTakenShift) - (state >> kTakenShift));
  return taken <= 1;
}

bool AddressSet::ReadRoam(uint64_t state, Endpoint* out) const {
  for (int i = 0; i < kTries && (state & kRoamBit) != 0; ++i) {
    std::array<uint64_t, 3> words;
    if (ReadSlot(state, &words)) {
      *out = Endpoint::FromWords(words);
      return true;
    }
    state = Load();
  }
  return false;
}

bool AddressSet::IsRoam(uint64_t state, const Endpoint& from) const {
  std::array<uint64_t, 3> words;
  return ReadSlot(state, &words) && words == from.Words();
}

void AddressSet::OpenWindow(Instant now) {
  window_end_.store(Nanos(now + kSprayWindow), std::memory_order_relaxed);
  // Publishes the window, and forgets cur.
  state_.fetch_or(kCurNone | kWindowBit, std::memory_order_acq_rel);
}

void AddressSet::Reset(Instant now) { OpenWindow(now); }

bool AddressSet::MaySpray(Instant now) {
  if (Nanos(now) >= window_end_.load(std::memory_order_relaxed)) {
    // Over: packets need not look again. A window opened at this very moment is not lost: either
    // its bit is set after ours is cleared, or we see its end now.
    state_.fetch_and(~kWindowBit, std::memory_order_acq_rel);
    if (Nanos(now) >= window_end_.load(std::memory_order_relaxed)) return false;
    state_.fetch_or(kWindowBit, std::memory_order_acq_rel);
  }
  int64_t last = last_spray_.load(std::memory_order_relaxed);
  return Nanos(now) - last >= kSprayInterval.count() &&
         last_spray_.compare_exchange_strong(last, Nanos(now), std::memory_order_relaxed);
}

void AddressSet::ChooseInWindow(bool handshake, Instant now, Destinations* out) {
  if (handshake) {
    last_spray_.store(Nanos(now), std::memory_order_relaxed);
    OpenWindow(now);
  } else if (!MaySpray(now)) {
    return ChooseOne(Load(), out);
  }
  Spray(out);
}

void AddressSet::Spray(Destinations* out) const {
  const uint64_t state = Load();
  const auto list = endpoints();
  std::copy(list.begin(), list.end(), out->endpoints.begin());
  out->count = static_cast<uint32_t>(list.size());
  out->spray = true;
  if (ReadRoam(state, &out->endpoints[out->count])) ++out->count;
}

// Takes the slot after the published one, writes it, publishes it.
PathChange AddressSet::LearnRoam(uint64_t state, const Endpoint& from) {
  const uint64_t next = (SlotOf(state) + 1) % kSlots;
  const auto words = from.Words();
  // Release, so that who reads a word sees that the slot was taken before.
  for (size_t i = 0; i < words.size(); ++i) {
    roam_[next].words[i].store(words[i], std::memory_order_release);
  }
  // Others may set or forget cur, end a roaming address or move the window meanwhile; only we may
  // touch what is changed here.
  uint64_t expected = Load();
  uint64_t desired;
  do {
    desired = (expected & ~kBusyBit & ~(kSlotMask << kSlotShift)) | kRoamBit | (next << kSlotShift);
  } while (!state_.compare_exchange_weak(expected, desired, std::memory_order_acq_rel,
                                         std::memory_order_acquire));
  return (expected & kRoamBit) != 0 ? PathChange::kRoamReplaced : PathChange::kRoamSet;
}

PathChange AddressSet::Confirm(const Endpoint& from, Endpoint* previous) {
  if (IsRelay(from) || !IsDestination(from)) return PathChange::kUnchanged;  // PATH-1
  const int index = IndexOf(from);
  uint64_t state = Load();
  for (int i = 0; i < kTries; ++i, state = Load()) {
    const uint64_t cur = state & kCurMask;
    const bool roaming = (state & kRoamBit) != 0;
    Endpoint used;
    if (roaming) {
      std::array<uint64_t, 3> words;
      if (!ReadSlot(state, &words)) continue;
      used = Endpoint::FromWords(words);
    } else if (cur != kCurNone) {
      used = List()[cur];
    }
    if (previous != nullptr) *previous = used;
    if ((roaming || cur != kCurNone) && used == from) return PathChange::kUnchanged;  // PATH-2

    if (index < 0) {  // PATH-3
      if ((state & kBusyBit) != 0) return PathChange::kUnchanged;
      const uint64_t taken = (state | kBusyBit) + (uint64_t{1} << kTakenShift);
      if (!state_.compare_exchange_strong(state, taken, std::memory_order_acq_rel)) continue;
      return LearnRoam(taken, from);
    }
    if (!roaming && cur != kCurNone && static_cast<uint64_t>(index) < cur) {
      return PathChange::kLowerKept;  // PATH-5
    }
    const uint64_t desired = (state & ~kCurMask & ~kRoamBit) | static_cast<uint64_t>(index);
    if (!state_.compare_exchange_strong(state, desired, std::memory_order_acq_rel)) continue;
    if (roaming) return PathChange::kRoamCleared;                              // PATH-4
    return cur == kCurNone ? PathChange::kCurrentSet : PathChange::kUpgraded;  // PATH-5
  }
  return PathChange::kUnchanged;
}

PathState AddressSet::Snapshot() const {
  PathState result;
  uint64_t state = Load();
  for (int i = 0; i < kTries && (state & kRoamBit) != 0; ++i) {
    std::array<uint64_t, 3> words;
    if (ReadSlot(state, &words)) {
      result.roam = Endpoint::FromWords(words);
      result.roaming = true;
      break;
    }
    state = Load();
  }
  const uint64_t cur = state & kCurMask;
  result.current = cur == kCurNone ? -1 : static_cast<int>(cur);
  return result;
}

}  // namespace ringsock
