// The loop for hosts that forbid io_uring: recvmmsg with UDP_GRO, sendmmsg with UDP_SEGMENT, ppoll.
#ifndef RINGSOCK_IO_MMSG_LOOP_H_
#define RINGSOCK_IO_MMSG_LOOP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "io/loop.h"

namespace ringsock::io {

// Never zero copy, whatever the options say. Fails only when descriptors or memory run out.
absl::StatusOr<std::unique_ptr<Loop>> MakeMmsgLoop(const LoopOptions& options);

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_MMSG_LOOP_H_
