// The command line of ringsock-bench.
#include "bench/options.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "bench/flags.h"
#include "bench/wire.h"

namespace ringsock::bench {
namespace {

absl::Status ParseTopology(absl::string_view flag, absl::string_view text, TopologyKind* out) {
  for (const TopologyKind kind :
       {TopologyKind::kLoopback, TopologyKind::kVeth, TopologyKind::kNicLike}) {
    if (text == TopologyName(kind)) {
      *out = kind;
      return absl::OkStatus();
    }
  }
  return BadFlag(flag, text, "must be loopback, veth or niclike");
}

struct KnownSubject {
  SubjectKind kind;
  const char* name;
  std::vector<uint32_t> batches;  // tried when none is given; empty: no such knob
};

const std::vector<KnownSubject>& KnownSubjects() {
  static const auto* subjects = new std::vector<KnownSubject>{
      {SubjectKind::kRecvfrom, "recvfrom", {}},
      {SubjectKind::kRecvmmsg, "recvmmsg", {32}},
      {SubjectKind::kRecvmmsgGro, "recvmmsg+gro", {4, 6, 8}},
      {SubjectKind::kUring, "uring", {}},
      {SubjectKind::kRingsockUring, "ringsock", {}},
      {SubjectKind::kRingsockMmsg, "ringsock-mmsg", {}},
  };
  return *subjects;
}

SubjectSpec SpecOf(const KnownSubject& known, uint32_t batch) {
  return {.kind = known.kind, .name = known.name, .batch = batch, .variant = {}};
}

void AddSubject(const KnownSubject& known, uint32_t batch, std::vector<SubjectSpec>* out) {
  if (known.batches.empty() || batch != 0) {
    out->push_back(SpecOf(known, batch));
    return;
  }
  for (const uint32_t each : known.batches) out->push_back(SpecOf(known, each));
}

// "ringsock:gso=0/rx_batch=4": the engine with other options.
absl::Status AddVariant(const KnownSubject& known, absl::string_view changes,
                        std::vector<SubjectSpec>* out) {
  SubjectSpec spec = SpecOf(known, 0);
  spec.variant = absl::StrReplaceAll(changes, {{"/", ","}});
  io::LoopOptions scratch;
  const absl::Status status = ParseEngineOptions(spec.variant, &scratch);
  if (status.ok()) out->push_back(std::move(spec));
  return status;
}

// "recvmmsg+gro", "recvmmsg+gro:8" or "ringsock:gso=0".
absl::Status AddNamed(absl::string_view item, std::vector<SubjectSpec>* out) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(item, absl::MaxSplits(':', 1));
  std::string names;
  for (const KnownSubject& known : KnownSubjects()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", known.name);
    if (parts.first != known.name) continue;
    uint32_t batch = 0;
    if (absl::StrContains(item, ':')) {
      if (!SpecOf(known, 0).is_bare()) return AddVariant(known, parts.second, out);
      if (known.batches.empty()) return BadFlag("--subjects", item, "this one has no batch size");
      const absl::Status status = ParseUint("--subjects (batch)", parts.second, 1, 64, &batch);
      if (!status.ok()) return status;
    }
    AddSubject(known, batch, out);
    return absl::OkStatus();
  }
  return BadFlag("--subjects", item,
                 absl::StrCat("no such subject; known are ", names, " and all"));
}

FlagTable Flags(Options* o) {
  Traffic* t = &o->traffic;
  const Setter topology = [=](auto flag, auto v) { return ParseTopology(flag, v, &o->topology); };
  const Setter engine = [=](auto, auto value) { return ParseEngineOptions(value, &o->engine); };
  const Setter subjects = [=](auto, auto value) {
    auto parsed = ParseSubjects(value);
    if (parsed.ok()) o->subjects = *std::move(parsed);
    return parsed.status();
  };
  return {
      {"--rounds", {UintFlag(1, 1000, &o->rounds)}},
      {"--seconds", {NumberFlag(0.05, 3600, &o->seconds)}},
      {"--warmup", {NumberFlag(0, 60, &o->warmup)}},
      {"--size", {UintFlag(kMinSize, io::kMaxDatagram, &t->size)}},
      {"--train", {UintFlag(1, io::kMaxTrainPackets, &t->train)}},
      {"--peers", {UintFlag(1, 1u << 20, &t->peers)}},
      {"--window", {UintFlag(1, 1u << 20, &t->window)}},
      {"--shards", {UintFlag(1, 128, &o->shards)}},
      {"--load-threads", {UintFlag(1, 64, &o->load_threads)}},
      {"--idle-peers", {UintFlag(0, 1u << 20, &o->idle_peers)}},
      {"--interleave", {UintFlag(1, 64, &t->interleave)}},
      {"--mix", SwitchFlag(&t->mix)},
      {"--relayed", {UintFlag(0, 100, &t->relayed)}},
      {"--subject-buffer", {UintFlag(2048, 1u << 30, &o->subject_buffer)}},
      {"--check", {UintFlag(1, 1u << 20, &o->check)}},
      {"--rate", {RateFlag(&t->rate)}},
      {"--flood", SwitchFlag(&t->flood)},
      {"--topology", {topology}},
      {"--gro-flush-us", {UintFlag(0, 10'000, &o->gro_flush_us)}},
      {"--json", {TextFlag("must be a file name or -", &o->json)}},
      {"--subjects", {subjects}},
      {"--engine-options", {engine}},
  };
}

// The rules between flags.
absl::Status Check(const Options& options) {
  const Traffic& t = options.traffic;
  if (static_cast<uint64_t>(t.size) * t.train > io::kMaxDatagram) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--size=", t.size, " --train=", t.train, ": a train holds at most ", io::kMaxDatagram,
        " bytes; the longest of this size is --train=", io::kMaxDatagram / t.size));
  }
  if (t.mode == Mode::kForward && t.peers % 2 != 0) {
    return BadFlag("--peers", absl::StrCat(t.peers), "must be even: peer i sends to peer i^1");
  }
  if (t.relayed > 0 && (t.mode != Mode::kForward || options.topology != TopologyKind::kLoopback)) {
    return BadFlag("--relayed", absl::StrCat(t.relayed), "only with forward, on loopback");
  }
  if (options.gro_flush_us > 0 && options.topology != TopologyKind::kNicLike) {
    return BadFlag("--gro-flush-us", absl::StrCat(options.gro_flush_us), "only with niclike");
  }
  if (t.mix && t.rate > 0) {
    return absl::InvalidArgumentError("--mix and --rate exclude each other");
  }
  if (t.flood && t.rate > 0) {
    return absl::InvalidArgumentError("--flood and --rate exclude each other");
  }
  if (t.mode == Mode::kSend && (t.flood || t.rate > 0 || t.mix || t.interleave > 1)) {
    return absl::InvalidArgumentError(
        "send: the requests pace it, and all trains are alike: without --rate, --flood, --mix and "
        "--interleave");
  }
  if (t.flood && t.window > 0) {
    return absl::InvalidArgumentError("--flood and --window exclude each other");
  }
  return absl::OkStatus();
}

absl::Status ApplyCommand(absl::string_view command, Options* options) {
  options->command = std::string(command);
  if (command == "forward") return absl::OkStatus();
  if (command == "echo") {
    options->traffic.mode = Mode::kEcho;
  } else if (command == "receive") {
    options->traffic.mode = Mode::kReceive;
  } else if (command == "send") {
    options->traffic.mode = Mode::kSend;
  } else if (command == "latency") {
    options->traffic = {.mode = Mode::kEcho, .size = 128, .train = 1, .peers = 16, .rate = 20'000};
  } else if (command == "quick") {
    options->rounds = 3;
    options->seconds = 0.4;
    options->warmup = 0.1;
  } else if (command != "help") {
    return absl::InvalidArgumentError(
        absl::StrCat(command,
                     ": no such command; known are quick, forward, echo, receive, send, latency, "
                     "report and help"));
  }
  return absl::OkStatus();
}

absl::Status ParseSwitch(absl::string_view key, absl::string_view value, bool* out) {
  if (value != "0" && value != "1") return BadFlag(key, value, "must be 0 or 1");
  *out = value == "1";
  return absl::OkStatus();
}

}  // namespace

const char* ModeName(Mode mode) {
  switch (mode) {
    case Mode::kForward:
      return "forward";
    case Mode::kEcho:
      return "echo";
    case Mode::kReceive:
      return "receive";
    case Mode::kSend:
      return "send";
  }
  return "?";
}

const char* TopologyName(TopologyKind kind) {
  switch (kind) {
    case TopologyKind::kLoopback:
      return "loopback";
    case TopologyKind::kVeth:
      return "veth";
    case TopologyKind::kNicLike:
      return "niclike";
  }
  return "?";
}

std::array<uint32_t, 3> Traffic::mixed_sizes() const {
  return {std::min(size, 64u), std::min(size, 576u), size};
}

double Traffic::mean_size() const {
  if (!mix) return size;
  const auto sizes = mixed_sizes();
  return (sizes[0] + sizes[1] + sizes[2]) / 3.0;
}

std::string SubjectSpec::Label() const {
  if (!variant.empty()) return absl::StrCat(name, ":", absl::StrReplaceAll(variant, {{",", "/"}}));
  return batch == 0 ? name : absl::StrCat(name, ":", batch);
}

absl::StatusOr<std::vector<SubjectSpec>> ParseSubjects(absl::string_view text) {
  std::vector<SubjectSpec> subjects;
  if (text == "all") {
    for (const KnownSubject& known : KnownSubjects()) AddSubject(known, 0, &subjects);
    return subjects;
  }
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    const absl::Status status = AddNamed(item, &subjects);
    if (!status.ok()) return status;
  }
  return subjects;
}

