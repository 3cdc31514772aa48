#include "tests/relay/relay_world.h"

#include "absl/strings/str_cat.h"

namespace ringsock::relay {
namespace {

derp::Bytes AsBytes(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace

TestClient::TestClient(io::Loop* loop, PrivateKey key, const Endpoint& relay, Config config)
    : loop_(loop), key_(std::move(key)), public_key_(key_.Public()), config_(std::move(config)) {
  if (config_.login) {
    derp::ClientSessionOptions options;
    options.http.host = "relay.test";
    options.info.mesh_key = config_.mesh_key.Clone();
    session_ = std::make_unique<derp::ClientSession>(std::move(options), &key_, &random_,
                                                     static_cast<derp::ClientEvents*>(this));
  }
  if (config_.tls != nullptr) {
    auto tls = derp::TlsSession::NewClient(config_.tls, config_.target, this, this);
    EXPECT_TRUE(tls.ok()) << tls.status();
    tls_ = std::move(tls).value();
  }
  io::ConnectConfig connect;
  connect.to = relay;
  connect.options.receive_buffer = config_.receive_buffer;
  const auto stream = loop_->streams()->Connect(connect, this);
  EXPECT_TRUE(stream.ok()) << stream.status();
  stream_ = stream.value_or(io::kNoStream);
}

// Its loop may live on.
TestClient::~TestClient() { loop_->streams()->Abort(stream_); }

void TestClient::OnConnect(io::StreamId) {
  connected = true;
  if (tls_ == nullptr) return StartSession();
  if (const auto status = tls_->Start(); !status.ok()) Fail(status);
}

void TestClient::StartSession() {
  if (session_ == nullptr) return;
  const auto status = session_->Start(now(), now() + derp::kConnectTimeout, nullptr);
  EXPECT_TRUE(status.ok()) << status;
  SendOutput();
}

void TestClient::OnReceive(io::StreamId, std::span<std::byte> bytes) {
  bytes_received += bytes.size();
  const auto status = tls_ != nullptr ? tls_->Receive(bytes) : OnPlaintext(bytes);
  if (!status.ok()) Fail(status);
}

absl::Status TestClient::OnPlaintext(std::span<std::byte> bytes) {
  if (session_ == nullptr) {
    raw.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return absl::OkStatus();
  }
  auto status = session_->Receive(bytes, now());
  SendOutput();
  return status;
}

void TestClient::Fail(const absl::Status& status) {
  closed = true;
  why = status;
}

void TestClient::OnClose(io::StreamId, const absl::Status& status) { Fail(status); }

void TestClient::OnPacket(const PublicKey& source, derp::Bytes packet) {
  packets.emplace_back(source,
                       std::string(reinterpret_cast<const char*>(packet.data()), packet.size()));
  if (on_packet) on_packet();
}

void TestClient::SendOutput() {
  if (session_->output().empty()) return;
  if (SendBytes(session_->output())) session_->ConsumeOutput(session_->output().size());
}

bool TestClient::SendBytes(derp::Bytes bytes) {
  if (loop_->streams()->SendRoom(stream_) < bytes.size() + 8 * derp::kMaxTlsOverhead) return false;
  const size_t sent = tls_ != nullptr ? tls_->Send(bytes) : loop_->streams()->Send(stream_, bytes);
  EXPECT_EQ(sent, bytes.size());
  return true;
}

bool TestClient::Send(const PublicKey& to, const std::string& packet) {
  std::vector<std::byte> frame(derp::kPacketHeaderSize + packet.size());
  size_t size = 0;
  const auto result = session_->SendPacket(to, AsBytes(packet), now(), frame, &size);
  EXPECT_EQ(result, derp::ClientSession::SendResult::kOk);
  return SendBytes(derp::Bytes(frame).first(size));
}

void TestClient::Forward(const PublicKey& source, const PublicKey& to, const std::string& packet) {
  std::vector<std::byte> frame(derp::kForwardHeaderSize + packet.size());
  size_t size = 0;
  session_->ForwardPacket(source, to, AsBytes(packet), frame, &size);
  SendBytes(derp::Bytes(frame).first(size));
}

bool TestClient::SendRaw(const std::string& bytes) { return SendBytes(AsBytes(bytes)); }

std::string TestClient::Text(const TestClient* from) const {
  std::string text;
  for (const auto& [source, packet] : packets) {
    if (from == nullptr || source == from->key()) text += packet + "|";
  }
  return text;
}

std::unique_ptr<ServerImpl> RelayTest::Open(Options options, int workers) {
  const size_t first = relay_hosts_.size();
  if (options.identity == nullptr) options.identity = &identity_;
  options.random = &random_;
  options.workers = workers;
  options.listen = {{{IpAddress::AnyV4(), kRelayPort, 0}, /*tls=*/false}};
  options.make_loop = [this](int) -> absl::StatusOr<std::unique_ptr<io::Loop>> {
    const size_t host = relay_hosts_.size();
    const IpAddress at = RelayAt(static_cast<int>(host)).ip;
    relay_hosts_.push_back(net_.AddHost(absl::StrCat("relay", host), {at}));
    auto loop = net_.CreateLoop(relay_hosts_.back(), {});
    relay_loops_.push_back(loop.get());
    return std::unique_ptr<io::Loop>(std::move(loop));
  };
  auto server = std::make_unique<ServerImpl>(std::move(options));
  const auto status = server->Open();
  EXPECT_TRUE(status.ok()) << status;
  for (int i = 0; i < workers; ++i) {
    Worker* worker = &server->worker(static_cast<size_t>(i));
    net_.SetRunner(relay_loops_[first + static_cast<size_t>(i)], [this, worker] {
      if (!worker->stopped()) worker->Turn(net_.now());
      if (!worker->stopped()) return worker->NextDeadline();
      worker->End();  // and its loop
      return Instant::max();
    });
  }
  return server;
}

TestClient& RelayTest::Join(uint8_t number, int worker, TestClient::Config config, bool wait) {
  const uint8_t host = next_host_++;
  const io::HostId id =
      net_.AddHost(absl::StrCat("client", host), {IpAddress::V4(203, 0, 113, host)});
  loops_.push_back(net_.CreateLoop(id, {}));
  io::SimLoop* loop = loops_.back().get();
  net_.SetRunner(loop, [this, loop] {
    loop->Poll(net_.now());
    return Instant::max();
  });
  clients_.push_back(
      std::make_unique<TestClient>(loop, KeyOf(number), RelayAt(worker), std::move(config)));
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
