// The memory that sends without a copy leave from: its pages, and registering it.
#include "io/pinned_memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ringsock::io {
namespace {

constexpr size_t kHuge = PinnedMemory::kHugePage;

TEST(PinnedMemoryTest, IsAsLongAsAskedForAndWritable) {
  for (const bool huge : {false, true}) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{100'000}, kHuge, kHuge + 1}) {
      const PinnedMemory memory(size, huge);
      ASSERT_GE(memory.bytes().size(), size);
      const bool zeroed = std::all_of(memory.bytes().begin(), memory.bytes().end(),
                                      [](std::byte b) { return b == std::byte{0}; });
      EXPECT_TRUE(zeroed);
      memset(memory.bytes().data(), 1, memory.bytes().size());
    }
  }
}

TEST(PinnedMemoryTest, HugePagesAreWhole) {
  const PinnedMemory memory(3 * kHuge / 2, /*huge=*/true);
  EXPECT_EQ(memory.bytes().size(), 2 * kHuge);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.bytes().data()) % kHuge, 0u);
}

TEST(PinnedMemoryTest, SmallPagesUnlessAskedFor) {
  EXPECT_EQ(PinnedMemory(kHuge, /*huge=*/false).pages(), PinnedMemory::Pages::kSmall);
}

TEST(PinnedMemoryTest, MuchIsNotTakenOfTheReservedPages) {
  const PinnedMemory memory(PinnedMemory::kMostReserved + 1, /*huge=*/true);
  EXPECT_NE(memory.pages(), PinnedMemory::Pages::kReserved);
}

TEST(PinnedMemoryTest, WithoutAddressSpaceItIsEmpty) {
  const PinnedMemory memory(size_t{1} << 62, /*huge=*/true);
  EXPECT_TRUE(memory.bytes().empty());
}

// Root may lock what it likes, so the child gives that up. Its exit status is what failed.
TEST(PinnedMemoryTest, RegisteringKeepsToTheLimitOfLockedMemory) {
  io_uring ring;
  if (io_uring_queue_init(4, &ring, 0) != 0) GTEST_SKIP() << "no io_uring here";
  io_uring_queue_exit(&ring);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit limit{kHuge, kHuge};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || (geteuid() == 0 && setuid(65533) != 0)) _exit(2);
    // Not every host lets everyone have a ring.
    if (io_uring_queue_init(4, &ring, 0) != 0) _exit(0);
    PinnedMemory large(2 * kHuge, /*huge=*/true);
    if (large.Register(&ring) != ENOMEM) _exit(3);
    PinnedMemory small(kHuge / 4, /*huge=*/false);
    if (small.Register(&ring) != 0) _exit(4);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace ringsock::io
