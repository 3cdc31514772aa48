// What a run of the benchmark says to people.
#include "bench/report.h"

#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "bench/sockets.h"
#include "bench/statistics.h"

namespace ringsock::bench {
namespace {

Summary OfRounds(const SubjectResult& subject, const std::function<double(const Round&)>& figure) {
  std::vector<double> values;
  for (const Round& round : subject.rounds) values.push_back(figure(round));
  return Summarize(values);
}

Summary NsPerPacket(const SubjectResult& subject) { return OfRounds(subject, &Round::NsPerPacket); }

// Three significant digits at most, for a column of 6.
std::string Short(double value) {
  if (value >= 100) return absl::StrFormat("%.0f", value);
  if (value >= 10) return absl::StrFormat("%.1f", value);
  return absl::StrFormat("%.2f", value);
}

std::string Microseconds(const SubjectResult& subject, uint64_t Round::*figure) {
  const Summary summary =
      OfRounds(subject, [=](const Round& round) { return static_cast<double>(round.*figure); });
  return summary.median == 0 ? "-" : Short(summary.median / 1000);
}

std::string Range(const Summary& summary) {
  return absl::StrCat(Short(summary.min), "-", Short(summary.max));
}

// True for a batch size that another one of the same loop beats.
bool IsBeaten(const Scenario& scenario, size_t index) {
  const SubjectResult& subject = scenario.subjects[index];
  if (!subject.spec.variant.empty()) return false;
  for (size_t i = 0; i < scenario.subjects.size(); ++i) {
    const SubjectResult& other = scenario.subjects[i];
    if (!other.spec.variant.empty()) continue;
    if (i == index || other.spec.kind != subject.spec.kind || other.rounds.empty()) continue;
    if (subject.rounds.empty()) return true;
    const double mine = NsPerPacket(subject).median;
    const double theirs = NsPerPacket(other).median;
    if (theirs < mine || (theirs == mine && i < index)) return true;
  }
  return false;
}

std::string FormatRow(const Scenario& scenario, const SubjectResult& subject, int best) {
  const Summary rate = OfRounds(subject, &Round::PacketsPerSecond);
  const Summary cost = NsPerPacket(subject);
  if (cost.count == 0) {
    return absl::StrFormat("  %-15s moved no packets\n", subject.spec.Label());
  }
  uint64_t sent = 0;
  uint64_t lost = 0;
  for (const Round& round : subject.rounds) {
    sent += round.load.sent;
    lost += round.Lost();
  }
  const double share = sent == 0 ? 0 : static_cast<double>(lost) / static_cast<double>(sent);
  std::string ratio = "-";
  std::string ratio_range;
  if (best >= 0) {
    const Summary r = Summarize(RatiosToBest(scenario.subjects[best], subject));
    ratio = absl::StrFormat("%.2f", r.median);
    ratio_range = absl::StrFormat("%.2f-%.2f", r.min, r.max);
  }
  const auto latency = [&](uint64_t Round::*figure) {
    // Flat out it is the length of the queues that the window fills, but for a window of one.
    const bool shown = scenario.traffic.rate > 0 || scenario.traffic.window == 1;
    return shown ? Microseconds(subject, figure) : std::string("-");
  };
  // A name that the column does not hold has a line of its own.
  std::string name = absl::StrFormat("  %-15s", subject.spec.Label());
  if (name.size() > 17) absl::StrAppend(&name, "\n", std::string(17, ' '));
  return absl::StrFormat(
      "%s%7.3f%7s%7s %11s%4.0f%%%8s%7s%7s%7s%6s %9s\n", name, rate.median / 1e6,
      Short(rate.median * scenario.traffic.mean_size() * 8 / 1e9), Short(cost.median), Range(cost),
      100 * OfRounds(subject, &Round::Busy).median,
      lost == 0 ? "0" : absl::StrFormat("%.3f%%", 100 * share), latency(&Round::latency_p50),
      latency(&Round::latency_p99), latency(&Round::latency_p999), ratio, ratio_range);
}

void AddCount(const char* name, uint64_t count, std::vector<std::string>* out) {
  if (count > 0) out->push_back(absl::StrCat(name, " ", count));
}

// Losses by reason over all rounds; empty if there were none.
std::string FormatLosses(const SubjectResult& subject) {
  LoadTotals load;
  uint64_t before = 0;
  uint64_t inside = 0;
  uint64_t after = 0;
  SubjectTotals reasons;
  for (const Round& round : subject.rounds) {
    load += round.load;
    before += round.LostBeforeSubject();
    inside += round.LostInSubject();
    after += round.LostAfterSubject();
    for (const SubjectTotals::Reason& reason : round.subject.reasons) {
      if (reason.packets > 0) reasons.AddReason(reason.name.data(), reason.packets);
    }
  }
  std::vector<std::string> parts;
  AddCount("not sent by the load", load.not_sent, &parts);
  AddCount("before the subject", before, &parts);
  AddCount("in the subject", inside, &parts);
  AddCount("after the subject", after, &parts);
  for (const SubjectTotals::Reason& reason : reasons.reasons) {
    AddCount(reason.name.data(), reason.packets, &parts);
  }
  AddCount("duplicates", load.duplicates, &parts);
  AddCount("reordered", load.reordered, &parts);
  AddCount("misdelivered", load.misdelivered, &parts);
  AddCount("invalid", load.invalid, &parts);
  if (parts.empty()) return "";
  std::string text = absl::StrCat("  ", subject.spec.Label(), ":");
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string part = absl::StrCat(" ", parts[i], i + 1 < parts.size() ? "," : "");
    if (text.size() + part.size() > 98) {
      absl::StrAppend(&out, text, "\n");
      text = "     ";
    }
    text += part;
  }
  return absl::StrCat(out, text, "\n");
}

// Doubts that the figures themselves raise.
std::string FormatDoubts(const SubjectResult& subject) {
  std::string out;
  const Summary core = OfRounds(subject, &Round::CoreNsPerPacket);
  const Summary cost = NsPerPacket(subject);
  // A tick of 10 ms at both ends is the resolution of the other clock.
  const double seconds = OfRounds(subject, [](const Round& r) { return r.seconds; }).median;
  const double tolerance = 0.1 + 0.02 / std::max(seconds, 0.01);
  if (cost.count > 0 && core.median > cost.median * (1 + tolerance)) {
    absl::StrAppend(&out, "  ", subject.spec.Label(), ": by /proc/stat its cores spent ",
                    Short(core.median), " ns/packet; something else ran there too\n");
  }
  const Summary stolen = OfRounds(subject, [](const Round& round) {
    return static_cast<double>(round.stolen_ns) / (round.seconds * 1e9 * round.cores);
  });
  if (stolen.max > 0.03) {
    absl::StrAppendFormat(&out, "  %s: the hypervisor took up to %.0f%% of its cores\n",
                          subject.spec.Label(), 100 * stolen.max);
  }
  return out;
}

std::string CoreList(const std::vector<int>& cores) {
  return absl::StrCat(cores.size() == 1 ? "core " : "cores ", absl::StrJoin(cores, ","));
}

}  // namespace

