// Ports for programs that have to be told one.
#ifndef RINGSOCK_TESTS_GATEWAY_FREE_PORT_H_
#define RINGSOCK_TESTS_GATEWAY_FREE_PORT_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <random>

#include "io/fd.h"

namespace ringsock::gateway {

// A UDP port that nobody has, another one at each call. Below those that the kernel hands out
// (ip_local_port_range begins at 32768), or another program may get it before it is used.
inline uint16_t FreePort() {
  constexpr uint32_t kFirst = 20000, kPorts = 12000;
  static std::atomic<uint32_t> next{std::random_device()()};  // each process has its own place
  for (uint32_t tries = 0; tries < kPorts; ++tries) {
    const auto port = static_cast<uint16_t>(kFirst + next.fetch_add(1) % kPorts);
    const io::Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    any.sin_port = htons(port);
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)) == 0) return port;
  }
  ADD_FAILURE() << "no port is free";
  return 0;
}

}  // namespace ringsock::gateway

#endif  // RINGSOCK_TESTS_GATEWAY_FREE_PORT_H_
