#include "bench/lockstep/load.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "bench/sockets.h"
#include "bench/wire.h"

namespace ringsock::bench {
namespace {

constexpr uint32_t kSockets = 8;
// Of strangers, and how many different packets they send.
constexpr uint32_t kStrangerSockets = 64;
constexpr size_t kStrangerPackets = 256;
// Peers that take turns with Traffic::interleave.
constexpr uint32_t kGroup = 4;
// Topology's peers have so many.
constexpr uint32_t kAddresses = 1 << 20;

absl::Status Errno(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

}  // namespace

LockstepLoad::LockstepLoad(const LockstepLoadConfig& config)
    : config_(config),
      payload_(std::max<size_t>(size_t{config.traffic.size} * config.traffic.train, kMinSize)) {
  const WireHeader header;
  for (size_t at = 0; at + sizeof(header) <= payload_.size(); at += config.traffic.size) {
    std::memcpy(&payload_[at], &header, sizeof(header));
  }
}

LockstepLoad::~LockstepLoad() {
  for (const int fd : sockets_) close(fd);
  for (const int fd : stranger_sockets_) close(fd);
}

absl::StatusOr<std::unique_ptr<LockstepLoad>> LockstepLoad::Create(
    const LockstepLoadConfig& config) {
  auto load = std::unique_ptr<LockstepLoad>(new LockstepLoad(config));
  if (absl::Status status = load->Open(); !status.ok()) return status;
  return load;
}

absl::Status LockstepLoad::Open() {
  std::vector<uint16_t> ports;
  const uint32_t count = std::min(config_.traffic.peers, kSockets);
  while (sockets_.size() < count) {
    const auto fd = OpenUdpSocket({.ip = IpAddress::AnyV4()}, config_.socket_buffer);
    if (!fd.ok()) return fd.status();
    sockets_.push_back(*fd);
    ports.push_back(LocalPort(*fd));
    const int on = 1;
    if (setsockopt(*fd, SOL_UDP, UDP_GRO, &on, sizeof(on)) != 0) return Errno("UDP_GRO");
  }
  uint32_t address = config_.first_address;
  while (peers_.size() < config_.traffic.peers) {
    if (address - config_.first_address > kAddresses) {
      return absl::UnavailableError("not enough addresses that are wanted");
    }
    const Endpoint peer{IpAddress::V4(address++), ports[peers_.size() % count]};
    if (!config_.wanted || config_.wanted(peer)) peers_.push_back(peer);
  }
  if (config_.strangers == 0) return absl::OkStatus();
  for (uint32_t i = 0; i < kStrangerSockets; ++i) {
    const auto fd = OpenUdpSocket({.ip = IpAddress::AnyV4()}, 1 << 20);
    if (!fd.ok()) return fd.status();
    stranger_sockets_.push_back(*fd);
  }
  stranger_packets_ = FloodPackets(config_.flood, config_.traffic.size, kStrangerPackets);
  return absl::OkStatus();
}

LockstepLoad::Train LockstepLoad::NextTrain() {
  const Traffic& t = config_.traffic;
  const uint64_t n = trains_++;
  const auto peer = static_cast<uint32_t>(
      (n / (uint64_t{kGroup} * t.interleave) * kGroup + n % kGroup) % t.peers);
  if (!t.mix) return {peer, t.train, t.size};
  const auto lengths = static_cast<uint64_t>(std::bit_width(t.train));
  return {peer, 1u << (random_.Next() % lengths), t.mixed_sizes()[random_.Next() % 3]};
}

bool LockstepLoad::SendTrain(const Train& train, const Endpoint& target) {
  sockaddr_storage to{};
  iovec bytes = {payload_.data(), size_t{train.packets} * train.size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(in_pktinfo)) + CMSG_SPACE(sizeof(uint16_t))] = {};
  msghdr message = {};
  message.msg_name = &to;
  message.msg_namelen = target.ToSockaddr(&to);
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = IPPROTO_IP;
  header->cmsg_type = IP_PKTINFO;
  header->cmsg_len = CMSG_LEN(sizeof(in_pktinfo));
  in_pktinfo source = {};
  source.ipi_spec_dst.s_addr = htonl(peers_[train.peer].ip.V4HostOrder());
  std::memcpy(CMSG_DATA(header), &source, sizeof(source));
  header = CMSG_NXTHDR(&message, header);
  header->cmsg_level = SOL_UDP;
  header->cmsg_type = UDP_SEGMENT;
  header->cmsg_len = CMSG_LEN(sizeof(uint16_t));
  const auto segment = static_cast<uint16_t>(train.size);
  std::memcpy(CMSG_DATA(header), &segment, sizeof(segment));
  if (train.packets == 1) message.msg_controllen = CMSG_SPACE(sizeof(in_pktinfo));
  return sendmsg(sockets_[train.peer % sockets_.size()], &message, 0) ==
         static_cast<ssize_t>(bytes.iov_len);
}

bool LockstepLoad::SendStranger(const Endpoint& target) {
  const std::string& packet = stranger_packets_[strangers_ % stranger_packets_.size()];
  const int fd = stranger_sockets_[strangers_++ % stranger_sockets_.size()];
  sockaddr_storage to{};
  const socklen_t length = target.ToSockaddr(&to);
  return sendto(fd, packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&to), length) ==
         static_cast<ssize_t>(packet.size());
}

absl::StatusOr<LockstepLoad::Burst> LockstepLoad::SendBurst(const Endpoint& target,
                                                            bool with_strangers) {
  const Traffic& t = config_.traffic;
  const bool requests = t.mode == Mode::kSend;
  const uint32_t trains =
      requests ? std::max(config_.burst / t.trains_per_request(), 1u) : config_.burst;
  const uint32_t strangers = with_strangers ? config_.strangers : 0;
  Burst burst;
  for (uint32_t i = 0; i < trains; ++i) {
    // Spread evenly, all of them before the last train.
    while (burst.strangers < uint64_t{strangers} * (i + 1) / trains) {
      if (!SendStranger(target)) return Errno("a stranger's packet");
      ++burst.strangers;
    }
    Train train = NextTrain();
    if (requests) train = {train.peer, 1, kMinSize};
    if (!SendTrain(train, target)) return Errno("a train");
    const uint64_t packets = requests ? uint64_t{t.trains_per_request()} * t.train : train.packets;
    burst.packets += packets;
    if (t.mode != Mode::kReceive) burst.bytes += packets * (requests ? t.size : train.size);
  }
  return burst;
}

uint64_t LockstepLoad::Drain() {
  uint64_t bytes = 0;
  for (const int fd : sockets_) {
    ssize_t size;
    char first;
    // The bytes themselves are of no interest; the size is that of the whole train all the same.
    while ((size = recv(fd, &first, 1, MSG_DONTWAIT | MSG_TRUNC)) >= 0) {
      bytes += static_cast<uint64_t>(size);
    }
  }
  return bytes;
}

}  // namespace ringsock::bench