Environment DescribeEnvironment(const Cores& assigned, int socket_buffer) {
  Environment environment;
  environment.assigned = assigned;
  environment.cores = static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_ONLN));
  utsname name = {};
  uname(&name);
  environment.kernel = absl::StrCat(name.sysname, " ", name.release, " ", name.machine);
  const auto socket = OpenUdpSocket({.ip = IpAddress::AnyV4()}, socket_buffer);
  if (socket.ok()) {
    environment.receive_buffer = SocketBuffer(*socket, SO_RCVBUF);
    environment.send_buffer = SocketBuffer(*socket, SO_SNDBUF);
    close(*socket);
  }
  environment.machine = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos) {
      environment.machine = line.substr(line.find(": ") + 2);
      break;
    }
  }
  return environment;
}

int BestBareLoop(const Scenario& scenario) {
  int best = -1;
  for (size_t i = 0; i < scenario.subjects.size(); ++i) {
    const SubjectResult& subject = scenario.subjects[i];
    const Summary cost = NsPerPacket(subject);
    if (!subject.spec.is_bare() || cost.count == 0) continue;
    if (best < 0 || cost.median < NsPerPacket(scenario.subjects[best]).median) {
      best = static_cast<int>(i);
    }
  }
  return best;
}

std::vector<double> RatiosToBest(const SubjectResult& best, const SubjectResult& subject) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(best.rounds.size(), subject.rounds.size()); ++i) {
    if (best.rounds[i].packets == 0 || subject.rounds[i].packets == 0) continue;
    ratios.push_back(best.rounds[i].NsPerPacket() / subject.rounds[i].NsPerPacket());
  }
  return ratios;
}

