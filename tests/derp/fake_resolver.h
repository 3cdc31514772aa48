// A resolver for tests that answers from a table, after a delay of the test's choice.
#ifndef RINGSOCK_TESTS_DERP_FAKE_RESOLVER_H_
#define RINGSOCK_TESTS_DERP_FAKE_RESOLVER_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/timer_queue.h"
#include "derp/resolver.h"

namespace ringsock::derp {

// Both outlive it.
class FakeResolver final : public Resolver {
 public:
  FakeResolver(const Clock* clock, TimerQueue* timers) : clock_(clock), timers_(timers) {}

  // Of either family; names that are not here do not exist.
  void Set(const std::string& name, std::vector<IpAddress> addresses) {
    names_[name] = std::move(addresses);
  }
  Duration delay{};     // of each answer
  bool down = false;    // the DNS does not answer: an error after the delay
  bool silent = false;  // not even that
  uint64_t requests = 0;
  uint64_t link_changes = 0;

  RequestId Resolve(const std::string& name, AddressFamily family, Callback done) override {
    ++requests;
    const RequestId id = ++last_id_;
    if (silent) return id;
    auto& request = running_[id];
    request = std::make_unique<Timer>(timers_, [this, id, name, family, done = std::move(done)] {
      const std::unique_ptr<Timer> timer = std::move(running_[id]);
      running_.erase(id);
      done(Answer(name, family));
    });
    request->Schedule(clock_->Now() + delay);
    return id;
  }
  void Cancel(RequestId request) override { running_.erase(request); }
  void OnLinkChange() override { ++link_changes; }
  size_t running() const { return running_.size(); }

 private:
  absl::StatusOr<Resolved> Answer(const std::string& name, AddressFamily family) const {
    if (down) return absl::UnavailableError(absl::StrCat("DNS: no answer for ", name));
    Resolved resolved;
    if (const auto found = names_.find(name); found != names_.end()) {
      for (const IpAddress& address : found->second) {
        if (address.IsV4() == (family == AddressFamily::kV4)) resolved.addresses.push_back(address);
      }
    }
    if (resolved.addresses.empty()) {
      return absl::NotFoundError(absl::StrCat("DNS: ", name, " has no such address"));
    }
    return resolved;
  }

  const Clock* const clock_;
  TimerQueue* const timers_;
  std::map<std::string, std::vector<IpAddress>> names_;
  RequestId last_id_ = 0;
  std::map<RequestId, std::unique_ptr<Timer>> running_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_FAKE_RESOLVER_H_
