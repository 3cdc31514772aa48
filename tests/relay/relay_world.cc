#include "tests/relay/relay_world.h"

#include "absl/strings/str_cat.h"

namespace ringsock::relay {
namespace {

derp::Bytes AsBytes(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace

TestClient::TestClient(io::SimNetwork* net, io::HostId host, PrivateKey key, const Endpoint& relay,
                       Config config)
    : net_(net),
      key_(std::move(key)),
      public_key_(key_.Public()),
      config_(std::move(config)),
      loop_(net->CreateLoop(host, {})) {
  if (config_.login) {
    derp::ClientSessionOptions options;
    options.http.host = "relay.test";
    options.info.mesh_key = config_.mesh_key.Clone();
    session_ = std::make_unique<derp::ClientSession>(std::move(options), &key_, &random_,
                                                     static_cast<derp::ClientEvents*>(this));
  }
  io::ConnectConfig connect;
  connect.to = relay;
  const auto stream = loop_->streams()->Connect(connect, this);
  EXPECT_TRUE(stream.ok()) << stream.status();
  stream_ = stream.value_or(io::kNoStream);
  net->SetRunner(loop_.get(), [this] {
    loop_->Poll(net_->now());
    return Instant::max();
  });
}

TestClient::~TestClient() = default;

void TestClient::OnConnect(io::StreamId) {
  connected = true;
  if (session_ == nullptr) return;
  const auto status = session_->Start(net_->now(), net_->now() + derp::kConnectTimeout, nullptr);
  EXPECT_TRUE(status.ok()) << status;
  SendOutput();
}

void TestClient::OnReceive(io::StreamId, std::span<std::byte> bytes) {
  bytes_received += bytes.size();
  if (session_ == nullptr) {
    raw.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return;
  }
  if (const auto status = session_->Receive(bytes, net_->now()); !status.ok()) {
    closed = true;
    why = status;
    return;
  }
  SendOutput();
}

void TestClient::OnClose(io::StreamId, const absl::Status& status) {
  closed = true;
  why = status;
}

void TestClient::OnPacket(const PublicKey& source, derp::Bytes packet) {
  packets.emplace_back(source,
                       std::string(reinterpret_cast<const char*>(packet.data()), packet.size()));
  if (on_packet) on_packet();
}

void TestClient::SendOutput() {
  const derp::Bytes output = session_->output();
  session_->ConsumeOutput(loop_->streams()->Send(stream_, output));
}

bool TestClient::Send(const PublicKey& to, const std::string& packet) {
  std::vector<std::byte> frame(derp::kPacketHeaderSize + packet.size());
  size_t size = 0;
  const auto result = session_->SendPacket(to, AsBytes(packet), net_->now(), frame, &size);
  EXPECT_EQ(result, derp::ClientSession::SendResult::kOk);
  if (loop_->streams()->SendRoom(stream_) < size) return false;
  return loop_->streams()->Send(stream_, derp::Bytes(frame).first(size)) == size;
}

void TestClient::Forward(const PublicKey& source, const PublicKey& to, const std::string& packet) {
  std::vector<std::byte> frame(derp::kForwardHeaderSize + packet.size());
  size_t size = 0;
  session_->ForwardPacket(source, to, AsBytes(packet), frame, &size);
  loop_->streams()->Send(stream_, derp::Bytes(frame).first(size));
}

bool TestClient::SendRaw(const std::string& bytes) {
  return loop_->streams()->Send(stream_, AsBytes(bytes)) == bytes.size();
}

std::string TestClient::Text(const TestClient* from) const {
  std::string text;
  for (const auto& [source, packet] : packets) {
    if (from == nullptr || source == from->key()) text += packet + "|";
  }
  return text;
}

void RelayTest::Start(int workers) {
  options_.identity = &identity_;
  options_.workers = workers;
  options_.listen = {{{IpAddress::AnyV4(), kRelayPort, 0}, /*tls=*/false}};
  options_.make_loop = [this](int worker) -> absl::StatusOr<std::unique_ptr<io::Loop>> {
    relay_hosts_.push_back(net_.AddHost(absl::StrCat("relay", worker), {RelayAt(worker).ip}));
    auto loop = net_.CreateLoop(relay_hosts_.back(), options_.loop);
    relay_loops_.push_back(loop.get());
    return std::unique_ptr<io::Loop>(std::move(loop));
  };
  Options options = std::move(options_);
  server_ = std::make_unique<ServerImpl>(std::move(options));
  const auto status = server_->Open();
  ASSERT_TRUE(status.ok()) << status;
  for (int i = 0; i < workers; ++i) {
    net_.SetRunner(relay_loops_[static_cast<size_t>(i)], [this, i] {
      Worker& worker = server_->worker(static_cast<size_t>(i));
      if (worker.stopped()) return Instant::max();
      worker.Turn(net_.now());
      return worker.NextDeadline();
    });
  }
}

TestClient& RelayTest::Join(uint8_t number, int worker, TestClient::Config config, bool wait) {
  const uint8_t host = next_host_++;
  const io::HostId id =
      net_.AddHost(absl::StrCat("client", host), {IpAddress::V4(203, 0, 113, host)});
  clients_.push_back(
      std::make_unique<TestClient>(&net_, id, KeyOf(number), RelayAt(worker), std::move(config)));
  TestClient& client = *clients_.back();
  hosts_.emplace_back(&client, id);
  if (wait) RunUntil([&] { return client.ready(); }, "login");
  return client;
}

io::HostId RelayTest::HostOf(const TestClient& client) const {
  for (const auto& [known, host] : hosts_) {
    if (known == &client) return host;
  }
  return {};
}

bool RelayTest::RunUntil(const std::function<bool()>& predicate, const char* what, Duration limit) {
  const Instant end = net_.now() + limit;
  while (net_.now() < end) {
    if (predicate()) return true;
    if (!net_.Step()) net_.RunFor(std::chrono::milliseconds(10));
  }
  ADD_FAILURE() << "never happened: " << what;
  return false;
}

}  // namespace ringsock::relay
