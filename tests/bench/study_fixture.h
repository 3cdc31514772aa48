// A study with made-up figures.
#ifndef RINGSOCK_TESTS_BENCH_STUDY_FIXTURE_H_
#define RINGSOCK_TESTS_BENCH_STUDY_FIXTURE_H_

#include <initializer_list>
#include <string>

#include "bench/study.h"

namespace ringsock::bench {

inline StudySubject MadeSubject(const std::string& name, std::initializer_list<double> costs) {
  StudySubject subject = {
      .name = name, .bare = name.find("ringsock") == std::string::npos, .rounds = {}, .error = {}};
  for (const double cost : costs) {
    subject.rounds.push_back({.ns_per_packet = cost,
                              .packets_per_second = 1e9 / cost,
                              .busy = 0.5,
                              .sent = 1000,
                              .lost = 0});
  }
  return subject;
}

inline StudyPoint MadePoint(double x, const std::string& label) {
  return {
      .x = x,
      .label = label,
      .traffic = "forward, 1400 B, trains of 46, 64 peers, veth, 1 shard",
      .size = 1400,
      .command = "ringsock-bench forward --train 46",
      .error = {},
      .subjects = {MadeSubject("recvfrom", {5000, 5100, 4900}),
                   MadeSubject("recvmmsg+gro:4", {260, 250, 240}),
                   MadeSubject("recvmmsg+gro:8", {200, 210, 190}),
                   MadeSubject("uring", {300, 310, 305}), MadeSubject("ringsock", {220, 210, 228}),
                   MadeSubject("ringsock-mmsg", {250, 260, 270})}};
}

inline Study MadeStudy() {
  return {.date = "2026-01-02T03:04:05Z",
          .plan = "quick",
          .machine = "A Machine",
          .kernel = "Linux 6.18",
          .cores = 2,
          .load_cores = {0},
          .subject_cores = {1},
          .receive_buffer = 14'680'064,
          .send_buffer = 14'680'064,
          .rounds = 3,
          .seconds = 0.25,
          .warmup = 0.1,
          .engine_options = "gso=1 gro=1",
          .command = "ringsock-bench report --plan quick --out DIR",
          .charts = {{.id = "main",
                      .title = "Cost of a packet",
                      .text = "One core forwards.",
                      .x_label = "ns",
                      .bars = true,
                      .log_x = false,
                      .points = {MadePoint(0, "1400 B"), MadePoint(1, "64 B")}},
                     {.id = "train",
                      .title = "Length of trains",
                      .text = "Longer is better.",
                      .x_label = "packets in a train",
                      .bars = false,
                      .log_x = true,
                      .points = {MadePoint(1, "1"), MadePoint(46, "46")}}}};
}

}  // namespace ringsock::bench

#endif  // RINGSOCK_TESTS_BENCH_STUDY_FIXTURE_H_
