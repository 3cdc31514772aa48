#include "gateway/gateway.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "io/fd.h"

namespace ringsock::gateway {
namespace {

// Peers shown by Status(); more would flood a log.
constexpr size_t kMaxPeersShown = 100;

// With more peers than this, looking at all of them every second would cost more than it tells.
constexpr size_t kManyPeers = 10'000;
constexpr Duration kWatchManyInterval = std::chrono::seconds(10);

EngineOptions OptionsOf(const Config& config) {
  EngineOptions options;
  options.port = config.listen_port;
  options.ipv4 = config.ipv4;
  options.ipv6 = config.ipv6;
  options.bind_v4 = config.bind_v4;
  options.bind_v6 = config.bind_v6;
  options.shards = config.shards;
  options.pin_threads = config.pin_threads;
  options.steering = config.steering;
  options.socket_buffer = config.socket_buffer;
  options.io = config.io;
  options.relay.queue_bytes = config.relay_queue.bytes;
  options.relay.queue_age = config.relay_queue.age;
  options.relay.roots_file = config.derp_roots_file;
  options.relay.home = config.derp_home;
  options.network.netcheck = config.netcheck;
  options.network.port_mapping = config.port_mapping;
  options.network.ignored_interfaces = {config.wireguard_interface};
  return options;
}

// The shards' sockets share the local port, and would share it with another gateway too. So look
// first whether anybody has it.
absl::Status CheckLocalPortFree(uint16_t port) {
  const io::Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return absl::UnavailableError(absl::StrCat("no UDP socket: ", std::strerror(errno)));
  }
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return absl::OkStatus();
  }
  const int error = errno;
  std::string cure;
  if (error == EADDRINUSE) {
    cure = absl::StrCat(
        "; choose another local_port, or stop the program that has it (ss -lunp "
        "'sport = :",
        port, "' names it)");
  } else if (error == EACCES) {
    cure = "; choose a local_port from 1024, or give the program CAP_NET_BIND_SERVICE";
  }
  return absl::UnavailableError(
      absl::StrCat("local_port ", port, ": ", std::strerror(error), cure));
}

std::string WgSetLine(const Config& config, const PeerConfig& peer, const PeerRoster& roster,
                      const PathAddresses& addresses) {
  const PeerIndex index = roster.indices.find(peer.key)->second;
  return absl::StrCat("wg set ", config.wireguard_interface, " peer ", peer.key.ToBase64(),
                      " endpoint ", addresses.Address(addresses.Home(index)).ToString(), ":",
                      config.local_port, peer.name.empty() ? "" : "  # ", peer.name);
}

}  // namespace

Gateway::Gateway(const Config& config, std::unique_ptr<PathAddresses> addresses)
    : config_(config),
      roster_(config.peers),
      tables_(config_, std::move(addresses)),
      watch_(config_, roster_, *tables_.addresses) {}

Gateway::~Gateway() { Stop(); }

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(const Config& config,
                                                        NetworkObserver* observer) {
  auto addresses = PathAddresses::Create(config.range, config.peers);
  if (!addresses.ok()) return addresses.status();
  std::unique_ptr<Gateway> gateway(new Gateway(config, *std::move(addresses)));
  absl::Status status = CheckLocalPortFree(config.local_port);
  if (status.ok()) status = gateway->StartEngine(observer);
  if (status.ok()) status = gateway->peers_->Start(config.wireguard_key);
  if (status.ok()) status = gateway->SetRelays(config);
  if (!status.ok()) return status;
  return gateway;
}

absl::Status Gateway::StartEngine(NetworkObserver* observer) {
  const EngineOptions options = OptionsOf(config_);
  const uint32_t shards = options.ShardCount();
  for (uint32_t i = 0; i < shards; ++i) {
    shards_.push_back(std::make_unique<GatewayShard>(&tables_, i, shards));
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(options, this, observer);
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  peers_ = std::make_unique<PeerSet>(engine_.get(), &tables_, &roster_, shards);
  return absl::OkStatus();
}

absl::Status Gateway::SetRelays(const Config& config) {
  const bool relays = config.derp_map.has_value() && config.private_key != nullptr;
  absl::Status status;
  if (relays) {
    status = engine_->SetPrivateKey(*config.private_key);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("private_key_file: ", status.message()));
    }
  }
  status = engine_->SetRelayMap(relays ? config.derp_map : std::nullopt);
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("derp_map: ", status.message()));
  }
  return status;
}

