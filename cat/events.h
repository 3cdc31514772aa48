// What ringsock-cat prints: text for people, or one JSON event a line for scripts.
#ifndef RINGSOCK_CAT_EVENTS_H_
#define RINGSOCK_CAT_EVENTS_H_

#include <cstdint>
#include <cstdio>
#include <mutex>
#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "base/key.h"
#include "core/engine.h"

namespace ringsock::cat {

// A run in numbers.
struct Totals {
  uint64_t sent = 0;      // packets taken by the engine, once per peer
  uint64_t not_sent = 0;  // packets it refused
  uint64_t dropped = 0;   // of those it took, dropped before they left, by the counters
  uint64_t received = 0;
  uint64_t received_bytes = 0;
};

// Writes whole lines; every call is safe from every thread. In text mode packets go to standard
// output and everything else to standard error, so that a pipe carries only what arrived.
class Events {
 public:
  // `out` and `err` stay the caller's.
  Events(bool json, FILE* out, FILE* err) : json_(json), out_(out), err_(err) {}

  void Self(const PublicKey& key, const EngineStatus& status);
  // `peer` is null for an unknown source.
  void Packet(const PublicKey* peer, const Endpoint& from, PathKind path,
              std::span<const std::byte> bytes);
  // The connection to a relay came up, went down, or could not be made.
  void Relay(const RelayStatus& relay);
  // Our own endpoints, and the kind of network, when they have changed. Only as events: people are
  // served by ringsock-netcheck.
  void Endpoints(std::span<const OwnEndpoint> endpoints);
  void Network(const NetInfo& info);
  void Sent(const PublicKey& peer, size_t size, SendResult result);
  void Status(const EngineStatus& status, const CounterSnapshot& counters);
  void Warning(absl::string_view message);
  void Error(absl::string_view message);
  void Summary(const Totals& totals);

 private:
  void Line(FILE* file, const std::string& line);

  const bool json_;
  FILE* const out_;
  FILE* const err_;
  std::mutex mutex_;  // keeps lines whole
};

// "ok", "queue_full", ...
const char* SendResultName(SendResult result);

}  // namespace ringsock::cat

#endif  // RINGSOCK_CAT_EVENTS_H_
