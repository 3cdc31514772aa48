// A relay of a hundred lines on a thread of its own, plain TCP, for tests of what measures relays:
// the protocol's own server session, no queues, and faults on demand.
#ifndef RINGSOCK_TESTS_BENCH_RELAY_FAKE_RELAY_H_
#define RINGSOCK_TESTS_BENCH_RELAY_FAKE_RELAY_H_

#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/random.h"
#include "derp/server_session.h"
#include "io/fd.h"

namespace ringsock::bench {

struct FakeRelayFaults {
  uint32_t drop_every = 0;       // each so many-th packet is lost; 0: none
  uint32_t duplicate_every = 0;  // ... comes twice
};

class FakeRelay final : public derp::ServerEvents {
 public:
  explicit FakeRelay(FakeRelayFaults faults = {}) : faults_(faults) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener_.get(), generic, length) != 0 || listen(listener_.get(), 128) != 0 ||
        getsockname(listener_.get(), generic, &length) != 0) {
      std::abort();
    }
    endpoint_ = {IpAddress::V4(127, 0, 0, 1), ntohs(address.sin_port)};
    thread_ = std::thread(&FakeRelay::Run, this);
  }
  ~FakeRelay() override {
    const uint64_t one = 1;
    if (write(stop_.get(), &one, sizeof(one)) != sizeof(one)) std::abort();
    thread_.join();
  }

  const Endpoint& endpoint() const { return endpoint_; }

  absl::Status OnLogin(derp::ServerSession& session) override {
    by_key_[session.client()] = current_;
    return absl::OkStatus();
  }
  void OnReady(derp::ServerSession&) override {}
  void OnSendPacket(derp::ServerSession& session, const PublicKey& destination, derp::Bytes,
                    const derp::Frame& frame) override {
    const auto to = by_key_.find(destination);
    ++packets_;
    if (to == by_key_.end()) return;
    if (faults_.drop_every > 0 && packets_ % faults_.drop_every == 0) return;
    derp::TurnIntoRecv(frame, session.client());
    Write(*to->second, frame.bytes);
    if (faults_.duplicate_every > 0 && packets_ % faults_.duplicate_every == 0) {
      Write(*to->second, frame.bytes);
    }
  }
  void OnNotePreferred(derp::ServerSession&, bool) override {}
  void OnPong(derp::ServerSession&, const derp::PingData&) override {}
  void OnForwardPacket(derp::ServerSession&, const derp::ForwardPacketFrame&) override {}
  void OnWatchConns(derp::ServerSession&) override {}
  void OnClosePeer(derp::ServerSession&, const PublicKey&) override {}

 private:
  struct Client {
    io::Fd fd;
    std::unique_ptr<derp::ServerSession> session;
  };

  // Blocks while the receiver does not read.
  static void Write(Client& client, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(client.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }

  void Accept() {
    auto client = std::make_unique<Client>();
    client->fd = io::Fd(accept(listener_.get(), nullptr, nullptr));
    client->session = std::make_unique<derp::ServerSession>(&config_, this, SystemClock().Now());
    clients_.push_back(std::move(client));
  }

  void Read(Client& client) {
    std::array<std::byte, 65536> buffer;
    const ssize_t n = recv(client.fd.get(), buffer.data(), buffer.size(), 0);
    current_ = &client;
    if (n <= 0 ||
        !client.session
             ->Receive(std::span(buffer).first(static_cast<size_t>(n)), SystemClock().Now())
             .ok()) {
      return client.fd.Close();
    }
    Write(client, client.session->output());
    client.session->ConsumeOutput(client.session->output().size());
  }

  void Run() {
    while (true) {
      std::vector<pollfd> fds = {{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      for (const auto& client : clients_) fds.push_back({client->fd.get(), POLLIN, 0});
      poll(fds.data(), fds.size(), -1);
      if (fds[0].revents != 0) return;
      for (size_t i = 2; i < fds.size(); ++i) {
        if (fds[i].revents != 0) Read(*clients_[i - 2]);
      }
      if (fds[1].revents != 0) Accept();
    }
  }

  const FakeRelayFaults faults_;
  io::Fd listener_{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  io::Fd stop_{eventfd(0, EFD_CLOEXEC)};
  Endpoint endpoint_;
  const derp::ServerIdentity identity_{PrivateKey::Generate()};
  const derp::ServerSessionConfig config_{
      .identity = &identity_, .mesh_key = nullptr, .info = {}, .random = &SystemRandom()};
  std::vector<std::unique_ptr<Client>> clients_;
  std::map<PublicKey, Client*> by_key_;
  Client* current_ = nullptr;
  uint64_t packets_ = 0;
  std::thread thread_;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_TESTS_BENCH_RELAY_FAKE_RELAY_H_
