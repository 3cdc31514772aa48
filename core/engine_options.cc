// What an engine's options may be, and how they are shown.
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/engine.h"
#include "core/engine_internal.h"

namespace ringsock {

uint32_t EngineOptions::ShardCount() const {
  if (shards != 0) return shards;
  return std::max<uint32_t>(1, static_cast<uint32_t>(internal::AllowedCores().size()));
}

std::string RelayOptions::ToString() const {
  const auto ms = [](Duration time) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
  };
  return absl::StrCat("relay.ring_packets=", ring_packets, " relay.queue_bytes=", queue_bytes,
                      " relay.queue_age_ms=", ms(queue_age),
                      " relay.idle_timeout_ms=", ms(idle_timeout),
                      " relay.reverse_routes=", reverse_routes, " relay.home=", home,
                      " relay.roots_file=", roots_file.empty() ? "system" : roots_file);
}

std::string NetworkOptions::ToString() const {
  return absl::StrCat(
      "network.netcheck=", netcheck, " network.ignored_interfaces=",
      ignored_interfaces.empty() ? "none" : absl::StrJoin(ignored_interfaces, ","),
      " network.watch_links=", watch_links, " network.port_mapping=", port_mapping,
      " network.min_rebind_interval_ms=",
      std::chrono::duration_cast<std::chrono::milliseconds>(min_rebind_interval).count());
}

std::string EngineOptions::ToString() const {
  const char* backend = io.backend == io::Backend::kAuto    ? "auto"
                        : io.backend == io::Backend::kUring ? "io_uring"
                                                            : "mmsg";
  return absl::StrCat(
      "port=", port, " ipv4=", ipv4 ? bind_v4.ToString() : "off",
      " ipv6=", ipv6 ? bind_v6.ToString() : "off", " shards=", shards, " pin_threads=", pin_threads,
      " steering=", io::SteeringName(steering), " socket_buffer=", socket_buffer,
      " max_peers=", max_peers, " sender_ring_packets=", sender_ring_packets,
      " max_senders=", max_senders, " ", relay.ToString(), " ", network.ToString(),
      " backend=", backend, " gso=", io.gso, " gro=", io.gro, " zero_copy=", io.zero_copy,
      " rx_buffers=", io.rx_buffers, " rx_batch=", io.rx_batch, " tx_queue=", io.tx_queue,
      " tx_slabs=", io.tx_slabs,
      " spin_us=", std::chrono::duration_cast<std::chrono::microseconds>(io.spin).count());
}

namespace internal {
namespace {

// Bounds within which no allocation is absurd. Those of the loop are io_uring's.
absl::Status CheckSizes(const EngineOptions& options) {
  const struct {
    const char* name;
    uint64_t value, min, max;
  } sizes[] = {
      {"max_peers", options.max_peers, 1, (uint64_t{1} << 31) - 1},
      {"sender_ring_packets", options.sender_ring_packets, 1, 65536},
      {"relay.ring_packets", options.relay.ring_packets, 1, 65536},
      // From one packet of the largest size to what nobody wants to wait for.
      {"relay.queue_bytes", options.relay.queue_bytes, 1 << 17, 1 << 30},
      {"io.rx_buffers", options.io.rx_buffers, 1, 32768},
      {"io.rx_batch", options.io.rx_batch, 1, 1024},
      {"io.tx_queue", options.io.tx_queue, 1, 16384},
      {"io.tx_slabs", options.io.tx_slabs, 0, 4096},
  };
  for (const auto& size : sizes) {
    if (size.value < size.min || size.value > size.max) {
      return absl::InvalidArgumentError(
          absl::StrCat(size.name, ": ", size.value, " is not ", size.min, " to ", size.max));
    }
  }
  // Each of them reads the peer tables, and an engine may start while one before it is still there.
  constexpr uint64_t kMost = Quiescence::kMaxReaders / 2 - kOtherReaders;
  const uint64_t shards = options.ShardCount();
  if (shards + options.max_senders > kMost) {
    return absl::InvalidArgumentError(absl::StrCat("shards and max_senders: ", shards, " and ",
                                                   options.max_senders, " are more than ", kMost,
                                                   " together: lower one of them"));
  }
  return absl::OkStatus();
}

}  // namespace

// The cores this process may run on.
std::vector<int> AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
  return cores;
}

absl::Status CheckOptions(const EngineOptions& options, const Handler* handler) {
  if (handler == nullptr) return absl::InvalidArgumentError("handler is null");
  if (!options.ipv4 && !options.ipv6) {
    return absl::InvalidArgumentError("ipv4 and ipv6 are both off: nothing to listen on");
  }
  if (options.ipv4 && !options.bind_v4.IsV4()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bind_v4 ", options.bind_v4.ToString(), " is not an IPv4 address"));
  }
  if (options.ipv6 && options.bind_v6.IsV4()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bind_v6 ", options.bind_v6.ToString(), " is not an IPv6 address"));
  }
  if (options.relay.queue_age <= Duration::zero()) {
    return absl::InvalidArgumentError("relay.queue_age: must be more than 0");
  }
  if (options.relay.idle_timeout <= Duration::zero()) {
    return absl::InvalidArgumentError("relay.idle_timeout: must be more than 0");
  }
  if (options.network.min_rebind_interval < std::chrono::milliseconds(1) ||
      options.network.min_rebind_interval > std::chrono::hours(1)) {
    return absl::InvalidArgumentError("network.min_rebind_interval: must be 1 ms to 1 hour");
  }
  return CheckSizes(options);
}

}  // namespace internal
}  // namespace ringsock
