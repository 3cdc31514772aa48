// What is measured in lockstep with its load: an engine's shards or hand-written loops, run by
// whoever calls Turn().
#ifndef RINGSOCK_BENCH_LOCKSTEP_SUBJECT_H_
#define RINGSOCK_BENCH_LOCKSTEP_SUBJECT_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/subject.h"

namespace ringsock::bench {

// The threads that it would have are places: each is for one caller's thread at a time.
class LockstepSubject {
 public:
  // A place for each of the cores in `config`, all on one port; with several, the places share it
  // out by io::Steering::kSource. In the calling thread's network namespace.
  static absl::StatusOr<std::unique_ptr<LockstepSubject>> Create(const SubjectConfig& config);
  virtual ~LockstepSubject() = default;

  virtual uint16_t port() const = 0;
  // The first call for a place, on the thread that will run it: rings have to be made there. More
  // than once does no harm.
  virtual absl::Status Start(uint32_t place) = 0;
  // Handles what has arrived at a place. May wait some milliseconds if it is nothing.
  virtual void Turn(uint32_t place) = 0;
  // Packets that a place has handed to the kernel; with Mode::kReceive, that it has taken from it.
  virtual uint64_t Done(uint32_t place) const = 0;
  // The last call for a place, on the thread that has run it. More than once does no harm.
  virtual void Close(uint32_t place) = 0;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_LOCKSTEP_SUBJECT_H_
