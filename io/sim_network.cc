#include "io/sim_network.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace ringsock::io {
namespace {

constexpr uint32_t kMaxHops = 16;  // more NAT boxes than anyone has: a loop
// Rounds of all loops at one instant. More is two programs that answer each other without time
// passing: a test without end, better told than waited for.
constexpr int kMaxRounds = 100'000;

}  // namespace

SimNetwork::SimNetwork(uint64_t seed, const SimOptions& options)
    : seed_(seed), options_(options), random_(seed) {}

SimNetwork::~SimNetwork() = default;

std::string SimNetwork::Describe() const {
  return absl::StrCat("simulated network, seed ", seed_, ", at ", now().time_since_epoch().count(),
                      " ns: ", trace_.ToString());
}

SimNetwork::NatBox* SimNetwork::Behind(RealmId inside) {
  const size_t index = static_cast<size_t>(inside);
  return index == 0 || index > nats_.size() ? nullptr : &nats_[index - 1];
}

RealmId SimNetwork::AddNat(const NatOptions& options, const std::vector<IpAddress>& outside,
                           RealmId outer) {
  nats_.push_back(NatBox{SimNat(options, outside, &random_), outer, {}, {}});
  return static_cast<RealmId>(nats_.size());
}

HostId SimNetwork::AddHost(std::string name, const std::vector<IpAddress>& addresses,
                           RealmId realm) {
  const HostId id{static_cast<uint32_t>(hosts_.size())};
  hosts_.emplace_back(std::move(name));
  for (const IpAddress& ip : addresses) AddAddress(id, ip, realm);
  return id;
}

void SimNetwork::AddAddress(HostId host, const IpAddress& ip, RealmId realm,
                            const std::string& device) {
  Get(host)->addresses.push_back({ip, realm, device});
}

void SimNetwork::RemoveAddress(HostId host, const IpAddress& ip) {
  std::erase_if(Get(host)->addresses, [&](const SimAddress& a) { return a.ip == ip; });
}

void SimNetwork::SetPartition(HostId a, HostId b, bool on) {
  for (const auto& pair : {std::pair(a, b), std::pair(b, a)}) {
    if (on) {
      partitions_.insert(pair);
    } else {
      partitions_.erase(pair);
    }
  }
}

std::optional<HostId> SimNetwork::OwnerOf(const IpAddress& ip, RealmId realm) const {
  for (size_t i = 0; i < hosts_.size(); ++i) {
    const SimAddress* address = ip.IsLoopback() ? nullptr : hosts_[i].Find(ip);
    if (address != nullptr && address->realm == realm) return static_cast<HostId>(i);
  }
  return std::nullopt;
}

std::optional<RealmId> SimNetwork::NatOwning(const IpAddress& ip, RealmId outer) const {
  for (size_t i = 0; i < nats_.size(); ++i) {
    if (nats_[i].outer == outer && nats_[i].nat.Owns(ip)) return static_cast<RealmId>(i + 1);
  }
  return std::nullopt;
}

