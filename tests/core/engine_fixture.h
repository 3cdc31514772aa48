// What tests of the engine on real sockets share: a handler that keeps what it gets, and a remote
// host that is one plain UDP socket on loopback.
#ifndef RINGSOCK_TESTS_CORE_ENGINE_FIXTURE_H_
#define RINGSOCK_TESTS_CORE_ENGINE_FIXTURE_H_

#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "core/engine.h"
#include "gtest/gtest.h"

namespace ringsock {

// Long enough for any machine; only a failing test waits for it.
inline constexpr std::chrono::seconds kPatience(20);

inline PacketTrain TrainOf(const std::string& bytes, size_t segment = 0) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), static_cast<uint32_t>(bytes.size()),
          static_cast<uint32_t>(segment == 0 ? bytes.size() : segment)};
}

// Waits for what another thread will make true; false after kPatience.
template <typename Condition>
bool WaitUntil(Condition&& condition) {
  const Instant end = SystemClock().Now() + kPatience;
  while (!condition()) {
    if (SystemClock().Now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// A WireGuard message of `type` with a body that tells it from others.
inline std::string Message(uint32_t type, absl::string_view body) {
  std::string bytes(4, '\0');
  bytes[0] = static_cast<char>(type);
  absl::StrAppend(&bytes, body);
  return bytes;
}

inline PublicKey KeyNumber(uint32_t number) {
  PublicKey key;
  key.bytes[0] = 1;
  for (size_t i = 0; i < 4; ++i) key.bytes[4 + i] = static_cast<uint8_t>(number >> (8 * i));
  return key;
}

// Keeps every packet. Does what the test set as `reaction` for each train, on the shard's thread.
class KeepingHandler : public Handler {
 public:
  struct Packet {
    PeerId peer;
    Endpoint from;
    PathKind path;
    std::string bytes;
  };
  using Reaction = std::function<void(Shard&, const ReceivedTrain&)>;
  Reaction reaction;  // set before the engine starts
  // Sets it while the engine runs.
  void SetReaction(Reaction next) {
    std::lock_guard lock(mutex_);
    reaction = std::move(next);
  }

  void OnReceive(Shard& shard, std::span<const ReceivedTrain> trains) override {
    for (const ReceivedTrain& train : trains) {
      std::lock_guard lock(mutex_);
      if (reaction) reaction(shard, train);
      const auto* data = reinterpret_cast<const char*>(train.packets.data);
      for (uint32_t at = 0; at < train.packets.size; at += train.packets.segment_size) {
        const uint32_t size = std::min(train.packets.segment_size, train.packets.size - at);
        packets_.push_back({train.peer, train.from, train.path, std::string(data + at, size)});
      }
      arrived_.notify_all();
    }
  }

  // Waits until `count` packets have come in all, and returns them.
  std::vector<Packet> WaitFor(size_t count) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, kPatience, [&] { return packets_.size() >= count; });
    EXPECT_GE(packets_.size(), count) << "packets did not arrive";
    return packets_;
  }
  size_t size() {
    std::lock_guard lock(mutex_);
    return packets_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Packet> packets_;
};

// One UDP socket on loopback, with a port of its own.
class RemoteHost {
 public:
  explicit RemoteHost(bool v6 = false) {
    Endpoint local;
    local.ip = v6 ? *IpAddress::Parse("::1") : IpAddress::V4(127, 0, 0, 1);
    sockaddr_storage address{};
    const socklen_t length = local.ToSockaddr(&address);
    fd_ = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int buffer = 4 << 20;
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    ok_ = fd_ >= 0 && bind(fd_, reinterpret_cast<sockaddr*>(&address), length) == 0;
    socklen_t size = sizeof(address);
    if (ok_) getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    endpoint_ = Endpoint::FromSockaddr(address);
  }
  ~RemoteHost() {
    if (fd_ >= 0) close(fd_);
  }
  RemoteHost(const RemoteHost&) = delete;
  RemoteHost& operator=(const RemoteHost&) = delete;

  bool ok() const { return ok_; }
  const Endpoint& endpoint() const { return endpoint_; }
  std::string text() const { return endpoint_.ToString(); }

  // To the engine's port on this socket's family.
  void Send(uint16_t port, const std::string& bytes) {
    Endpoint to = endpoint_;
    to.port = port;
    sockaddr_storage address{};
    const socklen_t length = to.ToSockaddr(&address);
    const ssize_t sent =
        sendto(fd_, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&address), length);
    EXPECT_EQ(sent, static_cast<ssize_t>(bytes.size())) << strerror(errno);
  }
  // The same for datagrams of one size that travel as one train (UDP_SEGMENT).
  void SendTrain(uint16_t port, const std::string& bytes, size_t segment) {
    const auto size = static_cast<int>(segment);
    ASSERT_EQ(setsockopt(fd_, SOL_UDP, UDP_SEGMENT, &size, sizeof(size)), 0) << strerror(errno);
    Send(port, bytes);
    const int off = 0;
    ASSERT_EQ(setsockopt(fd_, SOL_UDP, UDP_SEGMENT, &off, sizeof(off)), 0) << strerror(errno);
  }
  // The next datagram; nothing and a failure after kPatience.
  std::string Receive() {
    std::optional<std::string> bytes = ReceiveWithin(kPatience);
    EXPECT_TRUE(bytes.has_value()) << "no datagram came to " << text();
    return bytes.value_or("");
  }
  // Throws away what has come.
  void Drain() {
    while (!Empty()) continue;
  }
  // Takes a datagram if there is one.
  bool Empty() { return !TryReceive().has_value(); }
  // The next datagram if there is one.
  std::optional<std::string> TryReceive() { return ReceiveWithin(std::chrono::milliseconds(0)); }

 private:
  std::optional<std::string> ReceiveWithin(std::chrono::milliseconds time) {
    pollfd wait{fd_, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(time.count())) <= 0) return std::nullopt;
    std::string bytes(65536, '\0');
    const ssize_t size = recv(fd_, bytes.data(), bytes.size(), 0);
    if (size < 0) return std::nullopt;
    bytes.resize(static_cast<size_t>(size));
    return bytes;
  }

  int fd_ = -1;
  bool ok_ = false;
  Endpoint endpoint_;
};

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_ENGINE_FIXTURE_H_
