// What `ringsock-bench report` measures.
#include "bench/report_plan.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "bench/svg_chart.h"

namespace ringsock::bench {
namespace {

constexpr uint32_t kFullTrain = 46;  // of 1400 B: what fits into one kernel buffer of 64 KiB
constexpr uint32_t kPeers = 64;
// More would only wait for the load: it starts anew for each run.
constexpr uint32_t kMostPeers = 1u << 20;

// What the plans differ in.
struct Depth {
  uint32_t rounds;
  double seconds;
  double warmup;
  const char* by_hand;  // loops that curves are measured beside
  std::vector<uint32_t> trains;
  std::vector<uint32_t> sizes;
  std::vector<uint32_t> peers;
  std::vector<uint32_t> relayed;
  bool more_bars;
};

Depth DepthOf(const ReportOptions& options) {
  Depth depth;
  if (options.plan == "full") {
    depth = {.rounds = 7,
             .seconds = 0.5,
             .warmup = 0.2,
             .by_hand = "recvmmsg+gro,uring",
             .trains = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 46},
             .sizes = {64, 128, 256, 512, 1024, 1400, 2048, 4096, 6000, 9000},
             .peers = {2, 16, 64, 256, 1000, 4000, 10'000, 40'000, 100'000, 400'000, 1'000'000},
             .relayed = {0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100},
             .more_bars = true};
  } else {
    depth = {.rounds = 3,
             .seconds = 0.2,
             .warmup = 0.1,
             .by_hand = "recvmmsg+gro:8,uring",
             .trains = {1, 2, 4, 8, 16, 46},
             .sizes = {64, 256, 576, 1400, 4000, 9000},
             .peers = {2, 64, 1000, 10'000, 100'000, 1'000'000},
             .relayed = {0, 25, 50, 75, 100},
             .more_bars = false};
  }
  if (options.rounds > 0) depth.rounds = options.rounds;
  if (options.seconds > 0) depth.seconds = options.seconds;
  return depth;
}

class Planner {
 public:
  Planner(const ReportOptions& options, const PlanLimits& limits)
      : options_(options), limits_(limits), depth_(DepthOf(options)) {}

  PlannedChart Main() const;
  PlannedChart Train() const;
  PlannedChart Size() const;
  PlannedChart Peers() const;
  PlannedChart Shards() const;
  PlannedChart Relayed() const;
  PlannedChart Ways() const;

 private:
  Options Base(const std::string& by_hand) const;
  TopologyKind Veth() const {
    return limits_.namespaces ? TopologyKind::kVeth : TopologyKind::kLoopback;
  }

