#include "core/quiescence.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ringsock {

void Quiescence::Reader::Online() {
  // Of a writer that unlinks something and then looks at our word, and us, who announce and then
  // look at the epoch: by the single order of these four operations, either the writer sees us
  // online, or we see its epoch and with it what it unlinked.
  word_->epoch.store(1, std::memory_order_seq_cst);
  word_->epoch.store(shared_->epoch.load(std::memory_order_seq_cst), std::memory_order_release);
}

void Quiescence::Reader::Release() {
  if (word_ == nullptr) return;
  Offline();
  word_->claimed.store(false, std::memory_order_release);
  word_ = nullptr;
  shared_ = nullptr;
}

Quiescence::Quiescence() : shared_(std::make_unique<Shared>()) {}

Quiescence::~Quiescence() {
  for (const Retired& item : pending_) item.free(item.object, item.context);
}

absl::StatusOr<Quiescence::Reader> Quiescence::Register() {
  for (size_t i = 0; i < kMaxReaders; ++i) {
    Word& word = shared_->words[i];
    bool expected = false;
    if (word.claimed.load(std::memory_order_relaxed) ||
        !word.claimed.compare_exchange_strong(expected, true, std::memory_order_acquire)) {
      continue;
    }
    // Before the reader goes online, so that a writer that may have to see it does scan so far.
    size_t used = shared_->used_words.load(std::memory_order_seq_cst);
    while (used <= i && !shared_->used_words.compare_exchange_weak(used, i + 1)) {
    }
    return Reader(shared_.get(), &word);
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("more than ", kMaxReaders, " threads read the peer tables at one time"));
}

void Quiescence::Retire(void* object, FreeFunction free, void* context) {
  pending_.push_back({std::numeric_limits<uint64_t>::max(), object, free, context});
  ++unmarked_;
}

uint64_t Quiescence::OldestReader() const {
  uint64_t oldest = shared_->epoch.load(std::memory_order_seq_cst);
  const size_t used = shared_->used_words.load(std::memory_order_seq_cst);
  for (size_t i = 0; i < used; ++i) {
    const uint64_t epoch = shared_->words[i].epoch.load(std::memory_order_seq_cst);
    if (epoch != 0) oldest = std::min(oldest, epoch);
  }
  return oldest;
}

size_t Quiescence::Reclaim() {
  if (unmarked_ != 0) {
    // One step of the epoch for all that was retired since the last: readers load it every loop.
    const uint64_t epoch = Advance();
    for (auto item = pending_.end() - static_cast<ptrdiff_t>(unmarked_); item != pending_.end();
         ++item) {
      item->epoch = epoch;
    }
    unmarked_ = 0;
  }
  if (pending_.empty()) return 0;
  const uint64_t oldest = OldestReader();
  while (!pending_.empty() && pending_.front().epoch <= oldest) {
    const Retired item = pending_.front();
    pending_.pop_front();
    item.free(item.object, item.context);
  }
  return pending_.size();
}

}  // namespace ringsock
