// Which peer did our WireGuard give a session index to? Every message of a session that a peer
// sends back carries that index in clear, so a packet from an unknown source can be told to be,
// most likely, that peer's. Only a hint: what proves it is WireGuard's answer (gateway/gateway.h).
//
// Written where WireGuard's handshake messages pass, read where packets of unknown sources arrive;
// these may be different shards. So: a fixed array of atomic words without any lock. An entry that
// is lost costs one recognition by mac1 more; an entry is never wrong, because it holds the whole
// index, and WireGuard tells us whenever it gives an index out again.
#ifndef RINGSOCK_GATEWAY_SESSION_INDEX_H_
#define RINGSOCK_GATEWAY_SESSION_INDEX_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "gateway/mac1.h"

namespace ringsock::gateway {

class SessionIndex {
 public:
  // One bucket of 8 per peer, rounded up. A peer has at most three live indices (the last, the
  // current and the next session), renewed every two minutes, so an index is pushed out before its
  // session ends only if 8 more fall into its bucket within three minutes: about 1 in 10,000.
  explicit SessionIndex(size_t peers);

  // Any thread, wait-free. The newest replaces the oldest of its bucket.
  void Record(uint32_t index, PeerIndex peer);
  // Any thread, wait-free. kNoPeer if not known.
  PeerIndex Find(uint32_t index) const;

 private:
  static constexpr size_t kWays = 8;
  // index << 32 | peer + 1; 0 is empty. The newest first.
  struct alignas(64) Bucket {
    std::array<std::atomic<uint64_t>, kWays> entries{};
  };
  size_t BucketOf(uint32_t index) const;

  size_t mask_;
  std::unique_ptr<Bucket[]> buckets_;
};

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_SESSION_INDEX_H_