  const ReportOptions& options_;
  const PlanLimits limits_;
  const Depth depth_;
};

Options Planner::Base(const std::string& by_hand) const {
  Options o;
  o.command = "forward";
  o.traffic = {.mode = Mode::kForward, .size = 1400, .train = kFullTrain, .peers = kPeers};
  o.topology = Veth();
  o.subjects = *ParseSubjects(absl::StrCat(by_hand, ",ringsock,ringsock-mmsg"));
  o.rounds = depth_.rounds;
  o.seconds = depth_.seconds;
  o.warmup = depth_.warmup;
  o.engine = options_.engine;
  return o;
}

PlannedChart Planner::Main() const {
  PlannedChart chart;
  chart.head = {.id = "main",
                .title = "Cost of a packet, beside loops written by hand",
                .text =
                    "One core forwards between peers. The loops by hand look a peer up in an "
                    "array and do nothing else; of several batch sizes the best is shown.",
                .x_label =
                    "CPU time of the measured core per packet, ns; whiskers: range of "
                    "rounds",
                .bars = true,
                .log_x = false,
                .points = {}};
  const auto add = [&](const std::string& label, const std::function<void(Options*)>& change) {
    Options o = Base("recvfrom,recvmmsg+gro,uring");
    // This chart is the one that is quoted.
    o.rounds = options_.rounds > 0 ? options_.rounds : depth_.rounds + 2;
    change(&o);
    chart.points.push_back({static_cast<double>(chart.points.size()), label, o});
  };
  add("1400 B, trains of 46", [](Options*) {});
  add("64 B, trains of 46", [](Options* o) { o->traffic.size = 64; });
  if (limits_.namespaces) {
    add("1400 B, trains of 46, split and merged as by a network card",
        [](Options* o) { o->topology = TopologyKind::kNicLike; });
  }
  add("mixed: 64 to 1400 B, trains of 1 to 46, peers interleaved", [](Options* o) {
    o->traffic.peers = 1000;
    o->traffic.mix = true;
    o->traffic.interleave = 4;
  });
  if (depth_.more_bars) {
    add("1400 B, single packets", [](Options* o) { o->traffic.train = 1; });
    add("64 B, single packets", [](Options* o) {
      o->traffic.size = 64;
      o->traffic.train = 1;
    });
  }
  return chart;
}

PlannedChart Planner::Train() const {
  PlannedChart chart;
  chart.head = {.id = "train",
                .title = "Length of trains",
                .text =
                    "Packets of one peer that arrive together move as one kernel buffer: the "
                    "longer the train, the more packets share the cost of the stack.",
                .x_label = "packets in a train (1400 B each)",
                .bars = false,
                .log_x = true,
                .points = {}};
  for (const uint32_t train : depth_.trains) {
    Options o = Base(depth_.by_hand);
    o.traffic.train = train;
    chart.points.push_back({static_cast<double>(train), absl::StrCat(train), o});
  }
  return chart;
}

PlannedChart Planner::Size() const {
  PlannedChart chart;
  chart.head = {.id = "size",
                .title = "Size of packets",
                .text = "Trains of 46, or of as many as 64 KiB hold.",
                .x_label = "bytes of a datagram",
                .bars = false,
                .log_x = true,
                .points = {}};
  for (const uint32_t size : depth_.sizes) {
    Options o = Base(depth_.by_hand);
    o.traffic.size = size;
    o.traffic.train = std::min<uint32_t>(kFullTrain, io::kMaxDatagram / size);
    chart.points.push_back({static_cast<double>(size), absl::StrCat(size, " B"), o});
  }
  return chart;
}

PlannedChart Planner::Peers() const {
  PlannedChart chart;
  chart.head = {.id = "peers",
                .title = "Number of peers",
                .text =
                    "All of them send, one train each in turn, so every train finds its peer "
                    "cold. Trains of 8 packets of 1400 B.",
                .x_label = "peers in the tables",
                .bars = false,
                .log_x = true,
                .points = {}};
  for (const uint32_t peers : depth_.peers) {
    Options o = Base(depth_.by_hand);
    o.traffic.train = 8;
    o.traffic.peers = std::min(peers, kMostPeers);
    o.idle_peers = 0;
    chart.points.push_back({static_cast<double>(peers), TickText(peers), o});
  }
  return chart;
}

PlannedChart Planner::Shards() const {
  PlannedChart chart;
  chart.head = {.id = "shards",
                .title = "Number of shards",
                .text =
                    "CPU time of all shards over all packets. With as many shards as cores the "
                    "load shares the cores, which costs the caches; its own time is not "
                    "counted.",
                .x_label = "shards, one core each",
                .bars = false,
                .log_x = false,
                .points = {}};
  for (uint32_t shards = 1; shards <= limits_.cores;
       shards = shards < limits_.cores ? std::min(shards * 2, limits_.cores) : shards + 1) {
    Options o = Base(depth_.by_hand);
    o.shards = shards;
    o.load_threads = 1;
    chart.points.push_back({static_cast<double>(shards), absl::StrCat(shards), o});
  }
  return chart;
}

PlannedChart Planner::Relayed() const {
  PlannedChart chart;
  chart.head = {.id = "relayed",
                .title = "Share of relayed traffic",
                .text =
                    "What some of the peers send goes on over a relay, by TLS, in place of "
                    "straight to its peer; the relay, and an engine behind it that hands it "
                    "on, share a core with the load. All threads of the engine count, so the "
                    "control thread and its cipher do.",
                .x_label = "percent of the packets that are relayed",
                .bars = false,
                .log_x = false,
                .points = {}};
  for (const uint32_t percent : depth_.relayed) {
    Options o = Base("uring");
    o.subjects.erase(o.subjects.begin());  // loops by hand know no relays
    o.topology = TopologyKind::kLoopback;
    o.traffic.relayed = percent;
    chart.points.push_back({static_cast<double>(percent), absl::StrCat(percent, " %"), o});
  }
  return chart;
}

PlannedChart Planner::Ways() const {
  PlannedChart chart;
  chart.head = {.id = "ways",
                .title = "Sending alone, receiving alone",
                .text =
                    "What one half of forwarding costs. A small request asks for every 8 "
                    "trains that are sent.",
                .x_label = "CPU time of the measured core per packet, ns",
                .bars = true,
                .log_x = false,
                .points = {}};
  struct Way {
    Mode mode;
    uint32_t size;
    const char* label;
  };
  for (const Way& way :
       {Way{Mode::kSend, 1400, "sending, 1400 B"}, Way{Mode::kReceive, 1400, "receiving, 1400 B"},
        Way{Mode::kSend, 64, "sending, 64 B"}, Way{Mode::kReceive, 64, "receiving, 64 B"}}) {
    Options o = Base(depth_.by_hand);
    o.command = ModeName(way.mode);
    o.traffic.mode = way.mode;
    o.traffic.size = way.size;
    chart.points.push_back({static_cast<double>(chart.points.size()), way.label, o});
  }
  return chart;
}

using Method = PlannedChart (Planner::*)() const;
struct NamedChart {
  const char* id;
  Method plan;
};
constexpr NamedChart kCharts[] = {
    {"main", &Planner::Main},   {"train", &Planner::Train},   {"size", &Planner::Size},
    {"peers", &Planner::Peers}, {"shards", &Planner::Shards}, {"relayed", &Planner::Relayed},
    {"ways", &Planner::Ways},
};

}  // namespace

