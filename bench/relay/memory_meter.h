// Memory of a process, and the kernel's for its connections.
#ifndef RINGSOCK_BENCH_RELAY_MEMORY_METER_H_
#define RINGSOCK_BENCH_RELAY_MEMORY_METER_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace ringsock::bench {

// In bytes.
struct MemoryReading {
  uint64_t rss = 0;          // resident
  uint64_t pss = 0;          // resident, what is shared counted by its share
  uint64_t page_tables = 0;  // of the process
  // Of the whole host: slabs (sockets, files, epoll and ring entries), and TCP's buffers. Both ends
  // of a connection on loopback are in it.
  uint64_t slab = 0;
  uint64_t tcp_buffers = 0;
};

// 0 for what cannot be read.
MemoryReading ReadMemory(pid_t process);

// "Rss:   12 kB" of a text of such lines, in bytes; 0 if there is no such line.
uint64_t FindKilobytes(absl::string_view text, absl::string_view name);
// "TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3" of /proc/net/sockstat: its mem, in bytes.
uint64_t TcpMemory(absl::string_view sockstat);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_MEMORY_METER_H_
