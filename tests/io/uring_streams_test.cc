// Streams on io_uring beside the common suites: what the rings look like, which this program's own
// io_uring_enter2 shows, standing before that of liburing.
#include "io/uring_streams.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <vector>

#include "tests/io/stream_world.h"

namespace {

std::map<unsigned, const io_uring*> g_rings;  // by descriptor
unsigned g_overflows = 0;                     // times that completions did not fit

}  // namespace

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
  const auto result = syscall(__NR_io_uring_enter, fd, submit, complete, flags, argument, size);
  const int error = errno;
  const auto ring = g_rings.find(fd);
  if (ring != g_rings.end() &&
      (IO_URING_READ_ONCE(*ring->second->sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0) {
    ++g_overflows;
  }
  return result < 0 ? -error : static_cast<int>(result);
}

namespace ringsock::io {
namespace {

class UringStreamsTest : public StreamTest {};

std::vector<WorldParam> UringWorlds() {
  std::vector<WorldParam> result = WorldsAndFamilies();
  std::erase_if(result, [](const WorldParam& param) { return param.factory.name != "Uring"; });
  return result;
}
INSTANTIATE_TEST_SUITE_P(All, UringStreamsTest, testing::ValuesIn(UringWorlds()), ParamName);

bool AllowFiles(rlim_t files) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
  limit.rlim_cur = std::max(limit.rlim_cur, std::min(files, limit.rlim_max));
  return limit.rlim_cur >= files && setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

TEST_P(UringStreamsTest, AllStreamsMayWriteInOneTurn) {
  constexpr size_t kStreams = 1200;  // the completion queue has 1,024 entries
  if (!AllowFiles(2 * kStreams + 100)) GTEST_SKIP() << "too few descriptors allowed";
  LoopOptions options;
  options.tx_queue = options.tx_slabs = options.rx_buffers = options.stream_buffers = 1;
  Open(options);
  Listen();
  std::vector<std::unique_ptr<StreamEnd>> ends;
  for (size_t i = 0; i < kStreams; ++i) ends.push_back(Connect());
  const auto stands = [](const auto& end) { return end->connects == 1; };
  ASSERT_TRUE(Until(
      [&] {
        return std::all_of(ends.begin(), ends.end(), stands) && acceptor_.ends.size() == kStreams;
      },
      "all stand"));
  Settle();
  const auto all_taken = [&] {
    return std::all_of(ends.begin(), ends.end(), [](const auto& end) {
      return end->loop->Stats(end->id).tx_bytes == end->sent;
    });
  };
  const Instant limit = SystemClock().Now() + std::chrono::seconds(20);
  g_overflows = 0;
  for (int round = 0; round < 3; ++round) {
    for (const auto& end : ends) ASSERT_EQ(end->SendNext(100), 100u);
    while (!all_taken() && SystemClock().Now() < limit) a_->Poll(SystemClock().Now());
    ASSERT_TRUE(all_taken());
  }
  EXPECT_EQ(g_overflows, 0u);
  const auto all_there = [&] {
    return std::all_of(acceptor_.ends.begin(), acceptor_.ends.end(),
                       [](const auto& end) { return end->received == 300 && end->in_order; });
  };
  EXPECT_TRUE(Until(all_there, "all arrives"));
}

}  // namespace
}  // namespace ringsock::io
