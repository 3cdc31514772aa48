// What a report is made of: what is worked out from the figures.
#include "bench/study.h"

#include <algorithm>
#include <functional>

namespace ringsock::bench {
namespace {

Summary OfRounds(const StudySubject& subject, double StudySample::*figure) {
  std::vector<double> values;
  for (const StudySample& sample : subject.rounds) values.push_back(sample.*figure);
  return Summarize(values);
}

}  // namespace

Summary StudySubject::NsPerPacket() const { return OfRounds(*this, &StudySample::ns_per_packet); }
Summary StudySubject::PacketsPerSecond() const {
  return OfRounds(*this, &StudySample::packets_per_second);
}
Summary StudySubject::Busy() const { return OfRounds(*this, &StudySample::busy); }

double StudySubject::LostShare() const {
  uint64_t sent = 0;
  uint64_t lost = 0;
  for (const StudySample& sample : rounds) {
    sent += sample.sent;
    lost += sample.lost;
  }
  return sent == 0 ? 0 : static_cast<double>(lost) / static_cast<double>(sent);
}

const StudySubject* StudyPoint::BestBare() const {
  const StudySubject* best = nullptr;
  double least = 0;
  for (const StudySubject& subject : subjects) {
    const Summary cost = subject.NsPerPacket();
    if (!subject.bare || cost.count == 0) continue;
    if (best == nullptr || cost.median < least) {
      best = &subject;
      least = cost.median;
    }
  }
  return best;
}

const StudySubject* StudyPoint::Find(absl::string_view name) const {
  for (const StudySubject& subject : subjects) {
    if (subject.name == name) return &subject;
  }
  return nullptr;
}

Summary CostRatio(const StudySubject& subject, const StudySubject& best) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(subject.rounds.size(), best.rounds.size()); ++i) {
    ratios.push_back(subject.rounds[i].ns_per_packet / best.rounds[i].ns_per_packet);
  }
  return Summarize(ratios);
}

const StudyChart* Study::Find(absl::string_view id) const {
  for (const StudyChart& chart : charts) {
    if (chart.id == id) return &chart;
  }
  return nullptr;
}

}  // namespace ringsock::bench
