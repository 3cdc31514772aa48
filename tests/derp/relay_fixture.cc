#include "tests/derp/relay_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace ringsock::derp {

struct RelayFixture::Client final : TransportEvents, ServerEvents {
  explicit Client(RelayFixture* owner)
      : relay(owner),
        transport(owner->loop_->streams(), this),
        session(&owner->config_, this, owner->loop_->clock().Now()),
        deadline(owner->timers_, [this] { OnDeadline(); }) {
    deadline.Schedule(session.deadline());
  }

  Instant now() const { return relay->loop_->clock().Now(); }

  void OnDeadline() {
    if (!transport.is_open()) return relay->Remove(this);
    if (!relay->mute && !session.OnDeadline(now()).ok()) return relay->Remove(this);
    deadline.Schedule(std::max(session.deadline(), now() + std::chrono::seconds(1)));
    Pump();
  }
  void Queue(Bytes bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }
  // All that is to be sent, in order, as far as it goes.
  void Pump() {
    if (relay->mute) return;
    Queue(session.output());
    session.ConsumeOutput(session.output().size());
    const size_t taken = transport.Send(out);
    out.erase(out.begin(), out.begin() + static_cast<ptrdiff_t>(taken));
    if (!session.close_after_output() || !out.empty()) return;
    transport.Close();
    deadline.Schedule(now());
  }

  // TransportEvents
  void OnTransportConnected() override {}
  void OnTransportReady() override {}
  absl::Status OnTransportBytes(std::span<std::byte> bytes) override {
    if (relay->mute) return absl::OkStatus();
    return session.Receive(bytes, now());
  }
  void OnTransportBytesEnd() override { relay->Flush(); }
  void OnTransportWritable() override { Pump(); }
  void OnTransportClosed(const absl::Status& why) override {
    relay->last_error = why.ok() ? "" : std::string(why.message());
    relay->Remove(this);
  }

  // ServerEvents
  absl::Status OnLogin(ServerSession&) override {
    if (relay->refuse_login) return absl::PermissionDeniedError("not on the list");
    return absl::OkStatus();
  }
  void OnReady(ServerSession&) override {
    ++relay->logins;
    relay->last_ideal_node = session.ideal_node();
  }
  void OnSendPacket(ServerSession&, const PublicKey& destination, Bytes packet,
                    const Frame& frame) override {
    ++relay->packets;
    const PublicKey from = session.client();
    if (relay->on_packet && !relay->on_packet(from, destination, packet)) return;
    Client* to = relay->Find(destination);
    if (to == nullptr) {
      ++relay->unroutable;
      return;
    }
    TurnIntoRecv(frame, from);
    to->Queue(frame.bytes);
  }
  void OnNotePreferred(ServerSession&, bool is_preferred) override { preferred = is_preferred; }
  void OnPong(ServerSession&, const PingData&) override { ++relay->pongs; }
  void OnForwardPacket(ServerSession&, const ForwardPacketFrame&) override {}
  void OnWatchConns(ServerSession&) override {}
  void OnClosePeer(ServerSession&, const PublicKey&) override {}

  RelayFixture* const relay;
  RelayTransport transport;
  ServerSession session;
  Timer deadline;
  std::vector<std::byte> out;
  bool preferred = false;
};

PrivateKey RelayFixture::Key(uint64_t seed) {
  SeededRandom random(seed);
  std::array<uint8_t, kKeySize> bytes;
  random.Fill(std::as_writable_bytes(std::span(bytes)));
  return PrivateKey::FromBytes(bytes);
}

RelayFixture::RelayFixture(io::Loop* loop, TimerQueue* timers, const Options& options)
    : loop_(loop),
      timers_(timers),
      options_(options),
      random_(options.seed + 1),
      identity_(Key(options.seed)),
      at_(options.bind) {
  config_.identity = &identity_;
  config_.info = options.info;
  config_.random = &random_;
  const absl::Status status = Start();
  EXPECT_TRUE(status.ok()) << status;
}

RelayFixture::~RelayFixture() { Stop(); }

absl::Status RelayFixture::Start() {
  const auto listener =
      loop_->streams()->Listen({.bind = at_, .options = TransportStreamOptions()}, this);
  if (!listener.ok()) return listener.status();
  listener_ = *listener;
  at_ = loop_->streams()->LocalEndpoint(listener_);
  return absl::OkStatus();
}

void RelayFixture::Stop() {
  if (listener_ != io::kNoStream) {
    loop_->streams()->Close(std::exchange(listener_, io::kNoStream));
  }
}

RelayNode RelayFixture::Node(const std::string& name, RegionId region) const {
  RelayNode node;
  node.name = name;
  node.region_id = region;
  node.host_name = "relay.test";
  (at_.IsV4() ? node.ipv4 : node.ipv6) = at_.ip.ToString();
  (at_.IsV4() ? node.ipv6 : node.ipv4) = "none";
  node.derp_port = at_.port;
  node.insecure_for_tests = true;
  return node;
}

RelayRegion RelayFixture::Region(RegionId region) const {
  RelayRegion result;
  result.region_id = region;
  result.region_code = "test";
  result.nodes = {Node(std::to_string(region) + "a", region)};
  return result;
}

io::StreamHandler* RelayFixture::OnAccept(io::StreamId, io::StreamId stream, const Endpoint&) {
  ++accepts;
  if (refuse) return nullptr;
  Client* client = clients_.emplace_back(std::make_unique<Client>(this)).get();
  client->transport.Adopt(stream);
  if (stalled_) loop_->streams()->SetReceiving(stream, false);
  if (mute || options_.tls == nullptr) {
    client->transport.StartPlain();
  } else {
    const absl::Status status = client->transport.AcceptTls(options_.tls);
    EXPECT_TRUE(status.ok()) << status;
  }
  return &client->transport;
}

RelayFixture::Client* RelayFixture::Find(const PublicKey& key) const {
  for (auto client = clients_.rbegin(); client != clients_.rend(); ++client) {
    if ((*client)->session.ready() && (*client)->session.client() == key) return client->get();
  }
  return nullptr;
}

void RelayFixture::Remove(Client* client) {
  std::erase_if(clients_, [client](const auto& other) { return other.get() == client; });
}

void RelayFixture::SetStalled(bool stalled) {
  stalled_ = stalled;
  for (const auto& client : clients_) {
    loop_->streams()->SetReceiving(client->transport.stream(), !stalled);
  }
}

void RelayFixture::CloseClients() {
  Flush();
  for (const auto& client : clients_) client->transport.Close();
  clients_.clear();
}

void RelayFixture::ResetClients() { clients_.clear(); }

bool RelayFixture::Preferred(const PublicKey& client) const {
  const Client* found = Find(client);
  return found != nullptr && found->preferred;
}

bool RelayFixture::Deliver(const PublicKey& client, const PublicKey& source, Bytes packet) {
  std::vector<std::byte> frame(kPacketHeaderSize + packet.size());
  return Encode(RecvPacketFrame{source, packet}, frame) > 0 && SendRaw(client, frame);
}

bool RelayFixture::SendRaw(const PublicKey& client, Bytes bytes) {
  Client* found = Find(client);
  if (found == nullptr) return false;
  found->Pump();
  found->Queue(bytes);
  found->Pump();
  return true;
}

ServerSession* RelayFixture::session(const PublicKey& client) {
  Client* found = Find(client);
  return found == nullptr ? nullptr : &found->session;
}

void RelayFixture::Flush() {
  for (const auto& client : clients_) client->Pump();
}

}  // namespace ringsock::derp
