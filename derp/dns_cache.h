// What the resolver remembers: addresses for as long as their TTL says, errors for a short time,
// and after that the last good answer for when the DNS is down (RFC 8767). No I/O.
#ifndef RINGSOCK_DERP_DNS_CACHE_H_
#define RINGSOCK_DERP_DNS_CACHE_H_

#include <cstddef>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "derp/resolver.h"

namespace ringsock::derp {

// A name and a family: they are asked for, and live, apart.
using DnsKey = std::pair<std::string, AddressFamily>;

// Not thread safe.
class DnsCache {
 public:
  // Of the options, those on TTLs and entries. When it is full, what was not asked for the longest
  // goes.
  explicit DnsCache(const ResolverOptions& options) : options_(options) {}

  // What a request gets without asking the DNS; nothing: ask.
  std::optional<absl::StatusOr<Resolved>> Get(const DnsKey& key, Instant now);
  // The last good answer, however old.
  std::optional<Resolved> GetStale(const DnsKey& key) const;

  void Put(const DnsKey& key, std::vector<IpAddress> addresses, Duration ttl, Instant now);
  // NotFound is an answer too and replaces the good one. Other errors leave it.
  void PutError(const DnsKey& key, const absl::Status& error, Instant now);
  // Other DNS servers may know more.
  void ForgetErrors();
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    DnsKey key;
    std::vector<IpAddress> addresses;
    Instant good_until = Instant::min();
    absl::Status error;
    Instant error_until = Instant::min();
  };

  Entry& Touch(const DnsKey& key);

  const ResolverOptions options_;
  std::list<Entry> entries_;  // the last asked for first
  std::map<DnsKey, std::list<Entry>::iterator> by_key_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_DNS_CACHE_H_