int SimNetwork::Inject(const SimSocket& socket, const TxTrain& part) {
  if (part.to.IsV4() != socket.local.IsV4()) {
    return socket.local.IsV4() ? EAFNOSUPPORT : ENETUNREACH;
  }
  if (part.to.port == 0) return EINVAL;
  if (part.size > kMaxDatagram) return EMSGSIZE;
  SimHost* host = Get(socket.host);
  int error = 0;
  const SimAddress* source = host->SelectSource(socket, part.to.ip, part.from, &error);
  if (source == nullptr) return error;
  const uint32_t packets = part.packets();
  const uint32_t segment = packets == 1 ? part.size : part.segment_size;
  const bool local = host->Find(part.to.ip) != nullptr;
  Event event;
  event.datagram.to = part.to;
  event.datagram.origin = socket.host;
  event.datagram.train = next_train_++;
  // An address of 127.0.0.0/8 that was asked for is kept as it is.
  const bool chosen = !part.from.IsUnspecified() || !socket.local.ip.IsUnspecified();
  event.datagram.from = {source->ip, socket.local.port, 0};
  if (chosen && source->device == "lo") {
    event.datagram.from.ip = part.from.IsUnspecified() ? socket.local.ip : part.from;
  }
  if (source->device == "lo" && !local) return EINVAL;
  // The kernel fragments single datagrams at most, never the segments of a train.
  const size_t mtu = host->uplink.options.mtu;
  const bool larger = !local && mtu != 0 && segment + (part.to.IsV4() ? 28 : 48) > mtu;
  if (larger && (packets > 1 || !host->uplink.options.fragment)) return EMSGSIZE;
  for (uint32_t i = 0; i < packets; ++i) {
    const std::byte* begin = part.data + size_t{i} * segment;
    const uint32_t size = std::min(segment, part.size - i * segment);
    Event copy = event;
    if (size > 0) copy.datagram.payload.assign(begin, begin + size);
    trace_.Record(SimEvent::kSent, copy.datagram, now());
    copy.realm = source->realm;
    copy.host = socket.host;
    copy.stage = local ? Stage::kDeliver : Stage::kEnterRealm;
    if (local) {
      Schedule(now(), std::move(copy));
    } else if (host->udp_blocked) {
      Drop(SimEvent::kUdpBlocked, copy.datagram);
    } else {
      Cross(&host->uplink, std::move(copy));
    }
  }
  return 0;
}

void SimNetwork::Schedule(Instant at, Event event) { events_.emplace(at, std::move(event)); }

void SimNetwork::Cross(SimLink* link, Event event) {
  const SimLink::Outcome outcome = link->Transmit(event.datagram.wire_size(), now(), &random_);
  if (outcome.event != SimEvent::kDelivered) Drop(outcome.event, event.datagram);
  for (size_t i = 0; i < outcome.copies; ++i) Schedule(outcome.arrivals[i], event);
}

void SimNetwork::Handle(Event event) {
  switch (event.stage) {
    case Stage::kAction:
      return event.action();
    case Stage::kEnterRealm:
      return EnterRealm(std::move(event));
    case Stage::kDownlink:
      event.stage = Stage::kDeliver;
      return Cross(&Get(event.host)->downlink, std::move(event));
    case Stage::kDeliver:
      return Deliver(std::move(event));
  }
}

void SimNetwork::EnterRealm(Event event) {
  const Datagram& datagram = event.datagram;
  if (++event.datagram.hops > kMaxHops) return Drop(SimEvent::kNoRoute, datagram);
  if (const auto inside = NatOwning(datagram.to.ip, event.realm); inside.has_value()) {
    return EnterNat(*inside, std::move(event));
  }
  const auto owner = OwnerOf(datagram.to.ip, event.realm);
  if (!owner.has_value()) return LeaveRealm(std::move(event));
  const std::pair<HostId, HostId> ends{datagram.origin, *owner};
  if (partitions_.contains(ends)) return Drop(SimEvent::kPartitioned, datagram);
  event.host = *owner;
  event.stage = Stage::kDownlink;
  const auto path = paths_.find(ends);
  if (path != paths_.end()) return Cross(&path->second, std::move(event));
  Handle(std::move(event));
}

void SimNetwork::EnterNat(RealmId inside, Event event) {
  NatBox* box = Behind(inside);
  const auto to = box->nat.Inbound(event.datagram.to, event.datagram.from, now());
  if (!to.has_value()) return Drop(SimEvent::kNatFiltered, event.datagram);
  event.datagram.to = *to;
  event.realm = inside;
  Cross(&box->downlink, std::move(event));
}

