// The functions that stand before the system's. A request of io_uring that shall fail becomes a
// no-operation with that result (Linux 6.10).
#include "tests/io/refused_sends.h"

#include <dlfcn.h>
#include <liburing.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

namespace {

constexpr uint32_t kNopInjectResult = 1;  // IORING_NOP_INJECT_RESULT

std::function<int(bool)> g_refuse;
std::map<unsigned, io_uring*> g_rings;  // by descriptor

int Refusal(const msghdr& header) {
  if (!g_refuse) return 0;
  bool train = false;
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr;
       each = CMSG_NXTHDR(const_cast<msghdr*>(&header), each)) {
    train |= each->cmsg_level == SOL_UDP && each->cmsg_type == UDP_SEGMENT;
  }
  return g_refuse(train);
}

void RefuseQueued(io_uring& ring) {
  for (unsigned at = *ring.sq.khead; at != *ring.sq.ktail; ++at) {
    io_uring_sqe& sqe = ring.sq.sqes[at & ring.sq.ring_mask];
    const bool single = sqe.opcode == IORING_OP_SEND && sqe.addr2 != 0 && sqe.fd >= 0;
    if (!single && sqe.opcode != IORING_OP_SENDMSG && sqe.opcode != IORING_OP_SENDMSG_ZC) continue;
    const int error = Refusal(single ? msghdr{} : *reinterpret_cast<const msghdr*>(sqe.addr));
    if (error == 0) continue;
    const uint64_t tag = sqe.user_data;
    memset(&sqe, 0, sizeof sqe);
    sqe.opcode = IORING_OP_NOP;
    sqe.rw_flags = kNopInjectResult;
    sqe.len = static_cast<uint32_t>(-error);
    sqe.user_data = tag;
  }
}

}  // namespace

extern "C" int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  static const auto next =
      reinterpret_cast<int (*)(int, mmsghdr*, unsigned, int)>(dlsym(RTLD_NEXT, "sendmmsg"));
  // An error behind good messages is the next call's, which begins with the one it belongs to.
  static int due = 0;
  unsigned good = 0;
  for (; good < count; ++good) {
    const int error = due != 0 ? std::exchange(due, 0) : Refusal(messages[good].msg_hdr);
    if (error == 0) continue;
    if (good == 0) {
      errno = error;
      return -1;
    }
    due = error;
    break;
  }
  return next(fd, messages, good, flags);
}

extern "C" ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  static const auto next =
      reinterpret_cast<ssize_t (*)(int, const msghdr*, int)>(dlsym(RTLD_NEXT, "sendmsg"));
  if (const int error = Refusal(*message); error != 0) {
    errno = error;
    return -1;
  }
  return next(fd, message, flags);
}

extern "C" int io_uring_queue_init_params(unsigned entries, io_uring* ring,
                                          io_uring_params* params) {
  static const auto next = reinterpret_cast<int (*)(unsigned, io_uring*, io_uring_params*)>(
      dlsym(RTLD_NEXT, "io_uring_queue_init_params"));
  const int result = next(entries, ring, params);
  if (result == 0) g_rings[static_cast<unsigned>(ring->ring_fd)] = ring;
  return result;
}

extern "C" void io_uring_queue_exit(io_uring* ring) {
  static const auto next =
      reinterpret_cast<void (*)(io_uring*)>(dlsym(RTLD_NEXT, "io_uring_queue_exit"));
  g_rings.erase(static_cast<unsigned>(ring->ring_fd));
  next(ring);
}

extern "C" int io_uring_enter2(unsigned fd, unsigned submit, unsigned complete, unsigned flags,
                               sigset_t* argument, size_t size) {
  if (g_refuse) {
    for (const auto& [descriptor, ring] : g_rings) {
      if (descriptor == fd || static_cast<unsigned>(ring->enter_ring_fd) == fd) RefuseQueued(*ring);
    }
  }
  const auto result = syscall(__NR_io_uring_enter, fd, submit, complete, flags, argument, size);
  return result < 0 ? -errno : static_cast<int>(result);
}

namespace ringsock::io {

void RefuseSends(std::function<int(bool train)> refuse) { g_refuse = std::move(refuse); }

}  // namespace ringsock::io
