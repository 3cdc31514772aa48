// The far side of relayed traffic.
#include "bench/far_side.h"

#include <algorithm>
#include <cstring>
#include <ctime>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "bench/relay_access.h"
#include "bench/wire.h"
#include "derp/login.h"
#include "derp/tls.h"
#include "relay/server.h"

namespace ringsock::bench {
namespace {

const IpAddress kLoopback = IpAddress::V4(127, 0, 0, 1);

// Sends each packet that came over the relay to the partner of the peer that sent it.
class Deliverer final : public Handler {
 public:
  explicit Deliverer(const std::vector<Endpoint>& peers) : peers_(peers) {}

  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      if (train.path == PathKind::kRelay) Deliver(shard, train.packets);
    }
  }

 private:
  static uint32_t SenderOf(const std::byte* packet) {
    WireHeader header;
    std::memcpy(&header, packet, sizeof(header));
    return header.receiver;
  }

  // Packets of several peers may follow one another in one train: they all came from one engine.
  void Deliver(Shard& shard, const PacketTrain& train) const {
    const uint32_t step = train.segment_size == 0 ? train.size : train.segment_size;
    uint32_t start = 0;
    while (start < train.size) {
      if (train.size - start < sizeof(WireHeader)) return;
      const uint32_t sender = SenderOf(train.data + start);
      uint32_t end = start + step;
      while (end < train.size && train.size - end >= sizeof(WireHeader) &&
             SenderOf(train.data + end) == sender) {
        end += step;
      }
      end = std::min(end, train.size);
      if ((sender ^ 1) < peers_.size()) {
        shard.SendTo(peers_[sender ^ 1], {train.data + start, end - start, step});
      }
      start = end;
    }
  }

  const std::vector<Endpoint>& peers_;
};

// A relay with a certificate of its own making.
class Relay {
 public:
  absl::Status Start() {
    auto context = derp::TlsServerContext::Create({.meta_key = identity_.public_key()});
    if (!context.ok()) return context.status();
    tls_ = *std::move(context);
    const int64_t now = std::time(nullptr);
    const auto made = derp::MakeSelfSignedCertificate("127.0.0.1", now - 60, now + 24 * 3600);
    if (!made.ok()) return made.status();
    absl::Status status = tls_->Load(made->chain_pem, made->key_pem);
    if (!status.ok()) return status;
    const auto pin = derp::CertificatePin(made->chain_pem);
    if (!pin.ok()) return pin.status();
    pin_ = absl::StrCat(
        "sha256-raw:",
        absl::BytesToHexString({reinterpret_cast<const char*>(pin->data()), pin->size()}));
    relay::Options options;
    options.identity = &identity_;
    options.tls = tls_.get();
    options.listen = {{{kLoopback, 0, 0}, /*tls=*/true}};
    options.queues.max_bytes = kRelayQueueBytes;
    auto server = relay::Server::Create(std::move(options));
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    return server_->Start();
  }
  uint16_t port() const { return server_->LocalEndpoints().at(0).port; }
  const std::string& pin() const { return pin_; }

 private:
  const derp::ServerIdentity identity_{PrivateKey::Generate()};
  std::unique_ptr<derp::TlsServerContext> tls_;
  std::string pin_;
  std::unique_ptr<relay::Server> server_;
};

// The process: config.relay is the far engine's part, without port and pin, which are told.
absl::Status RunFarSide(const SubjectConfig& config, SubjectShared* shared,
                        const SubjectHooks& hooks) {
  Log().set_level(spdlog::level::warn);
  Relay relay;
  absl::Status status = relay.Start();
  if (!status.ok()) return status;
  Deliverer deliverer(config.peers);
  EngineOptions options;
  options.ipv6 = false;
  options.bind_v4 = kLoopback;
  options.shards = 1;
  PrepareForRelay(&options);
  auto engine = Engine::Start(options, &deliverer);
  if (!engine.ok()) return engine.status();
  const auto near = (*engine)->CreateEndpoint(config.relay->other, "127.3.3.40:1");
  if (!near.ok()) return near.status();
  const RelayPart part = {.percent = 0,
                          .key = config.relay->key.Clone(),
                          .other = config.relay->other,
                          .port = relay.port(),
                          .pin = relay.pin()};
  status = ConnectToRelay(part, engine->get());
  if (!status.ok()) return status;
  shared->port = relay.port();
  std::strncpy(shared->totals.note.data(), relay.pin().c_str(), shared->totals.note.size() - 1);
  hooks.ready(hooks.context);
  hooks.wait(hooks.context);
  (*engine)->Close();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<FarSide>> FarSide::Start(uint32_t percent,
                                                        const std::vector<Endpoint>& peers,
                                                        const std::vector<int>& cores) {
  PrivateKey near_key = PrivateKey::Generate();
  PrivateKey far_key = PrivateKey::Generate();
  auto part = std::make_shared<RelayPart>();
  part->percent = percent;
  part->other = far_key.Public();
  auto far = std::make_shared<RelayPart>();
  far->key = std::move(far_key);
  far->other = near_key.Public();
  part->key = std::move(near_key);
  SubjectConfig config;
  config.spec.name = "the relay and what is behind it";
  config.peers = peers;
  config.cores = cores;
  config.relay = std::move(far);
  auto process = SubjectProcess::Start(config, Namespace(), &RunFarSide);
  if (!process.ok()) return process.status();
  part->port = (*process)->port();
  part->pin = (*process)->note();
  auto side = std::unique_ptr<FarSide>(new FarSide());
  side->part_ = std::move(part);
  side->process_ = *std::move(process);
  return side;
}

}  // namespace ringsock::bench
