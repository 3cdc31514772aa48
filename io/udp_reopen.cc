// The order is: open the new one on the same port (SO_REUSEPORT on both), tell the kernel to give
// the old one nothing more, read it empty, and close it a while later.
//
// What tells the kernel is to hold the old one to a network device that does not exist. By that it
// leaves the group of sockets that share the port (udp_lib_rehash), and its place in the group is
// taken by the one that joined last (reuseport_detach_sock), which is the new one: so a program
// that deals by places (io/steering.h), which gave the new one nothing before, gives it what was
// the old one's. That holds as long as sockets of a group are replaced one after the other.
//
// Where that is not to be had (before Linux 5.0, or held to a device already), the old one is
// connected to where nothing comes from. One that is bound to all addresses gets a source address
// by it and so leaves the group too; the others are skipped in it by the kernel's hash
// (reuseport_select_sock, since Linux 5.4), and by a program are not.
#include "io/udp_reopen.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>
#include <utility>

#include "io/control_message.h"

namespace ringsock::io {
namespace {

constexpr size_t kRxBuffer = 64 << 10;
// Discard (RFC 863): nobody sends from there.
constexpr uint16_t kDiscardPort = 9;
// Errors that were waiting at the socket (ICMP), each of which is told once.
constexpr int kMaxErrors = 16;

bool SetReusePort(int fd, bool on) {
  const int value = on ? 1 : 0;
  return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &value, sizeof value) == 0;
}

// No device has it: they are numbered from 1.
constexpr int kNoDevice = std::numeric_limits<int>::max();

bool StopReceiving(const UdpSocket& old) {
  if (setsockopt(old.fd.get(), SOL_SOCKET, SO_BINDTOIFINDEX, &kNoDevice, sizeof kNoDevice) == 0) {
    return true;
  }
  Endpoint nowhere = old.local;
  // An address of this host needs no route, so it works without any network.
  if (old.local.ip.IsUnspecified()) {
    nowhere.ip = old.local.IsV4() ? IpAddress::V4(127, 0, 0, 1)
                                  : IpAddress::V6({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
  }
  nowhere.port = kDiscardPort;
  sockaddr_storage address{};
  const socklen_t length = nowhere.ToSockaddr(&address);
  return connect(old.fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0;
}

}  // namespace

absl::StatusOr<Replacement> ReplaceUdp(const UdpSocket& old, uint16_t port, bool gso, bool gro) {
  UdpConfig config = old.config;
  config.bind.port = port;
  // A port that is not shared is, for as long as both have it.
  const bool share_for_now = port == old.local.port && !config.reuse_port;
  if (share_for_now) {
    config.reuse_port = true;
    SetReusePort(old.fd.get(), true);  // if it fails, so will the bind, which says why
  }
  absl::StatusOr<UdpSocket> opened = OpenUdpSocket(config, gso, gro);
  if (!opened.ok()) {
    if (share_for_now) SetReusePort(old.fd.get(), false);
    return opened.status();
  }
  Replacement result{std::move(opened).value()};
  result.exact = StopReceiving(old);
  result.keep = result.exact && result.fresh.local.port == old.local.port;
  // Not before: which of the two gets a datagram would change once more, and its order with it.
  if (share_for_now) {
    SetReusePort(old.fd.get(), false);
    SetReusePort(result.fresh.fd.get(), false);
    result.fresh.config.reuse_port = false;
  }
  return result;
}

uint64_t DrainUdp(const UdpSocket& old, UdpStats* stats,
                  const std::function<void(const RxTrain&)>& deliver) {
  uint64_t lost = 0;
  const auto buffer = std::make_unique<std::byte[]>(kRxBuffer);
  int errors = 0;
  for (uint32_t count = 0; count < 2 * kMaxDrain;) {
    sockaddr_storage from{};
    ControlBuffer control;
    iovec vector{buffer.get(), kRxBuffer};
    msghdr header{};
    header.msg_name = &from;
    header.msg_namelen = sizeof from;
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = &control;
    header.msg_controllen = sizeof control;
    const ssize_t size = recvmsg(old.fd.get(), &header, MSG_DONTWAIT);
    if (size < 0) {
      if (errno == EAGAIN) break;
      ++stats->rx_errors;
      if (++errors > kMaxErrors) break;
      continue;
    }
    ++count;
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
      ++stats->rx_truncated;
      continue;
    }
    const ReceiveControl parsed = ParseReceiveControl({control.data, header.msg_controllen});
    RxTrain train;
    train.data = buffer.get();
    train.size = static_cast<uint32_t>(size);
    train.segment_size =
        parsed.segment_size == 0 ? train.size : std::min(parsed.segment_size, train.size);
    train.from = Endpoint::FromSockaddr(from);
    train.to = parsed.to;
    if (count > kMaxDrain) {
      lost += train.packets();
      continue;
    }
    stats->rx_packets += train.packets();
    stats->rx_bytes += train.size;
    ++stats->rx_trains;
    deliver(train);
  }
  return lost;
}

void RetiredSockets::MakeRoom(SocketId id, bool shared) {
  size_t count = retired_.size();
  std::erase_if(retired_, [&](const Retired& retired) {
    if (shared ? count < kMost : retired.id != id) return false;
    size_t trains = 0;
    Drain(retired, &trains);
    --count;
    return true;
  });
  if (retired_.empty()) next_ = Instant::max();  // the reopening may fail
}

uint64_t RetiredSockets::Retire(UdpSocket old, bool keep, SocketId id, UdpStats* stats,
                                UdpHandler* handler, Instant now) {
  Retired retired{std::move(old), id, stats, handler, now + kKeep};
  size_t trains = 0;
  uint64_t lost = 0;
  if (!keep) {
    for (const Retired& before : retired_) {
      if (before.id == id) lost += Drain(before, &trains);
    }
  }
  lost += Drain(retired, &trains);
  if (keep) {
    retired_.push_back(std::move(retired));
    next_ = std::min(next_, now + kLookEvery);
  } else {
    Close(id);
  }
  return lost;
}

void RetiredSockets::Close(SocketId id) {
  std::erase_if(retired_, [id](const Retired& retired) { return retired.id == id; });
  if (retired_.empty()) next_ = Instant::max();
}

size_t RetiredSockets::Look(const Clock& clock) {
  if (retired_.empty()) return 0;
  const Instant now = clock.Now();
  if (now < next_) return 0;
  size_t trains = 0;
  for (const Retired& retired : retired_) Drain(retired, &trains);
  std::erase_if(retired_, [now](const Retired& retired) { return now >= retired.end; });
  next_ = retired_.empty() ? Instant::max() : now + kLookEvery;
  return trains;
}

uint64_t RetiredSockets::Drain(const Retired& retired, size_t* trains) {
  return DrainUdp(retired.old, retired.stats, [&](const RxTrain& train) {
    ++*trains;
    retired.handler->OnReceive(retired.id, {&train, 1});
    flush_();
  });
}

}  // namespace ringsock::io
