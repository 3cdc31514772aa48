#include "io/sim_host.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "io/steering.h"

namespace ringsock::io {
namespace {

constexpr uint16_t kFirstEphemeral = 32768;
constexpr uint16_t kLastEphemeral = 60999;
// Only spreads sockets of a group; no adversary here.
constexpr uint64_t kReusePortSeed = 0x72696e67;

absl::Status Error(const SimSocket& socket, const SimHost& host, absl::StatusCode code,
                   absl::string_view why) {
  return absl::Status(code, absl::StrCat("UDP ", socket.config.bind.ToString(),
                                         " on simulated host ", host.name, ": ", why));
}

}  // namespace

const SimAddress* SimHost::Find(const IpAddress& ip) const {
  if (ip.IsLoopback()) {
    // Any of 127.0.0.0/8: the caller keeps the address it asked for.
    static const SimAddress kV4{IpAddress::V4(127, 0, 0, 1), kInternet, "lo"};
    static const SimAddress kV6{IpAddress::V6({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}),
                                kInternet, "lo"};
    return ip.IsV4() ? &kV4 : &kV6;
  }
  const auto found = std::find_if(addresses.begin(), addresses.end(),
                                  [&](const SimAddress& a) { return a.ip == ip; });
  return found == addresses.end() ? nullptr : &*found;
}

bool SimHost::Conflicts(const SimSocket& socket, const Endpoint& local) const {
  return std::any_of(sockets_.begin(), sockets_.end(), [&](const SimSocket* other) {
    if (other->local.port != local.port || other->local.IsV4() != local.IsV4()) return false;
    const bool overlap =
        other->local.ip == local.ip || other->local.ip.IsUnspecified() || local.ip.IsUnspecified();
    const bool devices_apart = !other->config.device.empty() && !socket.config.device.empty() &&
                               other->config.device != socket.config.device;
    return overlap && !devices_apart && !(other->config.reuse_port && socket.config.reuse_port);
  });
}

absl::Status SimHost::ChoosePort(SimSocket* socket) {
  for (int tries = 0; tries <= kLastEphemeral - kFirstEphemeral; ++tries) {
    Endpoint local = socket->config.bind;
    local.port = next_port_;
    next_port_ = next_port_ == kLastEphemeral ? kFirstEphemeral : next_port_ + 1;
    if (Conflicts(*socket, local)) continue;
    socket->local = local;
    return absl::OkStatus();
  }
  return Error(*socket, *this, absl::StatusCode::kAlreadyExists, "every port is in use");
}

absl::Status SimHost::Bind(SimSocket* socket) {
  const UdpConfig& config = socket->config;
  const bool known = config.device.empty() || config.device == "lo" ||
                     std::any_of(addresses.begin(), addresses.end(),
                                 [&](const SimAddress& a) { return a.device == config.device; });
  if (!known) {
    return Error(*socket, *this, absl::StatusCode::kNotFound,
                 absl::StrCat("no network device \"", config.device, "\""));
  }
  if (!config.bind.ip.IsUnspecified() && Find(config.bind.ip) == nullptr) {
    return Error(*socket, *this, absl::StatusCode::kFailedPrecondition,
                 "the address is not on this host: bind one that is, or all");
  }
  socket->local = config.bind;
  if (config.bind.port == 0) {
    const absl::Status chosen = ChoosePort(socket);
    if (!chosen.ok()) return chosen;
  } else if (Conflicts(*socket, config.bind)) {
    return Error(*socket, *this, absl::StatusCode::kAlreadyExists,
                 "another socket holds this port: close it, or set reuse_port on both");
  }
  sockets_.push_back(socket);
  return absl::OkStatus();
}

void SimHost::Release(SimSocket* socket) { std::erase(sockets_, socket); }

absl::Status SimHost::Rebind(SimSocket* socket, uint16_t port) {
  const uint16_t bound_port = socket->config.bind.port;
  const Endpoint local = socket->local;
  const auto place = std::find(sockets_.begin(), sockets_.end(), socket) - sockets_.begin();
  Release(socket);
  socket->config.bind.port = port;
  const absl::Status bound = Bind(socket);
  if (bound.ok()) {
    sockets_.pop_back();
  } else {
    socket->config.bind.port = bound_port;
    socket->local = local;
  }
  sockets_.insert(sockets_.begin() + place, socket);
  return bound;
}

SimSocket* SimHost::FindSocket(const Datagram& datagram) const {
  const Endpoint& to = datagram.to;
  const SimAddress* address = Find(to.ip);
  if (address == nullptr) return nullptr;
  std::vector<SimSocket*> best;
  int best_score = -1;
  for (SimSocket* socket : sockets_) {
    const Endpoint& local = socket->local;
    if (local.port != to.port || local.IsV4() != to.IsV4()) continue;
    if (!local.ip.IsUnspecified() && local.ip != to.ip) continue;
    const std::string& device = socket->config.device;
    if (!device.empty() && device != address->device) continue;
    const int score = (local.ip.IsUnspecified() ? 0 : 2) + (device.empty() ? 0 : 1);
    if (score > best_score) best.clear(), best_score = score;
    if (score == best_score) best.push_back(socket);
  }
  if (best.empty()) return nullptr;
  const UdpConfig& config = best[0]->config;
  if (config.steering != Steering::kNone && config.steering_sockets > 1) {
    const uint32_t place =
        SteeredSocket(config.steering, datagram.from, datagram.payload, config.steering_sockets);
    if (place < best.size()) return best[place];
  }
  return best[HashEndpoint(datagram.from, kReusePortSeed) % best.size()];
}

const SimAddress* SimHost::SelectSource(const SimSocket& socket, const IpAddress& to,
                                        const IpAddress& wanted, int* error) const {
  const std::string& device = socket.config.device;
  const auto usable = [&](const SimAddress& a) { return device.empty() || a.device == device; };
  IpAddress asked = wanted.IsUnspecified() ? socket.local.ip : wanted;
  if (asked.IsUnspecified() && to.IsLoopback()) asked = to;
  if (!asked.IsUnspecified()) {
    const SimAddress* address = Find(asked);
    *error = address == nullptr ? EINVAL : ENETUNREACH;  // as ip_route_output() has it
    return address != nullptr && usable(*address) ? address : nullptr;
  }
  *error = ENETUNREACH;
  const SimAddress* here = Find(to);
  for (const SimAddress& address : addresses) {
    if (address.ip.IsV4() != to.IsV4() || !(usable(address) || here != nullptr)) continue;
    return here != nullptr ? here : &address;
  }
  return nullptr;
}

}  // namespace ringsock::io
