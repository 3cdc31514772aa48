// What a report is made of: figures of several subjects along several axes, with where and how they
// were measured. Kept as JSON, from which the page is drawn again without measuring.
#ifndef RINGSOCK_BENCH_STUDY_H_
#define RINGSOCK_BENCH_STUDY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "bench/statistics.h"

namespace ringsock::bench {

// One subject in one round. Not a number where nothing moved.
struct StudySample {
  double ns_per_packet = 0;  // CPU time of the measured side
  double packets_per_second = 0;
  double busy = 0;  // share of the measured cores' time
  uint64_t sent = 0;
  uint64_t lost = 0;
};

struct StudySubject {
  std::string name;   // as --subjects takes it
  bool bare = false;  // a loop written by hand
  std::vector<StudySample> rounds;
  std::string error;  // why there are no (more) rounds

  Summary NsPerPacket() const;
  Summary PacketsPerSecond() const;
  Summary Busy() const;
  double LostShare() const;  // of all packets that were sent
};

// One place on an axis.
struct StudyPoint {
  double x = 0;
  std::string label;    // of the point, for people
  std::string traffic;  // "forward, 1400 B, trains of 46, 64 peers, loopback, 1 shard"
  double size = 0;      // bytes of a datagram, the mean if they differ
  std::string command;  // that measures this point alone; empty: the report only
  std::string error;    // why nothing could be measured
  std::vector<StudySubject> subjects;

  // The loop written by hand with the least CPU per packet (median); null if there is none.
  const StudySubject* BestBare() const;
  const StudySubject* Find(absl::string_view name) const;
};
// By round: CPU per packet of `subject` over that of `best`. Below 1, `subject` is cheaper.
Summary CostRatio(const StudySubject& subject, const StudySubject& best);

struct StudyChart {
  std::string id;  // "train", as --only takes it
  std::string title;
  std::string text;  // what it shows and how to read it
  std::string x_label;
  bool bars = false;   // points are panels of bars, not places along a line
  bool log_x = false;  // points are spread by the logarithm of x
  std::vector<StudyPoint> points;
};

struct Study {
  std::string date;  // UTC, ISO 8601
  std::string plan;
  std::string machine;
  std::string kernel;
  uint32_t cores = 0;
  std::vector<int> load_cores;
  std::vector<int> subject_cores;
  uint32_t receive_buffer = 0;  // bytes granted per socket
  uint32_t send_buffer = 0;
  uint32_t rounds = 0;
  double seconds = 0;
  double warmup = 0;
  std::string engine_options;
  std::string command;  // that makes it
  std::vector<StudyChart> charts;

  const StudyChart* Find(absl::string_view id) const;
};

std::string StudyToJson(const Study& study);
// Errors name what is wrong and where. Figures that are null are not numbers; unknown fields are
// left aside.
absl::StatusOr<Study> StudyFromJson(const std::string& json);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_STUDY_H_
