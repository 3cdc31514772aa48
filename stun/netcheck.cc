#include "stun/netcheck.h"

#include <algorithm>

#include "base/log.h"

namespace ringsock::stun {

Netcheck::Netcheck(const NetcheckOptions& options, Random* random, NetcheckEnvironment* environment)
    : options_(options), random_(random), environment_(environment) {}

void Netcheck::SetMap(const ProbeMap& map) {
  std::set<RegionId> ids;
  next_map_.clear();
  for (const ProbeRegion& region : map) {
    if (region.id != 0 && ids.insert(region.id).second) next_map_.push_back(region);
  }
  std::erase_if(last_frame_, [&](const auto& entry) { return !ids.contains(entry.first); });
  said_unresolved_.clear();
  map_changed_ = true;
}

// --- Start ---

void Netcheck::OnNetworkChange() {
  history_.Clear();
  full_wanted_ = true;
}

bool Netcheck::Start(const NetcheckRequest& request, Instant now) {
  if (running_) return false;
  running_ = true;
  request_ = request;
  map_ = next_map_;
  report_ = Report{};
  report_.started = now;
  const bool shorter = request.timeout > Duration{} && request.timeout < options_.timeout;
  deadline_ = now + (shorter ? request.timeout : options_.timeout);
  udp_over_ = false;
  sent_.clear();
  resolved_.clear();
  sets_.clear();
  first_v4_server_.reset();
  hairpin_id_.reset();
  https_started_.reset();
  https_waiting_.clear();
  https_latency_.clear();
  for (ProbeSet& set : MakePlan(request, now)) sets_.push_back({std::move(set)});
  StartResolving();
  Advance(now);
  return true;
}

// spec: NC-4
ProbePlan Netcheck::MakePlan(const NetcheckRequest& request, Instant now) {
  const bool full = request.full || full_wanted_ || map_changed_ || !last_.has_value() ||
                    !last_full_.has_value() || last_->latency.empty() ||
                    now - *last_full_ > options_.full_interval;
  map_changed_ = full_wanted_ = false;
  report_.full = full;
  if (!full) return IncrementalPlan(map_, request.host, *last_);
  last_full_ = now;
  return FullPlan(map_, request.host);
}

// All names at once, so that a slow answer delays no other probe (spec: NC-11).
void Netcheck::StartResolving() {
  for (const Set& set : sets_) {
    for (const Probe& probe : set.plan.probes) {
      const ProbeNode& node = map_[set.plan.region].nodes[probe.node];
      if (node.address(set.plan.family).ip.has_value()) continue;
      const auto key = std::make_pair(node.host_name, set.plan.family);
      if (!resolved_.emplace(key, Resolved{}).second) continue;
      environment_->Resolve(node.host_name, set.plan.family);
    }
  }
}

void Netcheck::OnResolved(absl::string_view host_name, Family family,
                          std::span<const IpAddress> addresses, Instant now) {
  if (!running_) return;
  const auto key = std::make_pair(std::string(host_name), family);
  const auto found = resolved_.find(key);
  if (found == resolved_.end() || found->second.state != Resolution::kPending) return;
  const auto usable = std::find_if(addresses.begin(), addresses.end(), [&](const IpAddress& ip) {
    return ip.IsV4() == (family == Family::kV4) && !ip.IsUnspecified();
  });
  if (usable == addresses.end()) {
    found->second.state = Resolution::kFailed;
    if (said_unresolved_.insert(key).second) {
      Log().warn("netcheck: {} has no {} address in DNS: not probed", key.first,
                 family == Family::kV4 ? "IPv4" : "IPv6");
    }
  } else {
    found->second = {Resolution::kDone, *usable};
    said_unresolved_.erase(key);
  }
  Advance(now);
}

// --- Probes ---

const Netcheck::Resolved* Netcheck::FindResolved(const ProbeNode& node, Family family) const {
  if (node.address(family).ip.has_value()) return nullptr;
  const auto found = resolved_.find({node.host_name, family});
  return found == resolved_.end() ? nullptr : &found->second;
}

// spec: NC-5
bool Netcheck::WouldHelp(const ProbeSet& set) const {
  if (!report_.latency.contains(map_[set.region].id)) return true;
  if (set.family == Family::kV6) return !report_.ipv6;
  return report_.mapping_varies == Answer::kUnknown;
}

Instant Netcheck::DueTime(const Set& set) const {
  return report_.started + set.plan.probes[set.next].delay + set.shift;
}

void Netcheck::RunProbes(Instant now) {
  for (size_t i = 0; i < sets_.size(); ++i) {
    Set& set = sets_[i];
    while (!set.done && set.next < set.plan.probes.size()) {
      const Probe& probe = set.plan.probes[set.next];
      const ProbeNode& node = map_[set.plan.region].nodes[probe.node];
      const Resolved* resolved = FindResolved(node, set.plan.family);
      if (resolved != nullptr && resolved->state == Resolution::kFailed) {
        ++stats_.unresolved;
        ++set.next;
        continue;
      }
      if (DueTime(set) > now) break;
      if (!WouldHelp(set.plan)) {
        stats_.probes_spared += set.plan.probes.size() - set.next;
        set.done = true;
        break;
      }
      if (resolved != nullptr && resolved->state == Resolution::kPending) break;
      SendProbe(i, resolved != nullptr ? resolved->ip : *node.address(set.plan.family).ip, now);
      set.shift = now - report_.started - probe.delay;
      ++set.next;
    }
    // Nothing was sent and nothing will be: nothing to wait for.
    if (set.next == set.plan.probes.size() && set.sent == 0) set.done = true;
  }
}

void Netcheck::SendProbe(size_t index, const IpAddress& server, Instant now) {
  Set& set = sets_[index];
  const size_t node = set.plan.probes[set.next].node;
  const Endpoint to{server, *map_[set.plan.region].nodes[node].stun_port, 0};
  TransactionId id = MakeTransactionId(random_);
  while (!sent_.try_emplace(id, Sent{index, to, now}).second) id = MakeTransactionId(random_);
  ++set.sent;
  ++stats_.probes_sent;
  environment_->SendProbe(to, EncodeBindingRequest(id));
}

// --- Answers ---

void Netcheck::OnDatagram(const Endpoint& from, std::span<const std::byte> packet, Instant now) {
  TransactionId id;
  const ParseResult request = ParseBindingRequest(packet, Dialect::kReference, &id);
  if (request == ParseResult::kOtherType) return OnResponse(from, packet, now);
  if (request != ParseResult::kOk) {
    ++stats_.malformed;
  } else if (!hairpin_id_.has_value() || id != *hairpin_id_) {
    ++stats_.unknown_id;
  } else if (!running_ || now > hairpin_deadline_) {
    ++stats_.late;
  } else if (report_.hairpin == Answer::kYes) {
    ++stats_.repeated;
  } else {
    report_.hairpin = Answer::kYes;  // spec: NC-7
    Advance(now);
  }
}

void Netcheck::OnResponse(const Endpoint& from, std::span<const std::byte> packet, Instant now) {
  BindingResponse response;
  if (ParseBindingResponse(packet, &response) != ParseResult::kOk) {
    ++stats_.malformed;
    return;
  }
  const auto found = sent_.find(response.id);
  if (found == sent_.end()) {
    ++stats_.unknown_id;
    return;
  }
  Sent& sent = found->second;
  if (from != sent.to) {
    ++stats_.wrong_source;
    return;
  }
  if (!running_ || now >= deadline_) {
    ++stats_.late;
    return;
  }
  if (sent.answered) {
    ++stats_.repeated;
    return;
  }
  if (response.error_code != 0) {
    ++stats_.refused;
    return;
  }
  Set& set = sets_[sent.set];
  const bool v4 = set.plan.family == Family::kV4;
  if (response.mapped.IsV4() != v4) {
    ++stats_.wrong_family;
    return;
  }
  sent.answered = true;
  set.done = true;
  ++stats_.answers;
  report_.udp = true;
  TakeLatency(set, now - sent.at);
  if (v4) {
    TakeV4(sent.to, response.mapped, now);
  } else {
    report_.ipv6 = true;
    if (report_.global_v6.IsNone()) report_.global_v6 = response.mapped;
  }
  Advance(now);
}

void Netcheck::TakeLatency(const Set& set, Duration latency) {
  const RegionId region = map_[set.plan.region].id;
  const auto [at, added] = report_.latency.emplace(region, RegionLatency{latency, {}, {}});
  RegionLatency& known = at->second;
  known.best = std::min(known.best, latency);
  auto& of_family = set.plan.family == Family::kV4 ? known.v4 : known.v6;
  of_family = std::min(of_family.value_or(latency), latency);
}

// spec: NC-6
void Netcheck::TakeV4(const Endpoint& server, const Endpoint& mapped, Instant now) {
  if (!first_v4_server_.has_value()) {
    first_v4_server_ = server;
    report_.global_v4 = mapped;
    CheckHairpin(now);
    return;
  }
  // The same server again says nothing about other destinations.
  if (server == *first_v4_server_) return;
  if (mapped != report_.global_v4) {
    report_.mapping_varies = Answer::kYes;
  } else if (report_.mapping_varies == Answer::kUnknown) {
    report_.mapping_varies = Answer::kNo;
  }
}

// spec: NC-7. While the address stays, a small report repeats what the last one found: the check
// costs half a second wherever the answer is no.
void Netcheck::CheckHairpin(Instant now) {
  if (!report_.full && last_.has_value() && last_->hairpin != Answer::kUnknown &&
      last_->global_v4 == report_.global_v4) {
    report_.hairpin = last_->hairpin;
    return;
  }
  hairpin_id_ = MakeTransactionId(random_);
  hairpin_deadline_ = std::min(now + options_.hairpin_timeout, deadline_);
  if (!environment_->SendHairpin(report_.global_v4, EncodeBindingRequest(*hairpin_id_))) {
    hairpin_id_.reset();
  }
}

// --- HTTPS ---

// spec: NC-9
void Netcheck::StartHttps(Instant now) {
  https_started_ = now;
  std::vector<std::pair<RegionId, const ProbeNode*>> targets;
  for (const ProbeRegion& region : map_) {
    const auto node = std::find_if(region.nodes.begin(), region.nodes.end(),
                                   [](const ProbeNode& n) { return !n.stun_only; });
    if (node == region.nodes.end()) continue;
    https_waiting_.insert(region.id);
    targets.emplace_back(region.id, &*node);
  }
  for (const auto& [region, node] : targets) environment_->MeasureHttps(region, *node);
}

void Netcheck::OnHttpsLatency(RegionId region, std::optional<Duration> latency, Instant now) {
  if (!running_ || https_waiting_.erase(region) == 0) return;
  if (latency.has_value() && *latency >= Duration{}) https_latency_.emplace(region, *latency);
  Advance(now);
}

void Netcheck::OnRelayFrame(RegionId region, Instant now) {
  const auto in = [&](const ProbeMap& map) {
    return std::any_of(map.begin(), map.end(), [&](const auto& r) { return r.id == region; });
  };
  const auto found = last_frame_.find(region);
  if (found != last_frame_.end()) {
    found->second = std::max(found->second, now);
  } else if (in(next_map_)) {
    last_frame_.emplace(region, now);
  }
}

// --- Time ---

Instant Netcheck::NextDeadline() const {
  if (!running_) return Instant::max();
  Instant next = Instant::max();
  const auto consider = [&](Instant at) { next = std::min(next, at); };
  if (!report_.udp && !https_started_.has_value()) {
    consider(report_.started + (deadline_ - report_.started) / 2);
  }
  for (const Set& set : sets_) {
    if (set.done || set.next == set.plan.probes.size()) continue;
    const Probe& probe = set.plan.probes[set.next];
    const ProbeNode& node = map_[set.plan.region].nodes[probe.node];
    const Resolved* resolved = FindResolved(node, set.plan.family);
    // A probe that is due and waits for DNS goes when DNS answers.
    if (resolved == nullptr || resolved->state != Resolution::kPending) {
      consider(DueTime(set));
    }
  }
  if (hairpin_id_.has_value() && report_.hairpin == Answer::kUnknown) {
    // Seen "within" the time: its last instant still counts.
    consider(hairpin_deadline_ + Duration(1));
  }
  // Past the end of UDP only HTTPS is waited for.
  if (!udp_over_) consider(deadline_);
  if (https_started_.has_value()) consider(*https_started_ + options_.https_timeout);
  return next;
}

void Netcheck::Advance(Instant now) {
  if (!running_) return;
  udp_over_ = udp_over_ || now >= deadline_;
  if (!udp_over_) RunProbes(now);
  if (hairpin_id_.has_value() && report_.hairpin == Answer::kUnknown &&
      (now > hairpin_deadline_ || udp_over_)) {
    report_.hairpin = Answer::kNo;
  }
  const bool all_done =
      std::all_of(sets_.begin(), sets_.end(), [](const Set& s) { return s.done; });
  const bool hairpin_open = hairpin_id_.has_value() && report_.hairpin == Answer::kUnknown;
  udp_over_ = udp_over_ || (all_done && !hairpin_open);  // spec: NC-8
  if (!report_.udp && !https_started_.has_value() &&
      (udp_over_ || now - report_.started >= (deadline_ - report_.started) / 2)) {
    StartHttps(now);
  }
  if (!udp_over_) return;
  const bool https_over = !https_started_.has_value() || report_.udp || https_waiting_.empty() ||
                          now - *https_started_ >= options_.https_timeout;
  if (https_over) Finish(now);
}

void Netcheck::Finish(Instant now) {
  if (!report_.udp) {
    for (const auto& [region, latency] : https_latency_) {
      report_.latency[region] = RegionLatency{latency, {}, {}};
    }
  }
  HomeState home{request_.home, std::nullopt};
  if (const auto found = last_frame_.find(request_.home); found != last_frame_.end()) {
    home.last_frame = found->second;
  }
  report_.preferred = history_.AddAndChoose(report_, home, now, [&](RegionId id) {
    return std::any_of(map_.begin(), map_.end(), [&](const ProbeRegion& region) {
      return region.id == id && !region.avoid &&
             std::any_of(region.nodes.begin(), region.nodes.end(),
                         [](const ProbeNode& node) { return !node.stun_only; });
    });
  });
  running_ = false;
  last_ = report_;
  Log().info("netcheck: {}", ToLogLine(report_));  // spec: NC-12
  // A copy: the next report may be started, and even end, in there.
  const Report report = report_;
  environment_->OnReport(report);
}

}  // namespace ringsock::stun
