#include "derp/node_dialer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringsock::derp {
namespace {

const char* FamilyName(AddressFamily family) {
  return family == AddressFamily::kV4 ? "IPv4" : "IPv6";
}

}  // namespace

NodeDialer::Attempt::Attempt(Leg* leg, io::StreamLoop* streams)
    : leg(leg), transport(std::make_unique<RelayTransport>(streams, this)) {}

void NodeDialer::Attempt::OnTransportConnected() {
  leg->dialer->Finish(std::move(transport));  // destroys this
}

void NodeDialer::Attempt::OnTransportClosed(const absl::Status& why) {
  leg->dialer->OnAttemptOver(leg, this, why);  // likewise
}

NodeDialer::Leg::Leg(NodeDialer* dialer, AddressFamily family)
    : dialer(dialer),
      family(family),
      next(dialer->context_->timers, [this] { this->dialer->TryNext(this); }) {}

NodeDialer::NodeDialer(const DialContext* context, const RelayNode* node, Instant deadline,
                       Done done)
    : context_(context),
      node_(node),
      deadline_(deadline),
      done_(std::move(done)),
      v4_(this, AddressFamily::kV4),
      v6_(this, AddressFamily::kV6),
      timeout_(context->timers, [this] {
        const bool over = v4_.over() && v6_.over();
        Finish(Error(over ? absl::StatusCode::kUnavailable : absl::StatusCode::kDeadlineExceeded));
      }) {
  const RelayNode::Family v4 = node->v4();
  const RelayNode::Family v6 = node->v6();
  const Instant now = context->clock->Now();
  if (context->prefer_ipv6 && v6.enabled) v4_.not_before = now + kPreferredHeadStart;
  Start(&v4_, v4);
  Start(&v6_, v6);
  timeout_.Schedule(v4_.over() && v6_.over() ? now : deadline);
}

NodeDialer::~NodeDialer() {
  for (Leg* leg : {&v4_, &v6_}) {
    if (leg->resolving) context_->resolver->Cancel(leg->request);
  }
}

void NodeDialer::Start(Leg* leg, const RelayNode::Family& family) {
  const Instant now = context_->clock->Now();
  if (!family.enabled) {
    leg->error = absl::FailedPreconditionError("off in the relay map");
    return;
  }
  std::optional<IpAddress> address = family.address;
  if (!address.has_value()) {
    if (const auto literal = IpAddress::Parse(node_->host_name); literal.ok()) address = *literal;
  }
  if (address.has_value()) {
    if (address->IsV4() != (leg->family == AddressFamily::kV4)) {
      leg->error = absl::FailedPreconditionError("HostName is an address of the other family");
      return;
    }
    leg->waiting.push_back(*address);
    leg->next.Schedule(std::max(now, leg->not_before));
    return;
  }
  leg->resolving = true;
  leg->request = context_->resolver->Resolve(
      node_->host_name, leg->family,
      [this, leg](const absl::StatusOr<Resolved>& resolved) { OnResolved(leg, resolved); });
}

void NodeDialer::OnResolved(Leg* leg, const absl::StatusOr<Resolved>& resolved) {
  leg->resolving = false;
  if (!resolved.ok()) {
    leg->error = resolved.status();
    return CheckOver();
  }
  const size_t count = std::min(resolved->addresses.size(), kMaxDialAddresses);
  leg->waiting.assign(resolved->addresses.begin(),
                      resolved->addresses.begin() + static_cast<ptrdiff_t>(count));
  leg->next.Schedule(std::max(context_->clock->Now(), leg->not_before));
}

void NodeDialer::TryNext(Leg* leg) {
  if (leg->waiting.empty()) return;
  const Endpoint to{leg->waiting.front(), node_->port(), 0};
  leg->waiting.pop_front();
  auto attempt = std::make_unique<Attempt>(leg, context_->streams);
  const absl::Status status = attempt->transport->Connect({.to = to,
                                                           .device = context_->device,
                                                           .deadline = deadline_,
                                                           .options = TransportStreamOptions()});
  if (!status.ok()) {
    leg->error = status;
    if (!leg->waiting.empty()) leg->next.Schedule(context_->clock->Now());
    return CheckOver();
  }
  leg->attempts.push_back(std::move(attempt));
  if (!leg->waiting.empty()) leg->next.Schedule(context_->clock->Now() + kNextAddressDelay);
}

void NodeDialer::OnAttemptOver(Leg* leg, Attempt* attempt, const absl::Status& why) {
  leg->error = why;
  std::erase_if(leg->attempts, [attempt](const auto& other) { return other.get() == attempt; });
  if (!leg->waiting.empty()) leg->next.Schedule(context_->clock->Now());
  CheckOver();
}

void NodeDialer::CheckOver() {
  if (v4_.over() && v6_.over()) return Finish(Error(absl::StatusCode::kUnavailable));
  // Nobody to wait for any more.
  if (v6_.over()) {
    v4_.not_before = {};
    if (!v4_.waiting.empty() && v4_.attempts.empty()) v4_.next.Schedule(context_->clock->Now());
  }
}

absl::Status NodeDialer::Error(absl::StatusCode code) const {
  std::string text = absl::StrCat("node ", node_->name, ":");
  if (code == absl::StatusCode::kDeadlineExceeded) {
    absl::StrAppend(&text, " no TCP connection in time:");
  }
  const char* separator = " ";
  for (const Leg* leg : {&v4_, &v6_}) {
    absl::StrAppend(&text, separator, FamilyName(leg->family), ": ");
    separator = "; ";
    if (leg->resolving) {
      absl::StrAppend(&text, "the DNS has not answered for ", node_->host_name);
    } else if (!leg->attempts.empty()) {
      absl::StrAppend(&text, "no answer from ",
                      leg->attempts.back()->transport->remote().ToString());
    } else if (!leg->error.ok()) {
      absl::StrAppend(&text, leg->error.message());
    } else {
      absl::StrAppend(&text, "not tried");
    }
  }
  return {code, text};
}

void NodeDialer::Finish(absl::StatusOr<std::unique_ptr<RelayTransport>> result) {
  // The last thing that touches this: `done` may destroy it.
  const Done done = std::move(done_);
  if (done == nullptr) return;
  timeout_.Cancel();
  for (Leg* leg : {&v4_, &v6_}) {
    leg->next.Cancel();
    leg->waiting.clear();
    leg->attempts.clear();  // the losers
    if (std::exchange(leg->resolving, false)) context_->resolver->Cancel(leg->request);
  }
  done(std::move(result));
}

}  // namespace ringsock::derp
