// What a hand-written loop needs to know of a benchmark's traffic.
#ifndef RINGSOCK_BENCH_ROUTES_H_
#define RINGSOCK_BENCH_ROUTES_H_

#include "bench/baseline/baseline.h"
#include "bench/subject.h"

namespace ringsock::bench {

RouteTable MakeRoutes(const SubjectConfig& config);
Source MakeSource(const SubjectConfig& config);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_ROUTES_H_
