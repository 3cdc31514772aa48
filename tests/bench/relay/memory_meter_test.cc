// Reading what /proc says of memory.
#include "bench/relay/memory_meter.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

namespace ringsock::bench {
namespace {

TEST(MemoryMeterTest, LinesInKilobytes) {
  const char text[] = "Rss:                1234 kB\nPss:  5 kB\nPss_Dirty:  9 kB\nSlab: x kB\n";
  EXPECT_EQ(FindKilobytes(text, "Rss"), 1234u * 1024);
  EXPECT_EQ(FindKilobytes(text, "Pss"), 5u * 1024);
  EXPECT_EQ(FindKilobytes(text, "Slab"), 0u);
  EXPECT_EQ(FindKilobytes(text, "Ps"), 0u);
  EXPECT_EQ(FindKilobytes("", "Rss"), 0u);
}

TEST(MemoryMeterTest, TcpPages) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  EXPECT_EQ(TcpMemory("sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3\nUDP: mem 4\n"),
            3 * page);
  EXPECT_EQ(TcpMemory("TCP: mem"), 0u);
  EXPECT_EQ(TcpMemory("UDP: mem 4\n"), 0u);
}

TEST(MemoryMeterTest, SeesThisProcessGrow) {
  const MemoryReading before = ReadMemory(getpid());
  ASSERT_GT(before.rss, 0u);
  constexpr size_t kSize = 64 << 20;
  const std::vector<char> memory(kSize, 1);
  const MemoryReading after = ReadMemory(getpid());
  EXPECT_GT(after.rss, before.rss + kSize / 2);
  EXPECT_GT(after.pss, before.pss + kSize / 2);
  EXPECT_EQ(memory[kSize / 2], 1);
}

TEST(MemoryMeterTest, NoSuchProcess) { EXPECT_EQ(ReadMemory(0x7ffffff0).rss, 0u); }

}  // namespace
}  // namespace ringsock::bench
