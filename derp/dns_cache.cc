#include "derp/dns_cache.h"

#include <algorithm>

namespace ringsock::derp {

DnsCache::Entry& DnsCache::Touch(const DnsKey& key) {
  if (const auto found = by_key_.find(key); found != by_key_.end()) {
    entries_.splice(entries_.begin(), entries_, found->second);
    return entries_.front();
  }
  if (!entries_.empty() && entries_.size() >= options_.max_entries) {
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.emplace_front().key = key;
  by_key_[key] = entries_.begin();
  return entries_.front();
}

std::optional<absl::StatusOr<Resolved>> DnsCache::Get(const DnsKey& key, Instant now) {
  if (!by_key_.contains(key)) return std::nullopt;
  const Entry& entry = Touch(key);
  if (now < entry.good_until) return Resolved{.addresses = entry.addresses};
  if (now >= entry.error_until) return std::nullopt;
  if (!entry.addresses.empty()) return Resolved{.addresses = entry.addresses, .stale = true};
  return entry.error;
}

std::optional<Resolved> DnsCache::GetStale(const DnsKey& key) const {
  const auto found = by_key_.find(key);
  if (found == by_key_.end() || found->second->addresses.empty()) return std::nullopt;
  return Resolved{.addresses = found->second->addresses, .stale = true};
}

void DnsCache::Put(const DnsKey& key, std::vector<IpAddress> addresses, Duration ttl, Instant now) {
  Entry& entry = Touch(key);
  entry.addresses = std::move(addresses);
  entry.good_until = now + std::clamp(ttl, options_.min_ttl, options_.max_ttl);
  entry.error = absl::OkStatus();
  entry.error_until = Instant::min();
}

void DnsCache::PutError(const DnsKey& key, const absl::Status& error, Instant now) {
  Entry& entry = Touch(key);
  if (absl::IsNotFound(error)) {
    entry.addresses.clear();
    entry.good_until = Instant::min();
  }
  entry.error = error;
  entry.error_until = now + options_.negative_ttl;
}

void DnsCache::ForgetErrors() {
  for (Entry& entry : entries_) entry.error_until = Instant::min();
}

}  // namespace ringsock::derp
