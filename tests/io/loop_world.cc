// The worlds of the loop suites, and the fixture's helpers.
#include "tests/io/loop_world.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"
#include "io/fd.h"
#include "io/mmsg_loop.h"
#include "io/sim_network.h"
#include "io/uring.h"
#include "io/uring_loop.h"

namespace ringsock::io {
namespace {

using MakeLoop = absl::StatusOr<std::unique_ptr<Loop>> (*)(const LoopOptions&);

// A listener that nobody accepts from, with its backlog full: the kernel drops further SYNs.
struct FullListener final : World::Silent {
  explicit FullListener(const IpAddress& ip) {
    sockaddr_storage address{};
    socklen_t length = Endpoint{ip, 0, 0}.ToSockaddr(&address);
    auto* name = reinterpret_cast<sockaddr*>(&address);
    listener = Fd(socket(name->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(listener.get(), name, length), 0);
    EXPECT_EQ(listen(listener.get(), 0), 0);
    EXPECT_EQ(getsockname(listener.get(), name, &length), 0);
    at = Endpoint::FromSockaddr(address);
    for (Fd& client : clients) {
      client = Fd(socket(name->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      connect(client.get(), name, length);
    }
  }
  Fd listener;
  std::array<Fd, 8> clients;
};

// Loops on this host's loopback.
class RealWorld final : public World {
 public:
  explicit RealWorld(MakeLoop make) : make_(make) {}

  Loop& Add(const LoopOptions& options) override {
    auto loop = make_(options);
    if (!loop.ok()) ADD_FAILURE() << loop.status();
    return *loops_.emplace_back(std::move(loop).value());
  }
  IpAddress Address(size_t, bool v4) override {
    return v4 ? IpAddress::V4(127, 0, 0, 1) : IpAddress::Parse("::1").value();
  }
  std::unique_ptr<Silent> Silence(bool v4) override {
    return std::make_unique<FullListener>(Address(0, v4));
  }
  void Turn() override {
    for (const auto& loop : loops_) {
      const Instant now = loop->clock().Now();
      // The only loop may sleep; with several, the one to get something would wait for the others.
      loop->Poll(loops_.size() == 1 ? now + std::chrono::milliseconds(1) : now);
    }
  }

 private:
  const MakeLoop make_;
  std::vector<std::unique_ptr<Loop>> loops_;
};

// Loops on hosts of a simulated network, a short delay apart.
class SimWorld final : public World {
 public:
  ~SimWorld() override {
    if (testing::Test::HasFailure()) Log().error("{}", network_.Describe());
    loops_.clear();
  }

  Loop& Add(const LoopOptions& options) override {
    const size_t index = loops_.size();
    const HostId host = network_.AddHost("host" + std::to_string(index),
                                         {Address(index, true), Address(index, false)});
    network_.uplink(host).options.delay = std::chrono::microseconds(50);
    return *loops_.emplace_back(network_.CreateLoop(host, options));
  }
  IpAddress Address(size_t index, bool v4) override {
    const auto last = static_cast<uint8_t>(index + 1);
    if (v4) return IpAddress::V4(198, 51, 100, last);
    return IpAddress::V6({0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last});
  }
  std::unique_ptr<Silent> Silence(bool v4) override {
    auto silent = std::make_unique<Silent>();
    silent->at = {Address(200, v4), 443, 0};
    return silent;
  }
  void Turn() override { network_.RunFor(std::chrono::microseconds(100)); }

 private:
  SimNetwork network_{/*seed=*/1};
  std::vector<std::unique_ptr<SimLoop>> loops_;
};

std::string OffloadName(const WorldParam& param) {
  if (param.gso && param.gro) return "";
  return std::string(param.gso ? "" : "NoGso") + (param.gro ? "" : "NoGro");
}

bool HasLoopbackV6() {
  const int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  const bool bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  if (fd >= 0) close(fd);
  return bound;
}

}  // namespace

const std::vector<WorldFactory>& AllWorlds() {
  static const auto* const worlds = [] {
    auto* result = new std::vector<WorldFactory>{
        {"Mmsg", true, [] { return std::make_unique<RealWorld>(&MakeMmsgLoop); }},
        {"Simulated", false, [] { return std::make_unique<SimWorld>(); }},
        {"Uring", true, [] { return std::make_unique<RealWorld>(&MakeUringLoop); },
         std::string(ProbeUring().message())},
    };
    return result;
  }();
  return *worlds;
}

std::vector<WorldParam> WorldsAndFamilies() {
  std::vector<WorldParam> result;
  for (const WorldFactory& factory : AllWorlds()) {
    for (const bool v4 : {true, false}) result.push_back({factory, v4});
  }
  return result;
}

std::vector<WorldParam> RealWorldsAndFamilies() {
  std::vector<WorldParam> result = WorldsAndFamilies();
  std::erase_if(result, [](const WorldParam& param) { return !param.factory.real; });
  return result;
}

std::vector<WorldParam> WorldsAndOffloads() {
  std::vector<WorldParam> result;
  for (const WorldParam& param : WorldsAndFamilies()) {
    for (const bool gso : {true, false}) {
      for (const bool gro : {true, false}) result.push_back({param.factory, param.v4, gso, gro});
    }
  }
  return result;
}

std::string ParamName(const testing::TestParamInfo<WorldParam>& info) {
  return info.param.factory.name + (info.param.v4 ? "V4" : "V6") + OffloadName(info.param);
}

void Recorder::OnReceive(SocketId socket, std::span<const RxTrain> received) {
  largest_batch = std::max(largest_batch, received.size());
  trains += received.size();
  for (const RxTrain& train : received) {
    count += train.packets();
    for (uint32_t at = 0, i = 0; keep && i < train.packets(); ++i) {
      const uint32_t size = std::min(train.segment_size, train.size - at);
      packets.push_back({{train.data + at, train.data + at + size}, train.from, train.to});
      at += size;
    }
  }
  if (on_receive) on_receive(socket, received);
}

void Recorder::OnSendFailure(SocketId, const SendFailure& failure) {
  const TxTrain& train = *failure.train;
  failures.push_back({train.data + static_cast<size_t>(failure.first) * train.segment_size,
                      failure.packets, failure.error});
  failed_packets += failure.packets;
}

std::vector<std::byte> Pattern(size_t size, uint32_t seed) {
  std::vector<std::byte> bytes(size);
  uint32_t state = seed * 2654435761u + 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

std::string WhyNotHere(const WorldParam& param) {
  if (!param.factory.forbidden.empty()) return param.factory.forbidden;
  static const bool has_v6 = HasLoopbackV6();
  if (!param.factory.real || param.v4 || has_v6) return "";
  return "this host has no address ::1 (sysctl net.ipv6.conf.lo.disable_ipv6)";
}

void LoopTest::SetUp() {
  if (const std::string why = WhyNotHere(GetParam()); !why.empty()) GTEST_SKIP() << why;
}

LoopOptions LoopTest::Options() const {
  LoopOptions options;
  options.gso = GetParam().gso;
  options.gro = GetParam().gro;
  return options;
}

LoopTest::Peer& LoopTest::AddPeer(LoopOptions options, UdpConfig config) {
  Peer& peer = peers_.emplace_back();
  peer.loop = &world_->Add(options);
  if (config.bind.IsNone()) config.bind = Bind(peers_.size() - 1);
  const auto socket = peer.loop->OpenUdp(config, &peer.recorder);
  if (!socket.ok()) {
    ADD_FAILURE() << socket.status();
    return peer;
  }
  peer.socket = *socket;
  peer.address = peer.loop->LocalEndpoint(peer.socket);
  return peer;
}

void LoopTest::MoveToAPortOfItsOwn(Peer& peer) {
  peer.loop->CloseUdp(peer.socket);
  UdpConfig config;
  config.bind = peer.address;
  // Other tests run beside this one, with other ports to try.
  const uint32_t first = 61'000 + static_cast<uint32_t>(getpid()) % 500 * 8;
  for (uint32_t port = first; port < first + 8; ++port) {
    config.bind.port = static_cast<uint16_t>(port);
    const auto socket = peer.loop->OpenUdp(config, &peer.recorder);
    if (!socket.ok()) continue;
    peer.socket = *socket;
    peer.address = peer.loop->LocalEndpoint(peer.socket);
    return;
  }
  ADD_FAILURE() << "no free port";
}

bool LoopTest::Until(const std::function<bool()>& predicate, const char* what) {
  // In simulation a turn costs next to nothing, so the guard counts both turns and time.
  const Instant end = SystemClock().Now() + std::chrono::seconds(20);
  for (uint64_t turns = 0; turns < 1000 || SystemClock().Now() < end; ++turns) {
    if (predicate()) return true;
    world_->Turn();
  }
  ADD_FAILURE() << "never happened: " << what;
  return false;
}

void LoopTest::Settle() {
  for (int i = 0; i < 20; ++i) world_->Turn();
}

void LoopTest::SendNow(Peer& from, const Endpoint& to, std::vector<std::byte> bytes,
                       uint32_t segment) {
  const std::vector<std::byte>& kept = sent_.emplace_back(std::move(bytes));
  TxTrain train;
  train.data = kept.data();
  train.size = static_cast<uint32_t>(kept.size());
  train.segment_size = segment;
  train.to = to;
  from.loop->Send(from.socket, train);
  from.loop->Flush();
}

}  // namespace ringsock::io
