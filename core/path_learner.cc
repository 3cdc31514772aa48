#include "core/path_learner.h"

#include <utility>

namespace ringsock {

bool PathLearner::Learn(Peer* peer, const Endpoint& from, Instant now, PathReport* report) {
  report->key = peer->key();
  report->from = from;
  report->change = peer->addresses().Confirm(from, &report->previous);
  switch (report->change) {
    case PathChange::kUnchanged:
      return false;
    case PathChange::kLowerKept:
      return lower_path_log_.Allow(now);
    case PathChange::kRoamSet:
    case PathChange::kRoamReplaced:
    case PathChange::kRoamCleared:
      if (!roam_log_.Allow(now)) {
        ++roams_left_out_;
        return false;
      }
      report->left_out = std::exchange(roams_left_out_, 0);
      return true;
    case PathChange::kCurrentSet:
    case PathChange::kUpgraded:
      break;
  }
  return true;
}

void PathReports::Push(const PathReport& report) {
  {
    std::lock_guard lock(mutex_);
    if (waiting_.size() == kMaxWaiting) return;
    waiting_.push_back(report);
  }
  control_loop_.Wake();
}

bool PathReports::Pop(PathReport* report) {
  std::lock_guard lock(mutex_);
  if (waiting_.empty()) return false;
  *report = waiting_.front();
  waiting_.pop_front();
  return true;
}

}  // namespace ringsock
