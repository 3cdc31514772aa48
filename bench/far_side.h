// The far side of relayed traffic: a relay server with TLS and an engine behind it, in a process of
// their own beside the load. What the measured engine sends to the relay, the far engine sends on
// over UDP to the peer it is meant for, so that the load sees it arrive like everything else.
#ifndef RINGSOCK_BENCH_FAR_SIDE_H_
#define RINGSOCK_BENCH_FAR_SIDE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/subject.h"

namespace ringsock::bench {

class FarSide {
 public:
  // `peers`: of the load, by number. It runs on `cores`. The caller must be the only thread of its
  // process.
  static absl::StatusOr<std::unique_ptr<FarSide>> Start(uint32_t percent,
                                                        const std::vector<Endpoint>& peers,
                                                        const std::vector<int>& cores);
  // What the measured side has to know.
  std::shared_ptr<const RelayPart> part() const { return part_; }

 private:
  FarSide() = default;

  std::shared_ptr<const RelayPart> part_;
  std::unique_ptr<SubjectProcess> process_;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_FAR_SIDE_H_