void SimNetwork::LeaveRealm(Event event) {
  NatBox* box = Behind(event.realm);
  Datagram* datagram = &event.datagram;
  if (box == nullptr) return Drop(SimEvent::kNoRoute, *datagram);
  const bool hairpin = box->nat.Owns(datagram->to.ip);
  if (hairpin && !box->nat.options.hairpin) return Drop(SimEvent::kNoHairpin, *datagram);
  const bool family =
      std::any_of(box->nat.outside().begin(), box->nat.outside().end(),
                  [&](const IpAddress& ip) { return ip.IsV4() == datagram->to.IsV4(); });
  if (!family) return Drop(SimEvent::kNoRoute, *datagram);
  const auto from = box->nat.Outbound(datagram->from, datagram->to, now());
  if (!from.has_value()) return Drop(SimEvent::kNatExhausted, *datagram);
  datagram->from = *from;
  // RFC 4787 REQ-9: the source that the inside host sees is the outside one. It stays in the box.
  if (hairpin) return EnterNat(event.realm, std::move(event));
  event.realm = box->outer;
  Cross(&box->uplink, std::move(event));
}

void SimNetwork::Deliver(Event event) {
  Datagram* datagram = &event.datagram;
  SimHost* host = Get(event.host);
  if (host->Find(datagram->to.ip) == nullptr) return Drop(SimEvent::kNoRoute, *datagram);
  const bool local = datagram->origin == event.host && datagram->hops == 0;
  if (datagram->segment.has_value()) return DeliverSegment(event.host, std::move(*datagram));
  if (host->udp_blocked && !local) return Drop(SimEvent::kUdpBlocked, *datagram);
  SimSocket* socket = host->FindSocket(*datagram);
  if (socket == nullptr) return Drop(SimEvent::kNoSocket, *datagram);
  const size_t footprint = Footprint(datagram->payload.size());
  const auto room = static_cast<size_t>(std::max(0, socket->config.receive_buffer));
  // As the kernel: a buffer with room left takes one more, of any size.
  if (socket->queued_bytes >= room) {
    ++socket->stats.rx_kernel_drops;
    return Drop(SimEvent::kSocketFull, *datagram);
  }
  trace_.Record(SimEvent::kDelivered, *datagram, now());
  socket->queued_bytes += footprint;
  socket->queue.push_back(std::move(*datagram));
}

IpAddress SimNetwork::StreamSource(HostId host, const IpAddress& to) {
  if (Get(host)->Find(to) != nullptr) return to;
  for (const SimAddress& address : Get(host)->addresses) {
    if (address.ip.IsV4() == to.IsV4()) return address.ip;
  }
  return IpAddress::AnyV6();
}

bool SimNetwork::StreamPortTaken(HostId host, const Endpoint& local) const {
  return std::any_of(streams_.begin(), streams_.end(), [&](const auto& entry) {
    return entry.first == host && entry.second->Listens(local);
  });
}

void SimNetwork::SendSegment(Datagram datagram) {
  SimHost* host = Get(datagram.origin);
  const SimAddress* source = host->Find(datagram.from.ip);
  trace_.Record(SimEvent::kSent, datagram, now());
  if (source == nullptr) return Drop(SimEvent::kNoRoute, datagram);
  Event event;
  event.realm = source->realm;
  event.host = datagram.origin;
  const bool local = host->Find(datagram.to.ip) != nullptr;
  event.stage = local ? Stage::kDeliver : Stage::kEnterRealm;
  event.datagram = std::move(datagram);
  if (local) return Schedule(now(), std::move(event));
  Cross(&host->uplink, std::move(event));
}

void SimNetwork::DeliverSegment(HostId host, Datagram datagram) {
  std::vector<SimStreams*> owners;
  for (const auto& [at, streams] : streams_) {
    if (at == host && streams->Owns(datagram)) owners.push_back(streams);
  }
  if (!owners.empty()) {
    trace_.Record(SimEvent::kDelivered, datagram, now());
    // Loops that share a port share its connections.
    return owners[HashEndpoint(datagram.from, seed_) % owners.size()]->OnSegment(
        std::move(datagram));
  }
  Drop(SimEvent::kNoSocket, datagram);
  if ((datagram.segment->flags & SimSegment::kRst) != 0) return;
  Datagram reset;
  reset.from = datagram.to;
  reset.to = datagram.from;
  reset.origin = host;
  reset.segment = SimSegment{.flags = SimSegment::kRst};
  SendSegment(std::move(reset));
}

