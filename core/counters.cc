#include "core/counters.h"

#include "absl/strings/str_cat.h"

namespace ringsock {

const char* PathKindName(PathKind kind) {
  switch (kind) {
    case PathKind::kDirectV4:
      return "direct4";
    case PathKind::kDirectV6:
      return "direct6";
    case PathKind::kRelay:
      return "relay";
    case PathKind::kCount:
      break;
  }
  return "?";
}

const char* DropName(Drop drop) {
  static constexpr std::array<const char*, kDrops> kNames = {
      "rx_empty",        "rx_truncated",    "rx_stun",           "rx_kernel",
      "rx_queue_full",   "rx_peer_gone",    "rx_relay_full",     "rx_relay_self",
      "rx_rebind",       "tx_unknown_peer", "tx_no_destination", "tx_no_socket",
      "tx_queue_full",   "tx_no_relay",     "tx_relay_full",     "tx_relay_aged",
      "tx_relay_rate",   "tx_relay_broken", "tx_too_large",      "tx_relay_not_allowed",
      "tx_message_size", "tx_buffer_full",  "tx_unreachable",    "tx_refused",
      "tx_error",        "closed",
  };
  const auto index = static_cast<size_t>(drop);
  return index < kDrops ? kNames[index] : "?";
}

CounterSnapshot& CounterSnapshot::operator+=(const CounterSnapshot& other) {
  for (size_t i = 0; i < kPathKinds; ++i) {
    paths[i].rx_packets += other.paths[i].rx_packets;
    paths[i].rx_bytes += other.paths[i].rx_bytes;
    paths[i].tx_packets += other.paths[i].tx_packets;
    paths[i].tx_bytes += other.paths[i].tx_bytes;
  }
  for (size_t i = 0; i < kDrops; ++i) drops[i] += other.drops[i];
  rx_unknown_source += other.rx_unknown_source;
  sprays += other.sprays;
  tx_zero_copy += other.tx_zero_copy;
  tx_zero_copy_copied += other.tx_zero_copy_copied;
  return *this;
}

std::string CounterSnapshot::ToString() const {
  std::string text;
  const auto append = [&text](absl::string_view name, uint64_t value) {
    if (value != 0) absl::StrAppend(&text, text.empty() ? "" : " ", name, "=", value);
  };
  for (size_t i = 0; i < kPathKinds; ++i) {
    const char* name = PathKindName(static_cast<PathKind>(i));
    append(absl::StrCat(name, ".rx_packets"), paths[i].rx_packets);
    append(absl::StrCat(name, ".rx_bytes"), paths[i].rx_bytes);
    append(absl::StrCat(name, ".tx_packets"), paths[i].tx_packets);
    append(absl::StrCat(name, ".tx_bytes"), paths[i].tx_bytes);
  }
  append("rx_unknown_source", rx_unknown_source);
  append("sprays", sprays);
  append("tx_zero_copy", tx_zero_copy);
  append("tx_zero_copy_copied", tx_zero_copy_copied);
  for (size_t i = 0; i < kDrops; ++i) append(DropName(static_cast<Drop>(i)), drops[i]);
  return text;
}

CounterSnapshot ShardCounters::Snapshot() const {
  CounterSnapshot copy;
  const auto read = [](const Cell& cell) { return cell.load(std::memory_order_relaxed); };
  for (size_t i = 0; i < kPathKinds; ++i) {
    copy.paths[i] = {read(paths_[i].rx_packets), read(paths_[i].rx_bytes),
                     read(paths_[i].tx_packets), read(paths_[i].tx_bytes)};
  }
  for (size_t i = 0; i < kDrops; ++i) copy.drops[i] = read(drops_[i]);
  copy.rx_unknown_source = read(rx_unknown_source_);
  copy.sprays = read(sprays_);
  copy.tx_zero_copy = read(zero_copy_);
  copy.tx_zero_copy_copied = read(zero_copy_copied_);
  return copy;
}

}  // namespace ringsock
