#include "derp/resolver.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "derp/dns_cache.h"
#include "derp/dns_client.h"

namespace ringsock::derp {
namespace {

// The cache in front of the DNS, and the requests that wait for either.
class CachingResolver final : public Resolver {
 public:
  CachingResolver(io::Loop* loop, TimerQueue* timers, const ResolverOptions& options,
                  std::unique_ptr<DnsClient> dns)
      : loop_(loop),
        options_(options),
        dns_(std::move(dns)),
        cache_(options),
        deliver_(timers, [this] { Deliver(); }),
        stale_(timers, [this] { OnStaleTimer(); }) {}

  RequestId Resolve(const std::string& name, AddressFamily family, Callback done) override;
  void Cancel(RequestId request) override;
  void OnLinkChange() override;

 private:
  struct Waiting {
    RequestId id;
    Callback done;
    Instant stale_at;  // gets the last good answer by then, if there is one
  };
  struct Ready {
    RequestId id;
    Callback done;
    absl::StatusOr<Resolved> result;
  };

  void OnAnswer(const DnsKey& key, const absl::StatusOr<DnsClient::Answer>& answer);
  void Finish(Waiting waiting, const absl::StatusOr<Resolved>& result);
  void Deliver();
  void OnStaleTimer();

  io::Loop* const loop_;
  const ResolverOptions options_;
  const std::unique_ptr<DnsClient> dns_;
  DnsCache cache_;
  RequestId last_id_ = 0;
  std::map<DnsKey, std::vector<Waiting>> asked_;  // of the DNS; perhaps nobody waits any more
  std::deque<Ready> ready_;                       // to be called back
  Timer deliver_;
  Timer stale_;
};

Resolver::RequestId CachingResolver::Resolve(const std::string& name, AddressFamily family,
                                             Callback done) {
  const DnsKey key(name, family);
  const Instant now = loop_->clock().Now();
  Waiting waiting{.id = ++last_id_, .done = std::move(done), .stale_at = Instant::max()};
  const RequestId id = waiting.id;
  if (const auto cached = cache_.Get(key, now)) {
    Finish(std::move(waiting), *cached);
    return id;
  }
  const auto asked = asked_.find(key);
  if (asked == asked_.end() && asked_.size() >= options_.max_entries) {
    Finish(std::move(waiting), absl::ResourceExhaustedError("DNS: too many names at one time"));
    return id;
  }
  if (cache_.GetStale(key).has_value()) {
    waiting.stale_at = now + options_.stale_after;
    if (!stale_.scheduled()) stale_.Schedule(waiting.stale_at);
  }
  asked_[key].push_back(std::move(waiting));
  if (asked == asked_.end()) {
    dns_->Query(name, family, [this, key](const absl::StatusOr<DnsClient::Answer>& answer) {
      OnAnswer(key, answer);
    });
  }
  return id;
}

void CachingResolver::Cancel(RequestId request) {
  for (auto& [key, waiting] : asked_) {
    std::erase_if(waiting, [request](const Waiting& other) { return other.id == request; });
  }
  std::erase_if(ready_, [request](const Ready& other) { return other.id == request; });
}

void CachingResolver::OnLinkChange() {
  cache_.ForgetErrors();
  dns_->Restart();
}

void CachingResolver::OnAnswer(const DnsKey& key, const absl::StatusOr<DnsClient::Answer>& answer) {
  const Instant now = loop_->clock().Now();
  if (answer.ok()) {
    cache_.Put(key, answer->addresses, answer->ttl, now);
  } else {
    cache_.PutError(key, answer.status(), now);
  }
  const auto asked = asked_.extract(key);
  if (asked.empty()) return;
  // After an error that is none of the name: the last good answer, if there is one.
  absl::StatusOr<Resolved> result = Resolved{};
  if (answer.ok()) {
    result->addresses = answer->addresses;
  } else if (auto stale = cache_.GetStale(key)) {
    result = *std::move(stale);
  } else {
    result = answer.status();
  }
  for (Waiting& waiting : asked.mapped()) Finish(std::move(waiting), result);
}

void CachingResolver::Finish(Waiting waiting, const absl::StatusOr<Resolved>& result) {
  ready_.push_back({waiting.id, std::move(waiting.done), result});
  deliver_.Schedule(loop_->clock().Now());
}

void CachingResolver::Deliver() {
  // What the callbacks ask for comes in the next turn; what they cancel does not come at all.
  for (size_t left = ready_.size(); left > 0 && !ready_.empty(); --left) {
    const Ready ready = std::move(ready_.front());
    ready_.pop_front();
    ready.done(ready.result);
  }
}

void CachingResolver::OnStaleTimer() {
  const Instant now = loop_->clock().Now();
  Instant next = Instant::max();
  for (auto& [key, list] : asked_) {
    const auto due = std::stable_partition(
        list.begin(), list.end(), [now](const Waiting& waiting) { return waiting.stale_at > now; });
    const auto stale = cache_.GetStale(key);
    for (auto waiting = due; waiting != list.end() && stale.has_value(); ++waiting) {
      Finish(std::move(*waiting), *stale);
    }
    if (stale.has_value()) list.erase(due, list.end());
    for (const Waiting& waiting : list) {
      if (waiting.stale_at > now) next = std::min(next, waiting.stale_at);
    }
  }
  stale_.Schedule(next);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Resolver>> NewResolver(io::Loop* loop, TimerQueue* timers,
                                                      const ResolverOptions& options) {
  auto dns = DnsClient::Create(loop, timers, options);
  if (!dns.ok()) return dns.status();
  return std::make_unique<CachingResolver>(loop, timers, options, *std::move(dns));
}

}  // namespace ringsock::derp
