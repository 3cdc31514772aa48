#include "derp/region_dialer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringsock::derp {
namespace {

// A map may have thousands of nodes; what failed at the first of them tells enough.
constexpr size_t kMaxErrors = 2048;

}  // namespace

RegionDialer::RegionDialer(const DialContext* context, const RelayRegion* region,
                           DialerEvents* events)
    : context_(context),
      region_(region),
      events_(events),
      step_(context->timers, [this] { Dial(); }) {}

size_t RegionDialer::Skip(size_t index) const {
  while (index < nodes().size() && nodes()[index].stun_only) ++index;
  return index;
}

void RegionDialer::Start() {
  const Instant now = context_->clock->Now();
  dialer_.reset();
  errors_.clear();
  deadline_ = now + kRegionTimeout;
  index_ = Skip(0);
  step_.Schedule(now);
}

void RegionDialer::Next(const absl::Status& why) {
  dialer_.reset();
  AddError(why);
  index_ = Skip(index_ + 1);
  step_.Schedule(context_->clock->Now());
}

void RegionDialer::Again(const absl::Status& why) {
  dialer_.reset();
  AddError(why);
  step_.Schedule(context_->clock->Now());
}

void RegionDialer::Stop() {
  dialer_.reset();
  step_.Cancel();
}

std::string RegionDialer::ideal_node() const {
  const size_t first = Skip(0);
  return index_ == first || first >= nodes().size() ? "" : nodes()[first].name;
}

Instant RegionDialer::login_deadline() const {
  const Instant now = context_->clock->Now();
  if (Skip(index_ + 1) >= nodes().size()) return deadline_;
  return now + std::max(Duration::zero(), deadline_ - now) / 2;
}

void RegionDialer::Dial() {
  const Instant now = context_->clock->Now();
  if (index_ >= nodes().size() || now >= deadline_) return Fail();
  dialer_.emplace(context_, &nodes()[index_], std::min(now + kNodeTimeout, deadline_),
                  [this](absl::StatusOr<std::unique_ptr<RelayTransport>> result) {
                    OnNode(std::move(result));
                  });
}

void RegionDialer::AddError(const absl::Status& why) {
  if (errors_.size() > kMaxErrors) return;
  absl::StrAppend(&errors_, errors_.empty() ? "" : "; ", why.message());
  if (errors_.size() > kMaxErrors) absl::StrAppend(&errors_, "; and so on");
}

void RegionDialer::OnNode(absl::StatusOr<std::unique_ptr<RelayTransport>> result) {
  // Not destroyed here: its attempts are still on the stack.
  if (!result.ok()) {
    AddError(result.status());
    index_ = Skip(index_ + 1);
    step_.Schedule(context_->clock->Now());
    return;
  }
  events_->OnDialed(std::move(*result));
}

void RegionDialer::Fail() {
  std::string text = absl::StrCat("region ", region_->region_id);
  if (!region_->region_code.empty()) absl::StrAppend(&text, " (", region_->region_code, ")");
  if (Skip(0) >= nodes().size()) {
    absl::StrAppend(&text, ": no node with a relay");
  } else if (index_ < nodes().size()) {
    absl::StrAppend(&text, ": not connected within 10 s: ", errors_);
  } else {
    absl::StrAppend(&text, ": ", errors_);
  }
  events_->OnDialFailed(index_ < nodes().size() ? absl::DeadlineExceededError(text)
                                                : absl::UnavailableError(text));
}

}  // namespace ringsock::derp
