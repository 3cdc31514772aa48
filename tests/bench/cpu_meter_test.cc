// Reading /proc/stat, and that the meter sees a process work.
#include "bench/cpu_meter.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace ringsock::bench {
namespace {

constexpr char kStat[] =
    "cpu  100 0 100 100 0 0 0 0 0 0\n"
    "cpu0 1 2 3 400 5 6 7 8 0 0\n"
    "cpu1 10 20 30 40 50 60 70 80 0 0\n"
    "cpu10 1000 0 0 0 0 0 0 0 0 0\n"
    "intr 5\n";

TEST(ProcStatTest, SumsTheWantedCores) {
  const uint64_t tick = 1'000'000'000 / sysconf(_SC_CLK_TCK);
  const CoreTimes one = ParseProcStat(kStat, {1});
  EXPECT_EQ(one.busy, (10 + 20 + 30 + 60 + 70) * tick);
  EXPECT_EQ(one.interrupt, (60 + 70) * tick);
  EXPECT_EQ(one.stolen, 80 * tick);
  EXPECT_EQ(ParseProcStat(kStat, {0, 1}).busy, one.busy + (1 + 2 + 3 + 6 + 7) * tick);
}

TEST(ProcStatTest, DamagedInputIsZero) {
  EXPECT_EQ(ParseProcStat("", {0}).busy, 0u);
  EXPECT_EQ(ParseProcStat("cpu0\ncpu0 x y\n", {0}).busy, 0u);
  EXPECT_EQ(ParseProcStat(kStat, {7}).busy, 0u);
}

TEST(CpuMeterTest, SeesThisProcessWork) {
  const CpuMeter meter(getpid(), {0}, {});
  const CpuMeter::Reading before = meter.Read();
  volatile uint64_t sink = 0;
  CpuMeter::Reading after = before;
  // Bounded by work, not by time: the clock of the process moves only while it runs.
  for (int i = 0; i < 100'000 && after.process < before.process + 1'000'000; ++i) {
    for (int j = 0; j < 10'000; ++j) sink = sink + 1;
    after = meter.Read();
  }
  EXPECT_GE(meter.Used(before, after), 1'000'000u);
}

TEST(CpuMeterTest, AProcessThatIsGoneUsesNothing) {
  const CpuMeter meter(0x7ffffff0, {}, {0x7ffffff1});
  const CpuMeter::Reading reading = meter.Read();
  EXPECT_EQ(reading.process, 0u);
  EXPECT_EQ(reading.kernel_threads, 0u);
}

TEST(FindKernelThreadsTest, FindsByPrefix) {
  EXPECT_TRUE(FindKernelThreads("no thread has this name").empty());
}

}  // namespace
}  // namespace ringsock::bench
