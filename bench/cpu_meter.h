// CPU time of the measured side: its process, and the kernel's work on its cores.
#ifndef RINGSOCK_BENCH_CPU_METER_H_
#define RINGSOCK_BENCH_CPU_METER_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace ringsock::bench {

// Ids of the kernel threads whose name starts with `prefix`, such as "ksoftirqd/1".
std::vector<int> FindKernelThreads(const std::string& prefix);

// What /proc/stat says of some cores, in nanoseconds (it counts in ticks of 10 ms).
struct CoreTimes {
  uint64_t busy = 0;       // all but idle and waiting for I/O
  uint64_t interrupt = 0;  // of it: hard and soft interrupts
  uint64_t stolen = 0;     // the hypervisor ran something else
};
CoreTimes ParseProcStat(const std::string& text, const std::vector<int>& cores);

class CpuMeter {
 public:
  // `process` runs on `cores`; `kernel_threads` count as its own, and so does ksoftirqd of the
  // cores.
  CpuMeter(pid_t process, std::vector<int> cores, std::vector<int> kernel_threads);

  struct Reading {
    Instant at;
    uint64_t process = 0;         // nanoseconds of all threads of the process
    uint64_t kernel_threads = 0;  // nanoseconds
    CoreTimes cores;
  };
  // A system call or two per thread; meant for the ends of a measurement.
  Reading Read() const;

  // Nanoseconds of CPU the measured side used from `a` to `b`. Soft interrupts run in the context
  // of a thread and are part of its time, unless the kernel accounts them apart.
  uint64_t Used(const Reading& a, const Reading& b) const;

 private:
  pid_t process_;
  std::vector<int> cores_;
  std::vector<int> kernel_threads_;
  bool interrupts_apart_;  // CONFIG_IRQ_TIME_ACCOUNTING
};

// CONFIG_IRQ_TIME_ACCOUNTING, from the running kernel's published configuration; false if unknown.
bool KernelAccountsInterruptsApart();

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_CPU_METER_H_
