#include "gateway/counters.h"

#include "absl/strings/str_cat.h"

namespace ringsock::gateway {

const char* CountName(Count count) {
  static constexpr std::array<const char*, kCounts> kNames = {
      "to_wireguard",       "to_wireguard_bytes", "from_wireguard",       "from_wireguard_bytes",
      "confirmed",          "recognised_mac1",    "recognised_index",     "answered_unknown",
      "drop_starting",      "drop_malformed",     "drop_not_for_us",      "drop_unknown_relayed",
      "drop_no_address",    "drop_buffer_full",   "drop_send_error",      "drop_not_wireguard",
      "drop_empty",         "drop_outside_range", "drop_unknown_address", "drop_unknown_peer",
      "drop_searches_full", "drop_kernel",        "drop_truncated",       "pending_addresses",
      "live_addresses",
  };
  const auto index = static_cast<size_t>(count);
  return index < kCounts ? kNames[index] : "?";
}

GatewaySnapshot& GatewaySnapshot::operator+=(const GatewaySnapshot& other) {
  for (size_t i = 0; i < kCounts; ++i) values[i] += other.values[i];
  return *this;
}

std::string GatewaySnapshot::ToString() const {
  std::string text;
  for (size_t i = 0; i < kCounts; ++i) {
    if (values[i] == 0) continue;
    absl::StrAppend(&text, text.empty() ? "" : " ", CountName(static_cast<Count>(i)), "=",
                    values[i]);
  }
  return text;
}

GatewaySnapshot GatewayCounters::Snapshot() const {
  GatewaySnapshot snapshot;
  for (size_t i = 0; i < kCounts; ++i) {
    snapshot.values[i] = cells_[i].load(std::memory_order_relaxed);
  }
  return snapshot;
}

}  // namespace ringsock::gateway
