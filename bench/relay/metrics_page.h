// A relay's own counters, as it publishes them for Prometheus.
#ifndef RINGSOCK_BENCH_RELAY_METRICS_PAGE_H_
#define RINGSOCK_BENCH_RELAY_METRICS_PAGE_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/endpoint.h"

namespace ringsock::bench {

// By name with labels, as written: `x_total{reason="full"}`.
using Metrics = std::map<std::string, double>;

// The text format 0.0.4; lines that are none are passed over.
Metrics ParseMetrics(absl::string_view text);
// GET /metrics over plain HTTP. Blocks for some seconds at most.
absl::StatusOr<Metrics> FetchMetrics(const Endpoint& at);
// What grew of the counters whose name says that something was lost: "drop", "lost", "refused".
Metrics LossesBetween(const Metrics& before, const Metrics& after);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_METRICS_PAGE_H_
