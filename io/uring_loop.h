// The loop on io_uring: multishot receives into one buffer ring, trains as SENDMSG requests, one
// io_uring_enter for everything that waits.
#ifndef RINGSOCK_IO_URING_LOOP_H_
#define RINGSOCK_IO_URING_LOOP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "io/loop.h"

namespace ringsock::io {

// Errors are those of ProbeUring() (io/uring.h), out of memory, and options out of range.
//
// Close sockets on the loop's thread: the kernel lets go of a receive only there. A loop destroyed
// by another thread gives its ports back some tens of milliseconds later.
absl::StatusOr<std::unique_ptr<Loop>> MakeUringLoop(const LoopOptions& options);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_URING_LOOP_H_
