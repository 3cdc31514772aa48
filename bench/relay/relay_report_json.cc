// What a run of the relay benchmark says to programs.
#include <nlohmann/json.hpp>

#include <cmath>

#include "bench/relay/relay_report.h"

namespace ringsock::bench {
namespace {

using Json = nlohmann::ordered_json;

Json OfSummary(const Summary& summary) {
  if (summary.count == 0) return nullptr;
  return {{"median", summary.median}, {"min", summary.min}, {"max", summary.max}};
}

Json Finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json OfRound(const RelayRound& round) {
  const RelayLoadTotals& t = round.total;
  return {
      {"seconds", round.seconds},
      {"offered_per_second", round.OfferedPerSecond()},
      {"delivered_per_second", round.DeliveredPerSecond()},
      {"delivered", round.delivered},
      {"delivered_extra", round.delivered_extra},
      {"cpu_ns", round.cpu_ns},
      {"cpu_ns_per_packet", Finite(round.NsPerPacket())},
      {"busy", round.Busy()},
      {"load_busy", round.LoadBusy()},
      {"stolen_ns", round.stolen_ns},
      {"latency_ns",
       {{"p50", round.latency_p50}, {"p99", round.latency_p99}, {"p99.9", round.latency_p999}}},
      {"lost_share", round.LostShare()},
      {"held_back_share", round.HeldBackShare()},
      {"total",
       {{"offered", t.offered},
        {"held_back", t.held_back},
        {"late", t.late},
        {"sent", t.sent},
        {"sent_extra", t.sent_extra},
        {"received", t.received.packets},
        {"received_extra", t.received_extra},
        {"checked", t.received.checked},
        {"duplicates", t.received.duplicates},
        {"reordered", t.received.reordered},
        {"misdelivered", t.received.misdelivered},
        {"invalid", t.received.invalid},
        {"control_frames", t.received.control},
        {"resyncs", t.received.resyncs},
        {"closed", t.closed}}},
      {"losses_by_subject", round.losses},
  };
}

Json OfSubject(const RelayScenario& scenario, const RelaySubjectResult& subject) {
  Json rounds = Json::array();
  for (const RelayRound& round : subject.rounds) rounds.push_back(OfRound(round));
  Json out = {
      {"name", subject.spec.name},
      {"floor", subject.spec.is_floor()},
      {"command", subject.spec.command},
      {"delivered_per_second", OfSummary(OfRelayRounds(subject, &RelayRound::DeliveredPerSecond))},
      {"cpu_ns_per_packet", OfSummary(OfRelayRounds(subject, &RelayRound::NsPerPacket))},
      {"busy", OfSummary(OfRelayRounds(subject, &RelayRound::Busy))},
      {"lost_share", OfSummary(OfRelayRounds(subject, &RelayRound::LostShare))},
      {"held_back_share", OfSummary(OfRelayRounds(subject, &RelayRound::HeldBackShare))},
      {"ratio_to_floor", OfSummary(Summarize(RatiosToFloor(scenario, subject)))},
      {"rounds", std::move(rounds)},
  };
  if (!subject.error.empty()) out["error"] = subject.error;
  return out;
}

const char* ExtraName(RelayTraffic::Extra extra) {
  switch (extra) {
    case RelayTraffic::Extra::kNone:
      return "none";
    case RelayTraffic::Extra::kReads:
      return "reads";
    case RelayTraffic::Extra::kStalls:
      return "stalls";
  }
  return "?";
}

Json OfScenario(const RelayScenario& scenario) {
  const RelayTraffic& t = scenario.traffic;
  Json subjects = Json::array();
  for (const RelaySubjectResult& subject : scenario.subjects) {
    subjects.push_back(OfSubject(scenario, subject));
  }
  return {
      {"name", scenario.name},
      {"senders", t.senders},
      {"receivers", t.receivers},
      {"size", t.size},
      {"rate", t.rate},
      {"one_in_flight", t.one_in_flight},
      {"tick_ns", t.tick.count()},
      {"extra_receiver", ExtraName(t.extra)},
      {"subjects", std::move(subjects)},
  };
}

Json OfSweep(const Sweep& sweep) {
  Json points = Json::array();
  for (const SweepPoint& point : sweep.points) {
    points.push_back({{"factor", point.factor},
                      {"share", sweep.Share(point)},
                      {"scenario", OfScenario(point.scenario)}});
  }
  return {{"capacity", sweep.capacity}, {"points", std::move(points)}};
}

Json OfReading(const MemoryReading& reading) {
  return {{"rss", reading.rss},
          {"pss", reading.pss},
          {"page_tables", reading.page_tables},
          {"host_slab", reading.slab},
          {"host_tcp_buffers", reading.tcp_buffers}};
}

Json OfMemory(const MemoryResult& result) {
  Json out = {{"subject", result.spec.name},
              {"clients", result.clients},
              {"before", OfReading(result.before)},
              {"after", OfReading(result.after)},
              {"connect_seconds", result.connect_seconds},
              {"idle_cpu", result.idle_cpu}};
  if (!result.error.empty()) out["error"] = result.error;
  return out;
}

}  // namespace

std::string FormatRelayJson(const Environment& environment, const RelayOptions& options,
                            const RelayResults& results) {
  Json scenarios = Json::array();
  Json sweeps = Json::array();
  Json memory = Json::array();
  for (const RelayScenario& scenario : results.scenarios) {
    scenarios.push_back(OfScenario(scenario));
  }
  for (const Sweep& sweep : results.sweeps) sweeps.push_back(OfSweep(sweep));
  for (const MemoryResult& result : results.memory) memory.push_back(OfMemory(result));
  const Json document = {
      {"machine", environment.machine},
      {"cores", environment.cores},
      {"kernel", environment.kernel},
      {"load_cores", environment.assigned.load},
      {"subject_cores", environment.assigned.subject},
      {"cores_shared", environment.assigned.shared},
      {"command", options.command},
      {"rounds", options.rounds},
      {"seconds", options.seconds},
      {"warmup", options.warmup},
      {"check", options.check},
      {"scenarios", std::move(scenarios)},
      {"sweeps", std::move(sweeps)},
      {"memory", std::move(memory)},
  };
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace ringsock::bench