std::string FormatHeader(const Environment& environment, const Options& options) {
  std::string out = absl::StrCat("ringsock-bench on ", environment.machine, ", ", environment.cores,
                                 " cores, ", environment.kernel, "\n");
  absl::StrAppend(&out, "topology ", TopologyName(options.topology),
                  "; measured: ", CoreList(environment.assigned.subject),
                  "; load, generator and sink together: ", CoreList(environment.assigned.load),
                  "\n");
  if (environment.assigned.shared) {
    absl::StrAppend(&out, "only one core: load and subject share it, rates mean little\n");
  }
  absl::StrAppendFormat(&out, "%d rounds in turn, %g s each after %g s\n", options.rounds,
                        options.seconds, options.warmup);
  absl::StrAppend(&out, "socket buffers: receive ", environment.receive_buffer, ", send ",
                  environment.send_buffer, " bytes\n");
  const auto wanted = 2 * static_cast<uint64_t>(options.socket_buffer);
  if (std::min(environment.receive_buffer, environment.send_buffer) < wanted) {
    absl::StrAppend(&out, "  less than the ", wanted,
                    " asked for, so windows are small and bursts are lost sooner; as root, or:\n",
                    "  sysctl -w net.core.rmem_max=", options.socket_buffer,
                    " net.core.wmem_max=", options.socket_buffer, "\n");
  }
  absl::StrAppend(&out, "engine: ", EngineOptionsText(options.engine), "\n");
  return out;
}

std::string FormatScenario(const Scenario& scenario) {
  const Traffic& t = scenario.traffic;
  std::string pace = t.rate > 0 ? absl::StrFormat("%g packets/s", t.rate) : "flat out";
  if (t.flood) pace = "flood";
  for (const SubjectResult& subject : scenario.subjects) {
    if (t.rate > 0 || t.flood || subject.rounds.empty()) continue;
    pace = absl::StrCat("flat out, window ", subject.rounds[0].window, " trains");
    break;
  }
  const std::string turns = t.interleave > 1 ? absl::StrCat(" (turns of ", t.interleave, ")") : "";
  std::string out =
      absl::StrFormat(t.mix ? "\n%s, mixed to %d B, mixed trains to %d%s, %d peers, %s\n"
                            : "\n%s, %d B, trains of %d%s, %d peers, %s\n",
                      ModeName(t.mode), t.size, t.train, turns, t.peers, pace);
  absl::StrAppendFormat(&out, "  %-15s%7s%7s%7s %11s%5s%8s%7s%7s%7s%6s %9s\n", "", "M pkt/s",
                        "Gb/s", "ns/pkt", "range", "busy", "lost", "p50us", "p99us", "p99.9",
                        "xbest", "range");
  const int best = BestBareLoop(scenario);
  std::string notes;
  for (size_t i = 0; i < scenario.subjects.size(); ++i) {
    const SubjectResult& subject = scenario.subjects[i];
    if (IsBeaten(scenario, i)) continue;
    if (!subject.rounds.empty()) out += FormatRow(scenario, subject, best);
    if (!subject.error.empty()) {
      absl::StrAppend(&notes, "  ", subject.spec.Label(), ": not measured: ", subject.error, "\n");
    }
    absl::StrAppend(&notes, FormatLosses(subject), FormatDoubts(subject));
  }
  return out + notes;
}

}  // namespace ringsock::bench
