// A hairpin check's socket (core/hairpin_socket.h).
#include "core/hairpin_socket.h"

#include "absl/status/statusor.h"

namespace ringsock {
namespace {

// Single requests go out, and single answers may come: the least the kernel gives will do.
constexpr int kBuffer = 4096;

}  // namespace

absl::Status HairpinSocket::Send(const Endpoint& to, std::span<const std::byte> packet) {
  if (!socket_.has_value()) {
    io::UdpConfig config;
    config.bind = {bind_, 0, 0};
    config.receive_buffer = kBuffer;
    config.send_buffer = kBuffer;
    const absl::StatusOr<io::SocketId> socket = loop_.OpenUdp(config, this);
    if (!socket.ok()) return socket.status();
    socket_ = *socket;
  }
  loop_.Send(*socket_,
             {.data = packet.data(), .size = static_cast<uint32_t>(packet.size()), .to = to});
  loop_.Flush();
  return absl::OkStatus();
}

void HairpinSocket::Close() {
  if (socket_.has_value()) loop_.CloseUdp(*socket_);
  socket_.reset();
}

}  // namespace ringsock
