// What a run of the benchmark says to programs.
#include <nlohmann/json.hpp>

#include <array>
#include <cmath>

#include "bench/report.h"
#include "bench/statistics.h"

namespace ringsock::bench {
namespace {

using Json = nlohmann::ordered_json;

Json OfSummary(const Summary& summary) {
  if (summary.count == 0) return nullptr;
  return {{"median", summary.median}, {"min", summary.min}, {"max", summary.max}};
}

Json OfRound(const Round& round) {
  Json reasons = Json::object();
  for (const SubjectTotals::Reason& reason : round.subject.reasons) {
    if (reason.packets > 0) reasons[reason.name.data()] = reason.packets;
  }
  const double cost = round.NsPerPacket();
  return {
      {"seconds", round.seconds},
      {"packets", round.packets},
      {"packets_per_second", round.PacketsPerSecond()},
      {"cpu_ns_per_packet", std::isfinite(cost) ? Json(cost) : Json()},
      {"cpu_ns", round.cpu_ns},
      {"core_busy_ns", round.core_busy_ns},
      {"stolen_ns", round.stolen_ns},
      {"busy", round.Busy()},
      {"latency_ns",
       {{"p50", round.latency_p50}, {"p99", round.latency_p99}, {"p99.9", round.latency_p999}}},
      {"window", round.window},
      {"subject_received", round.subject.received},
      {"subject_sent", round.subject.sent},
      {"sent", round.load.sent},
      {"not_sent", round.load.not_sent},
      {"latest_ns", round.load.latest_ns},
      {"lost", round.Lost()},
      {"lost_before_subject", round.LostBeforeSubject()},
      {"lost_in_subject", round.LostInSubject()},
      {"lost_after_subject", round.LostAfterSubject()},
      {"lost_by_reason", reasons},
      {"duplicates", round.load.duplicates},
      {"reordered", round.load.reordered},
      {"misdelivered", round.load.misdelivered},
      {"invalid", round.load.invalid},
      {"note", round.subject.note.data()},
  };
}

Json OfSubject(const Scenario& scenario, const SubjectResult& subject, int best) {
  std::vector<double> rates;
  std::vector<double> costs;
  std::vector<double> busy;
  std::array<std::vector<double>, 3> latency;
  uint64_t sent = 0;
  uint64_t lost = 0;
  Json rounds = Json::array();
  for (const Round& round : subject.rounds) {
    rates.push_back(round.PacketsPerSecond());
    costs.push_back(round.NsPerPacket());
    busy.push_back(round.Busy());
    latency[0].push_back(static_cast<double>(round.latency_p50));
    latency[1].push_back(static_cast<double>(round.latency_p99));
    latency[2].push_back(static_cast<double>(round.latency_p999));
    sent += round.load.sent;
    lost += round.Lost();
    rounds.push_back(OfRound(round));
  }
  const Summary rate = Summarize(rates);
  Json out = {
      {"name", subject.spec.Label()},
      {"bare", subject.spec.is_bare()},
      {"packets_per_second", OfSummary(rate)},
      {"gigabits_per_second", rate.median * scenario.traffic.mean_size() * 8 / 1e9},
      {"cpu_ns_per_packet", OfSummary(Summarize(costs))},
      {"busy", OfSummary(Summarize(busy))},
      {"lost_share", sent == 0 ? 0 : static_cast<double>(lost) / static_cast<double>(sent)},
      {"latency_ns",
       {{"p50", OfSummary(Summarize(latency[0]))},
        {"p99", OfSummary(Summarize(latency[1]))},
        {"p99.9", OfSummary(Summarize(latency[2]))}}},
      {"ratio_to_best_bare", Json()},
      {"rounds", std::move(rounds)},
  };
  if (best >= 0) {
    out["ratio_to_best_bare"] =
        OfSummary(Summarize(RatiosToBest(scenario.subjects[best], subject)));
  }
  if (!subject.error.empty()) out["error"] = subject.error;
  return out;
}

Json OfScenario(const Scenario& scenario) {
  const Traffic& t = scenario.traffic;
  const int best = BestBareLoop(scenario);
  Json subjects = Json::array();
  for (const SubjectResult& subject : scenario.subjects) {
    subjects.push_back(OfSubject(scenario, subject, best));
  }
  return {
      {"mode", ModeName(t.mode)},
      {"size", t.size},
      {"train", t.train},
      {"interleave", t.interleave},
      {"mix", t.mix},
      {"peers", t.peers},
      {"rate", t.rate},
      {"window", t.window},
      {"latency", t.rate > 0 ? "from when a packet was due" : "at full window"},
      {"flood", t.flood},
      {"best_bare", best < 0 ? Json() : Json(scenario.subjects[best].spec.Label())},
      {"subjects", std::move(subjects)},
  };
}

}  // namespace

std::string FormatJson(const Environment& environment, const Options& options,
                       const std::vector<Scenario>& scenarios) {
  Json all = Json::array();
  for (const Scenario& scenario : scenarios) all.push_back(OfScenario(scenario));
  const Json document = {
      {"machine", environment.machine},
      {"cores", environment.cores},
      {"kernel", environment.kernel},
      {"load_cores", environment.assigned.load},
      {"subject_cores", environment.assigned.subject},
      {"cores_shared", environment.assigned.shared},
      {"socket_buffer_asked", options.socket_buffer},
      {"receive_buffer", environment.receive_buffer},
      {"send_buffer", environment.send_buffer},
      {"check", options.check},
      {"idle_peers", options.idle_peers},
      {"topology", TopologyName(options.topology)},
      {"rounds", options.rounds},
      {"seconds", options.seconds},
      {"warmup", options.warmup},
      {"engine_options", EngineOptionsText(options.engine)},
      {"scenarios", std::move(all)},
  };
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace ringsock::bench