void SimNetwork::DeliverDue() {
  while (!events_.empty() && events_.begin()->first <= now()) {
    auto node = events_.extract(events_.begin());
    Handle(std::move(node.mapped()));
  }
}

std::unique_ptr<SimLoop> SimNetwork::CreateLoop(HostId host, const LoopOptions& options) {
  auto loop = std::make_unique<SimLoop>(this, host, options);
  runners_.push_back({loop.get(), nullptr, Instant::max()});
  return loop;
}

void SimNetwork::SetRunner(SimLoop* loop, std::function<Instant()> runner) {
  for (Runner& known : runners_) {
    if (known.loop == loop) known = {loop, std::move(runner), now()};
  }
}

void SimNetwork::Unregister(SimLoop* loop) {
  std::erase_if(runners_, [loop](const Runner& runner) { return runner.loop == loop; });
}

void SimNetwork::At(Instant when, std::function<void()> action) {
  Event event;
  event.action = std::move(action);
  events_.emplace_hint(events_.lower_bound(std::max(when, now())), std::max(when, now()),
                       std::move(event));
}

Instant SimNetwork::NextEvent() const {
  return events_.empty() ? Instant::max() : events_.begin()->first;
}

Instant SimNetwork::NextTimer() const {
  Instant next = Instant::max();
  for (const Runner& runner : runners_) {
    next = std::min(next, runner.loop->HasWork() ? now() : runner.next);
  }
  return next;
}

bool SimNetwork::RunRound() {
  // By index and by loop: a runner may create and destroy loops.
  std::vector<SimLoop*> ready;
  for (const Runner& runner : runners_) {
    if (runner.loop->HasWork() || runner.next <= now()) ready.push_back(runner.loop);
  }
  if (options_.shuffle_loops) {
    for (size_t i = ready.size(); i > 1; --i) std::swap(ready[i - 1], ready[random_.Below(i)]);
  }
  for (SimLoop* loop : ready) {
    const auto find = [&] {
      return std::find_if(runners_.begin(), runners_.end(),
                          [loop](const Runner& runner) { return runner.loop == loop; });
    };
    auto runner = find();
    if (runner == runners_.end()) continue;
    if (runner->run == nullptr) {
      loop->Poll(now());
      continue;
    }
    runner->next = Instant::max();
    const std::function<Instant()> run = runner->run;
    const Instant next = run();
    if (runner = find(); runner != runners_.end()) runner->next = next;
  }
  return !ready.empty();
}

void SimNetwork::RunLoops() {
  for (int round = 0; RunRound(); ++round) {
    DeliverDue();
    if (round < kMaxRounds) continue;
    std::fprintf(stderr, "no end of work at one instant: %s\n", Describe().c_str());
    std::abort();
  }
}

void SimNetwork::AdvanceTo(Instant when) {
  clock_.Set(std::max(when, now()));
  DeliverDue();
  RunLoops();
}

bool SimNetwork::Step() {
  const Instant next = std::min(NextEvent(), NextTimer());
  if (next == Instant::max()) return false;
  AdvanceTo(next);
  return true;
}

void SimNetwork::RunFor(Duration duration) {
  const Instant end = now() + duration;
  while (std::min(NextEvent(), NextTimer()) <= end) Step();
  clock_.Set(end);
}

bool SimNetwork::RunUntilIdle(Duration limit) {
  const Instant end = now() + limit;
  for (;;) {
    const bool work = std::any_of(runners_.begin(), runners_.end(),
                                  [](const Runner& runner) { return runner.loop->HasWork(); });
    if (!work && events_.empty()) return true;
    if (std::min(NextEvent(), NextTimer()) > end) return false;
    Step();
  }
}

void SimNetwork::AdvanceForPoll(Instant deadline, const std::function<bool()>& satisfied) {
  if (!options_.poll_advances) return;
  while (!satisfied()) {
    const Instant next = std::min(NextEvent(), deadline);
    if (next == Instant::max()) return;  // a wait for ever: left to the caller
    clock_.Set(std::max(next, now()));
    DeliverDue();
    if (next == deadline) return;
  }
}

}  // namespace ringsock::io
