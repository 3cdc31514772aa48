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
  options.socket_buffer = config.socket_buffer;
  options.io = config.io;
  options.relay.queue_bytes = config.relay_queue.bytes;
  options.relay.queue_age = config.relay_queue.age;
  options.relay.roots_file = config.derp_roots_file;
  options.relay.home = config.derp_home;
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

}  // namespace

Gateway::Gateway(const Config& config, std::unique_ptr<PathAddresses> addresses)
    : config_(config),
      tables_(config_, std::move(addresses)),
      watch_(config_, *tables_.addresses) {}

Gateway::~Gateway() { Stop(); }

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Start(const Config& config) {
  auto addresses = PathAddresses::Create(config.range, config.peers);
  if (!addresses.ok()) return addresses.status();
  std::unique_ptr<Gateway> gateway(new Gateway(config, *std::move(addresses)));
  absl::Status status = CheckLocalPortFree(config.local_port);
  if (status.ok()) status = gateway->StartEngine();
  if (status.ok()) status = gateway->CreatePeers();
  if (status.ok()) status = gateway->StartRelays();
  if (!status.ok()) return status;
  return gateway;
}

absl::Status Gateway::StartEngine() {
  const EngineOptions options = OptionsOf(config_);
  const uint32_t shards = options.ShardCount();
  for (uint32_t i = 0; i < shards; ++i) {
    shards_.push_back(std::make_unique<GatewayShard>(&tables_, i, shards));
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(options, this);
  if (!engine.ok()) return engine.status();
  engine_ = *std::move(engine);
  return absl::OkStatus();
}

absl::StatusOr<PeerId> Gateway::CreatePeer(PeerIndex index) {
  const PeerConfig& peer = config_.peers[index];
  const std::string endpoints =
      absl::StrJoin(peer.endpoints, ",", [](std::string* out, const Endpoint& endpoint) {
        absl::StrAppend(out, endpoint.ToString());
      });
  absl::StatusOr<PeerId> id = engine_->CreateEndpoint(peer.key, endpoints);
  if (id.ok()) return id;
  return absl::Status(id.status().code(),
                      absl::StrCat("peer ", peer.Label(), ": ", id.status().message()));
}

absl::Status Gateway::CreatePeers() {
  tables_.ids.reserve(config_.peers.size());
  for (PeerIndex i = 0; i < config_.peers.size(); ++i) {
    const absl::StatusOr<PeerId> id = CreatePeer(i);
    if (!id.ok()) return id.status();
    tables_.ids.push_back(*id);
    tables_.indices.emplace(*id, i);
  }
  if (config_.peers.size() > PeerFinder::kFewPeers) {
    absl::StatusOr<std::unique_ptr<Sender>> sender = engine_->NewSender();
    if (!sender.ok()) return sender.status();
    finder_ = std::make_unique<PeerFinder>(&tables_, static_cast<uint32_t>(shards_.size()),
                                           *std::move(sender));
    tables_.finder = finder_.get();
  }
  tables_.ready.store(true, std::memory_order_release);
  return absl::OkStatus();
}

absl::Status Gateway::StartRelays() {
  if (!config_.derp_map.has_value() || config_.private_key == nullptr) return absl::OkStatus();
  absl::Status status = engine_->SetPrivateKey(*config_.private_key);
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("private_key_file: ", status.message()));
  }
  status = engine_->SetRelayMap(config_.derp_map);
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("derp_map: ", status.message()));
  }
  return status;
}

void Gateway::Watch() {
  const Instant now = SystemClock().Now();
  if (!config_.derp_map.has_value() || now < next_watch_) return;
  next_watch_ = now + (config_.peers.size() > kManyPeers ? kWatchManyInterval : kWatchInterval);
  const PathWatch::Changes changes = watch_.Look(engine_->Status(), now);
  for (const std::string& line : changes.lines) Log().info("{}", line);
  for (const PeerIndex peer : changes.silent) {
    // The same addresses again, which forgets the one it had roamed to.
    const absl::StatusOr<PeerId> id = CreatePeer(peer);
    Log().info("peer {}: heard over a relay only, so its roaming address is given up{}",
               config_.peers[peer].Label(), id.ok() ? "" : ", which failed");
  }
  if (!changes.lines.empty() || !changes.silent.empty()) Log().flush();
}

void Gateway::Stop() {
  if (finder_ != nullptr) finder_->Stop();
  if (engine_ != nullptr) engine_->Close();
}

absl::Status Gateway::OnShardStart(Shard& shard) { return shards_[shard.index()]->Start(shard); }

void Gateway::OnShardStop(Shard& shard) { shards_[shard.index()]->Stop(); }

void Gateway::OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) {
  shards_[shard.index()]->FromPeers(trains);
}

std::vector<std::string> Gateway::WgSetLines() const {
  return gateway::WgSetLines(config_, *tables_.addresses);
}

std::vector<std::string> WgSetLines(const Config& config, const PathAddresses& addresses) {
  std::vector<std::string> lines;
  for (PeerIndex i = 0; i < config.peers.size(); ++i) {
    const PeerConfig& peer = config.peers[i];
    lines.push_back(absl::StrCat("wg set ", config.wireguard_interface, " peer ",
                                 peer.key.ToBase64(), " endpoint ",
                                 addresses.Address(addresses.Home(i)).ToString(), ":",
                                 config.local_port, peer.name.empty() ? "" : "  # ", peer.name));
  }
  return lines;
}

GatewaySnapshot Gateway::Counters() const {
  GatewaySnapshot sum;
  for (const auto& shard : shards_) sum += shard->counters().Snapshot();
  if (finder_ != nullptr) sum += finder_->Counters();
  return sum;
}

std::vector<std::string> Gateway::Status() const {
  std::vector<std::string> lines;
  const EngineStatus status = engine_->Status();
  lines.push_back(absl::StrCat("port ", status.port, ", ", status.backend, ", ", status.shards,
                               " shards, ", config_.peers.size(),
                               " peers: ", watch_.Totals(status)));
  absl::flat_hash_map<PublicKey, const PeerStatus*> states;
  for (const PeerStatus& peer : status.peers) states.emplace(peer.key, &peer);
  for (PeerIndex i = 0; i < config_.peers.size(); ++i) {
    if (i == kMaxPeersShown) {
      lines.push_back(absl::StrCat("... and ", config_.peers.size() - i, " peers more"));
      break;
    }
    const PeerConfig& peer = config_.peers[i];
    const AddressOffset current = tables_.addresses->Current(i);
    const auto state = states.find(peer.key);
    const PeerPath path = watch_.PathOf(i, state == states.end() ? nullptr : state->second);
    lines.push_back(absl::StrCat(
        "peer ", peer.Label(), ": WireGuard sends to ",
        current == kNoAddress ? "nothing yet" : tables_.addresses->Address(current).ToString(),
        ", path ", watch_.Describe(path)));
  }
  for (const RelayStatus& relay : status.relays) {
    lines.push_back(RelayLine(relay, watch_.RegionName(relay.region)));
  }
  lines.push_back(absl::StrCat("towards WireGuard: ", Counters().ToString()));
  lines.push_back(absl::StrCat("towards peers: ", EngineCounters().ToString()));
  return lines;
}

}  // namespace ringsock::gateway