absl::StatusOr<Gateway::ReloadResult> Gateway::Reload(const Config& next) {
  if (absl::Status fixed = CheckReloadable(config_, next); !fixed.ok()) return fixed;
  const PeerChanges changes = ComparePeers(roster_, next.peers);
  const std::string others = DescribeChanges(config_, next);
  const bool same_relays = SameRelayMap(config_, next) && SamePrivateKey(config_, next);
  // What can be refused comes first, and relays last of that: to set them back would connect to
  // them again.
  const Instant now = SystemClock().Now();
  if (absl::Status peers = peers_->Reserve(changes, next.peers, now); !peers.ok()) return peers;
  if (!same_relays) {
    if (absl::Status relays = SetRelays(next); !relays.ok()) {
      peers_->Release(changes, next.peers, now);
      SetRelays(config_).IgnoreError();  // it has taken these before
      return relays;
    }
  }
  ReloadResult result;
  if (changes.any() || config_.wireguard_key != next.wireguard_key) {
    peers_->Apply(changes, next.peers, next.wireguard_key, now, &result.refused);
  }
  config_ = next;
  if (!others.empty()) result.changes.push_back(others);
  if (changes.any()) result.changes.push_back(DescribeChanges(changes));
  for (const size_t at : changes.added) {
    result.wg_set.push_back(WgSetLine(config_, next.peers[at], roster_, *tables_.addresses));
  }
  return result;
}

void Gateway::Watch() {
  if (!config_.derp_map.has_value()) {
    home_ = 0;
    return;
  }
  const Instant now = SystemClock().Now();
  if (now < next_watch_) return;
  next_watch_ = now + (roster_.count > kManyPeers ? kWatchManyInterval : kWatchInterval);
  const EngineStatus status = engine_->Status();
  home_ = status.home;
  const PathWatch::Changes changes = watch_.Look(status, now);
  for (const std::string& line : changes.lines) Log().info("{}", line);
  for (const PeerIndex peer : changes.silent) {
    // The same addresses again, which forgets the one it had roamed to.
    const absl::Status renewed = peers_->Renew(peer);
    Log().info("peer {}: heard over a relay only, so its roaming address is given up{}",
               roster_.peers[peer].Label(), renewed.ok() ? "" : ", which failed");
  }
  if (!changes.lines.empty() || !changes.silent.empty()) Log().flush();
}

void Gateway::Stop() {
  if (peers_ != nullptr) peers_->Stop();
  if (engine_ != nullptr) engine_->Close();
}

absl::Status Gateway::OnShardStart(Shard& shard) { return shards_[shard.index()]->Start(shard); }

void Gateway::OnShardStop(Shard& shard) { shards_[shard.index()]->Stop(); }

void Gateway::OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) {
  shards_[shard.index()]->FromPeers(trains);
}

std::vector<std::string> Gateway::WgSetLines() const {
  return gateway::WgSetLines(config_, roster_, *tables_.addresses);
}

std::vector<std::string> WgSetLines(const Config& config, const PeerRoster& roster,
                                    const PathAddresses& addresses) {
  std::vector<std::string> lines;
  for (const PeerConfig& peer : config.peers) {
    lines.push_back(WgSetLine(config, peer, roster, addresses));
  }
  return lines;
}

GatewaySnapshot Gateway::Counters() const {
  GatewaySnapshot sum;
  for (const auto& shard : shards_) sum += shard->counters().Snapshot();
  sum += peers_->FinderCounters();
  return sum;
}

std::vector<std::string> Gateway::Status() const {
  std::vector<std::string> lines;
  const EngineStatus status = engine_->Status();
  lines.push_back(absl::StrCat("port ", status.port, ", ", status.backend, ", ", status.shards,
                               " shards, ", roster_.count, " peers: ", watch_.Totals(status)));
  absl::flat_hash_map<PublicKey, const PeerStatus*> states;
  for (const PeerStatus& peer : status.peers) states.emplace(peer.key, &peer);
  for (size_t i = 0; i < config_.peers.size(); ++i) {
    if (i == kMaxPeersShown) {
      lines.push_back(absl::StrCat("... and ", config_.peers.size() - i, " peers more"));
      break;
    }
    const PeerConfig& peer = config_.peers[i];
    const PeerIndex index = roster_.indices.find(peer.key)->second;
    const AddressOffset current = tables_.addresses->Current(index);
    const auto state = states.find(peer.key);
    const PeerPath path = watch_.PathOf(index, state == states.end() ? nullptr : state->second);
    lines.push_back(absl::StrCat(
        "peer ", peer.Label(), ": WireGuard sends to ",
        current == kNoAddress ? "nothing yet" : tables_.addresses->Address(current).ToString(),
        ", path ", watch_.Describe(path)));
  }
  for (const RelayStatus& relay : status.relays) {
    lines.push_back(RelayLine(relay, watch_.RegionName(relay.region)));
  }
  lines.push_back(absl::StrCat("our endpoints: ", ToString(status.endpoints)));
  if (status.net_info.has_value()) {
    lines.push_back(absl::StrCat("network: ", ToString(*status.net_info)));
  }
  lines.push_back(absl::StrCat("towards WireGuard: ", Counters().ToString()));
  lines.push_back(absl::StrCat("towards peers: ", EngineCounters().ToString()));
  return lines;
}

}  // namespace ringsock::gateway
