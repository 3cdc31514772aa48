// Stand-ins for WireGuard and for peers: plain UDP sockets on the loopback device.
#ifndef RINGSOCK_TESTS_GATEWAY_UDP_PEER_H_
#define RINGSOCK_TESTS_GATEWAY_UDP_PEER_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstdint>

#include "base/endpoint.h"
#include "io/fd.h"
#include "tests/gateway/free_port.h"
#include "tests/gateway/wireguard_messages.h"

namespace ringsock::gateway {

// A UDP socket of 127.0.0.1 with a port of its own.
class UdpPeer {
 public:
  UdpPeer() : fd_(socket(AF_INET, SOCK_DGRAM, 0)) {
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
    sockaddr_storage local = {};
    socklen_t length = sizeof(local);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&local), &length);
    local_ = Endpoint::FromSockaddr(local);
    const timeval patience = {.tv_sec = 20, .tv_usec = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }

  const Endpoint& local() const { return local_; }

  void Send(const Endpoint& to, const Bytes& packet) {
    sockaddr_storage address;
    const socklen_t length = to.ToSockaddr(&address);
    ASSERT_EQ(sendto(fd_.get(), packet.data(), packet.size(), 0,
                     reinterpret_cast<sockaddr*>(&address), length),
              static_cast<ssize_t>(packet.size()));
  }

  struct Packet {
    Endpoint from;
    Bytes bytes;
  };
  // The next packet; a default one, and a failed test, if none comes.
  Packet Receive() {
    Packet packet;
    packet.bytes.resize(65536);
    sockaddr_storage from = {};
    ssize_t size = 0;
    do {  // a thread that has made an io_uring is interrupted without a signal
      socklen_t length = sizeof(from);
      size = recvfrom(fd_.get(), packet.bytes.data(), packet.bytes.size(), 0,
                      reinterpret_cast<sockaddr*>(&from), &length);
    } while (size < 0 && errno == EINTR);
    EXPECT_GE(size, 0) << "nothing came";
    packet.bytes.resize(size < 0 ? 0 : static_cast<size_t>(size));
    packet.from = Endpoint::FromSockaddr(from);
    return packet;
  }

 private:
  io::Fd fd_;
  Endpoint local_;
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_TESTS_GATEWAY_UDP_PEER_H_