std::vector<std::string> ChartIds() {
  std::vector<std::string> ids;
  for (const NamedChart& chart : kCharts) ids.push_back(chart.id);
  return ids;
}

std::vector<PlannedChart> MakePlan(const ReportOptions& options, const PlanLimits& limits) {
  const Planner planner(options, limits);
  std::vector<PlannedChart> charts;
  for (const NamedChart& chart : kCharts) {
    const bool wanted = options.only.empty() || std::find(options.only.begin(), options.only.end(),
                                                          chart.id) != options.only.end();
    if (wanted) charts.push_back((planner.*chart.plan)());
  }
  return charts;
}

std::string TrafficText(const Options& options) {
  const Traffic& t = options.traffic;
  std::string what = absl::StrCat(
      t.size, " B, ", t.train == 1 ? "single packets" : absl::StrCat("trains of ", t.train));
  if (t.mix) what = absl::StrCat("64 to ", t.size, " B, trains of 1 to ", t.train);
  if (t.interleave > 1) absl::StrAppend(&what, " in turns of ", t.interleave);
  std::string peers = absl::StrCat(t.peers, " peers");
  if (options.idle_peers > 0) absl::StrAppend(&peers, " and ", options.idle_peers, " idle ones");
  if (t.relayed > 0) absl::StrAppend(&peers, ", ", t.relayed, " % relayed");
  return absl::StrCat(ModeName(t.mode), ", ", what, ", ", peers, ", ",
                      TopologyName(options.topology), ", ", options.shards,
                      options.shards == 1 ? " shard" : " shards");
}

std::string PointCommand(const Options& options) {
  const Traffic& t = options.traffic;
  std::string subjects;
  for (const SubjectSpec& spec : options.subjects) {
    absl::StrAppend(&subjects, subjects.empty() ? "" : ",", spec.Label());
  }
  std::string out = absl::StrCat(
      "ringsock-bench ", ModeName(t.mode), " --size ", t.size, " --train ", t.train, " --peers ",
      t.peers, " --topology ", TopologyName(options.topology), " --subjects ", subjects,
      " --rounds ", options.rounds, " --seconds ", options.seconds, " --warmup ", options.warmup);
  if (t.mix) out += " --mix";
  if (t.interleave > 1) absl::StrAppend(&out, " --interleave ", t.interleave);
  if (t.relayed > 0) absl::StrAppend(&out, " --relayed ", t.relayed);
  if (options.idle_peers != Options().idle_peers) {
    absl::StrAppend(&out, " --idle-peers ", options.idle_peers);
  }
  if (options.shards != 1) absl::StrAppend(&out, " --shards ", options.shards);
  const std::string engine = EngineOptionsText(options.engine);
  if (engine != EngineOptionsText({})) {
    std::string list = engine;
    std::replace(list.begin(), list.end(), ' ', ',');
    absl::StrAppend(&out, " --engine-options ", list);
  }
  return out;
}

}  // namespace ringsock::bench