absl::Status ParseEngineOptions(absl::string_view text, io::LoopOptions* options) {
  uint32_t spin_us = 0;
  // The bounds are those of the engine (core/engine_options.cc).
  const std::map<std::string, Setter> keys = {
      {"gso", [=](auto k, auto v) { return ParseSwitch(k, v, &options->gso); }},
      {"gro", [=](auto k, auto v) { return ParseSwitch(k, v, &options->gro); }},
      {"zero_copy", [=](auto k, auto v) { return ParseSwitch(k, v, &options->zero_copy); }},
      {"rx_buffers", UintFlag(1, 32768, &options->rx_buffers)},
      {"rx_batch", UintFlag(1, 1024, &options->rx_batch)},
      {"tx_queue", UintFlag(1, 16384, &options->tx_queue)},
      {"tx_slabs", UintFlag(0, 4096, &options->tx_slabs)},
      {"spin_us",
       [&, options](absl::string_view k, absl::string_view v) {
         const absl::Status status = ParseUint(k, v, 0, 1'000'000, &spin_us);
         if (status.ok()) options->spin = std::chrono::microseconds(spin_us);
         return status;
       }},
  };
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(item, absl::MaxSplits('=', 1));
    const auto key = keys.find(parts.first);
    if (key == keys.end() || !absl::StrContains(item, '=')) {
      std::string names;
      for (const auto& [name, setter] : keys) absl::StrAppend(&names, " ", name);
      return BadFlag("--engine-options", item, absl::StrCat("must be key=value; keys are", names));
    }
    const absl::Status status =
        key->second(absl::StrCat("--engine-options ", parts.first), parts.second);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string EngineOptionsText(const io::LoopOptions& o) {
  return absl::StrFormat(
      "gso=%d gro=%d zero_copy=%d rx_buffers=%d rx_batch=%d tx_queue=%d tx_slabs=%d spin_us=%d",
      o.gso, o.gro, o.zero_copy, o.rx_buffers, o.rx_batch, o.tx_queue, o.tx_slabs,
      std::chrono::duration_cast<std::chrono::microseconds>(o.spin).count());
}

absl::StatusOr<Options> ParseOptions(std::span<const char* const> arguments) {
  Options options;
  options.subjects = *ParseSubjects("all");
  if (arguments.empty()) {
    return absl::InvalidArgumentError(
        "no command; one of quick, forward, echo, receive, send, latency, report");
  }
  const absl::string_view command = arguments[0];
  if (command == "--help" || command == "-h") {
    options.command = "help";
    return options;
  }
  absl::Status status = ApplyCommand(command, &options);
  if (!status.ok()) return status;

  status = ParseFlags(arguments.subspan(1), Flags(&options));
  if (absl::IsCancelled(status)) {
    options.command = "help";
    return options;
  }
  if (!status.ok()) return status;
  status = Check(options);
  if (!status.ok()) return status;
  return options;
}

}  // namespace ringsock::bench
