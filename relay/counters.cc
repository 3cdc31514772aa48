#include "relay/counters.h"

namespace ringsock::relay {
namespace {

constexpr CounterInfo kTable[] = {
#define RINGSOCK_X(field, family, label, help) {family, label, help, &Stats::field},
    RINGSOCK_RELAY_COUNTERS(RINGSOCK_X)
#undef RINGSOCK_X
};

}  // namespace

void Stats::Add(const Counters& counters) {
#define RINGSOCK_X(field, family, label, help) field += counters.field.value();
  RINGSOCK_RELAY_COUNTERS(RINGSOCK_X)
#undef RINGSOCK_X
}

std::span<const CounterInfo> CounterTable() { return kTable; }

}  // namespace ringsock::relay
