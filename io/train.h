// What every backend does with a train when the kernel does not take it as it is: cut it, replay it
// packet by packet, and remember where trains are not welcome. Pure state machines, no I/O.
#ifndef RINGSOCK_IO_TRAIN_H_
#define RINGSOCK_IO_TRAIN_H_

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/endpoint.h"
#include "io/loop.h"

namespace ringsock::io {

// Whether sending the packets of a refused train one by one can help. EMSGSIZE, on
// older kernels EINVAL: a segment is larger than the path carries; EIO: the device or the route (a
// transform) cannot segment. Anything else (full buffer, no route, forbidden) hits single packets
// as well.
inline bool ReplayCanHelp(int error) {
  return error == EMSGSIZE || error == EINVAL || error == EIO;
}

// The first part of `train` that the kernel can take as one: at most `max_packets` packets and
// kMaxDatagram bytes, at least one packet. Removes it from `*train`. The slab, if any, stays with
// the last part.
TxTrain CutTrain(TxTrain* train, uint32_t max_packets);

// Walks the packets of a train that was refused as a whole. For each packet: send packet(), then
// report what became of it; failures next to each other with one reason are reported as one.
class TrainReplay {
 public:
  struct Packet {
    const std::byte* data;
    uint32_t size;
  };

  TrainReplay() = default;
  // `train` must outlive the replay.
  explicit TrainReplay(const TxTrain* train) : train_(train), packets_(train->packets()) {}

  bool done() const { return next_ == packets_; }
  // Whether a packet left alone: only then was it the train that was refused.
  bool any_sent() const { return sent_; }
  uint32_t index() const { return next_; }
  Packet packet() const;
  // The result of sending packet(): 0 or a positive errno. `report(const SendFailure&)` is called
  // for a run of failures that this result ends.
  template <typename Report>
  void Result(int error, Report&& report) {
    if (failed_ > 0 && error != error_) ReportRun(report);
    ++next_;
    if (error == 0) {
      sent_ = true;
    } else {
      error_ = error;
      ++failed_;
      if (done()) ReportRun(report);
    }
  }

 private:
  template <typename Report>
  void ReportRun(Report&& report) {
    report(SendFailure{train_, next_ - failed_, failed_, error_});
    failed_ = 0;
  }

  const TxTrain* train_ = nullptr;
  uint32_t packets_ = 0;
  uint32_t next_ = 0;
  uint32_t failed_ = 0;  // packets just before next_ that failed with error_
  int error_ = 0;
  bool sent_ = false;
};

// Where a socket must not send trains. One per socket, for the loop's thread.
class GsoMemory {
 public:
  // Remembered for as long as the kernel remembers a path MTU (net.ipv4.route.mtu_expires).
  static constexpr Duration kLifetime = std::chrono::minutes(10);
  static constexpr size_t kSlots = 64;  // destinations; the older of two in one slot is forgotten

  // EIO from so many different destinations is held to be the device's: trains end for all.
  static constexpr uint32_t kEioDestinations = 4;

  explicit GsoMemory(bool enabled) : enabled_(enabled) {}

  // Whether a train of such segments may be sent to `to` in one piece.
  bool Allows(const IpAddress& to, uint32_t segment_size, Instant now) const {
    if (!enabled_) return false;
    return used_ == 0 || AllowsSlow(to, segment_size, now);
  }
  // A train was refused with `error`, and its packets were not. EIO closes this destination to
  // trains, from kEioDestinations of them the whole socket. EMSGSIZE and EINVAL close this
  // destination to segments of that size and larger. All for kLifetime.
  void Learn(int error, const IpAddress& to, uint32_t segment_size, Instant now);
  bool enabled() const { return enabled_; }

 private:
  struct Slot {
    IpAddress to;
    uint32_t limit = 0;  // segments of this size or larger are refused; 0: empty slot
    Instant until{};
  };
  static size_t SlotOf(const IpAddress& to);
  void CountEio(const IpAddress& to, Instant now);
  bool AllowsSlow(const IpAddress& to, uint32_t segment_size, Instant now) const;

  bool enabled_;
  uint32_t used_ = 0;
  std::array<Slot, kSlots> slots_{};
  std::array<IpAddress, kEioDestinations> eio_{};  // different destinations, until eio_until_
  uint32_t eio_count_ = 0;
  Instant eio_until_{};
  bool off_ = false;  // no trains at all, until eio_until_
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_TRAIN_H_
