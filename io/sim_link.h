// One direction of a simulated link: delay, jitter, loss, duplication, reordering, rate, queue and
// MTU.
#ifndef RINGSOCK_IO_SIM_LINK_H_
#define RINGSOCK_IO_SIM_LINK_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/random.h"
#include "io/sim_types.h"

namespace ringsock::io {

// The default carries everything at once.
struct LinkOptions {
  Duration delay{};   // added to every datagram
  Duration jitter{};  // plus a uniform part of this; does not reorder
  double loss = 0;    // probability; of a fragmented datagram, per fragment
  double duplicate = 0;
  double reorder = 0;  // probability of being held back by reorder_delay, so that others overtake
  Duration reorder_delay = std::chrono::milliseconds(1);
  uint64_t bytes_per_second = 0;  // 0: no limit
  size_t queue_bytes = 0;         // that may wait for the rate; 0: no limit
  size_t mtu = 0;                 // bytes with IP header; 0: no limit
  bool fragment = false;          // larger ones go in pieces instead of being dropped
};

// May be changed while datagrams are under way: what has entered the link is not affected.
class SimLink {
 public:
  struct Outcome {
    SimEvent event = SimEvent::kDelivered;  // or kDuplicated, or the reason of the loss
    std::array<Instant, 2> arrivals{};
    size_t copies = 0;
  };

  LinkOptions options;

  Outcome Transmit(size_t wire_size, Instant now, Random* random);
  // Whether a datagram of this size is refused because of its size.
  bool TooBig(size_t wire_size) const {
    return options.mtu != 0 && wire_size > options.mtu && !options.fragment;
  }

 private:
  Instant free_{Instant::min()};          // when the last byte of the queue has left
  Instant last_arrival_{Instant::min()};  // of those that keep their order
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SIM_LINK_H_
