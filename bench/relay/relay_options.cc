// The command line of ringsock-relay-bench.
#include "bench/relay/relay_options.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/flags.h"
#include "bench/wire.h"

namespace ringsock::bench {
namespace {

constexpr const char* kCommands[] = {"quick",   "throughput", "all",   "sweep",
                                     "latency", "memory",     "stall", "help"};

// Flags that together make the subjects.
struct SubjectFlags {
  std::vector<RelaySubjectSpec> commands;
  std::string running;  // IP:PORT
  uint32_t pid = 0;
  std::string metrics;
  std::string pin;
  std::string host;
  bool plain = false;
  bool insecure = false;
  bool no_floor = false;
};

// The relay of this project, on one core, with no limit that a load of one host would meet.
std::string OwnRelay(const std::string& program) {
  const size_t slash = program.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : program.substr(0, slash);
  const std::string beside = absl::StrCat(folder, "/ringsock-relay");
  const bool is_beside = access(beside.c_str(), X_OK) == 0;
  return absl::StrCat(is_beside ? beside : absl::StrCat(folder, "/../../relay/ringsock-relay"),
                      " --hostname=localhost --bind=127.0.0.1 --port={port} --state-dir={dir}",
                      " --stun-port=-1 --metrics=127.0.0.1:{metrics} --workers=1",
                      " --max-clients=200000 --accepts-per-second=0 --log-level=warn");
}

// "NAME=COMMAND" or "COMMAND".
absl::Status AddCommand(absl::string_view flag, absl::string_view value, SubjectFlags* out) {
  RelaySubjectSpec spec;
  spec.kind = RelaySubjectSpec::Kind::kCommand;
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(value, absl::MaxSplits('=', 1));
  const auto in_name = [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_'; };
  const bool named = absl::StrContains(value, '=') && !parts.first.empty() &&
                     parts.first[0] != '-' &&
                     std::all_of(parts.first.begin(), parts.first.end(), in_name);
  spec.name = named ? std::string(parts.first) : "relay";
  spec.command = std::string(named ? parts.second : value);
  if (!absl::StrContains(spec.command, "{port}")) {
    return BadFlag(flag, value, "must have {port} in it, where a free TCP port is put");
  }
  out->commands.push_back(std::move(spec));
  return absl::OkStatus();
}

FlagTable Flags(RelayOptions* o, SubjectFlags* s) {
  RelayTraffic* t = &o->traffic;
  const auto shape = [=](Setter set) -> Flag {
    return {[=](absl::string_view flag, absl::string_view value) {
      o->shape_given = true;
      return set(flag, value);
    }};
  };
  const Setter tick = [=](absl::string_view flag, absl::string_view value) {
    uint32_t microseconds = 0;
    const absl::Status status = ParseUint(flag, value, 1, 1'000'000, &microseconds);
    if (status.ok()) t->tick = std::chrono::microseconds(microseconds);
    return status;
  };
  return {
      {"--senders", shape(UintFlag(1, 10'000, &t->senders))},
      {"--receivers", shape(UintFlag(1, 10'000, &t->receivers))},
      {"--size", shape(UintFlag(kMinSize, kMaxRelayPacket, &t->size))},
      {"--rate", shape(RateFlag(&t->rate))},
      {"--tick-us", {tick}},
      {"--rounds", {UintFlag(1, 1000, &o->rounds)}},
      {"--seconds", {NumberFlag(0.05, 3600, &o->seconds)}},
      {"--warmup", {NumberFlag(0, 60, &o->warmup)}},
      {"--check", {UintFlag(1, 1u << 20, &o->check)}},
      {"--clients", {UintFlag(1, 1'000'000, &o->clients)}},
      {"--settle", {NumberFlag(0.01, 600, &o->settle)}},
      {"--capacity", {RateFlag(&o->capacity)}},
      {"--json", {TextFlag("must be a file name or -", &o->json)}},
      {"--relay-command", {[=](auto flag, auto value) { return AddCommand(flag, value, s); }}},
      {"--relay", {TextFlag("must be IP:PORT", &s->running)}},
      {"--pid", {UintFlag(1, 1u << 22, &s->pid)}},
      {"--metrics", {TextFlag("must be IP:PORT", &s->metrics)}},
      {"--pin", {TextFlag("must be sha256-raw: and 64 hex digits", &s->pin)}},
      {"--host", {TextFlag("must be a name", &s->host)}},
      {"--insecure", SwitchFlag(&s->insecure)},
      {"--insecure-plain", SwitchFlag(&s->plain)},
      {"--no-floor", SwitchFlag(&s->no_floor)},
  };
}

absl::Status AddRunning(const SubjectFlags& flags, std::vector<RelaySubjectSpec>* out) {
  if (flags.pin.empty() && !flags.plain && !flags.insecure) {
    return absl::InvalidArgumentError(
        "--relay: say with --pin which certificate it has, or take any with --insecure, or go "
        "without TLS with --insecure-plain");
  }
  RelaySubjectSpec spec;
  spec.kind = RelaySubjectSpec::Kind::kRunning;
  spec.name = flags.running;
  spec.pid = static_cast<pid_t>(flags.pid);
  const auto address = Endpoint::Parse(flags.running);
  if (!address.ok()) return BadFlag("--relay", flags.running, "must be IP:PORT");
  spec.target.address = *address;
  if (!flags.metrics.empty()) {
    const auto metrics = Endpoint::Parse(flags.metrics);
    if (!metrics.ok()) return BadFlag("--metrics", flags.metrics, "must be IP:PORT");
    spec.metrics = *metrics;
  }
  out->push_back(std::move(spec));
  return absl::OkStatus();
}

absl::Status MakeSubjects(const SubjectFlags& flags, const std::string& program,
                          RelayOptions* options) {
  options->subjects = flags.commands;
  if (!flags.running.empty()) {
    const absl::Status status = AddRunning(flags, &options->subjects);
    if (!status.ok()) return status;
  }
  if (options->subjects.empty()) {
    RelaySubjectSpec own;
    own.kind = RelaySubjectSpec::Kind::kCommand;
    own.name = "ringsock-relay";
    own.command = OwnRelay(program);
    options->subjects.push_back(std::move(own));
  }
  for (RelaySubjectSpec& spec : options->subjects) {
    spec.target.tls = !flags.plain;
    if (!flags.host.empty()) spec.target.host = flags.host;
    if (flags.pin.empty()) continue;
    const auto pin = ParsePin(flags.pin);
    if (!pin.ok()) return BadFlag("--pin", flags.pin, "must be sha256-raw: and 64 hex digits");
    spec.target.pin = *pin;
  }
  if (flags.no_floor) return absl::OkStatus();
  RelaySubjectSpec floor;
  floor.name = "tls-floor";
  options->subjects.push_back(std::move(floor));
  return absl::OkStatus();
}

absl::Status Check(const RelayOptions& options) {
  const RelayTraffic& t = options.traffic;
  if (t.receivers % t.senders == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--senders=", t.senders, " --receivers=", t.receivers,
                   ": receivers must be a multiple of senders, each of which has its own"));
}

void ApplyCommand(RelayOptions* options) {
  if (options->command == "quick") {
    options->rounds = 3;
    options->seconds = 0.4;
    options->warmup = 0.2;
  } else if (options->command == "latency") {
    options->traffic = {.size = 128, .one_in_flight = true};
  } else if (options->command == "stall") {
    // Longer than a relay waits for one that does not read.
    options->traffic = {.senders = 20, .receivers = 20, .rate = 60'000};
    options->seconds = 4;
    options->rounds = 3;
  } else if (options->command == "sweep") {
    options->rounds = 3;
  }
}

}  // namespace

absl::StatusOr<RelayOptions> ParseRelayOptions(std::span<const char* const> arguments,
                                               const std::string& program) {
  RelayOptions options;
  const std::string known = absl::StrJoin(kCommands, ", ");
  if (arguments.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("no command; one of ", known));
  }
  options.command = arguments[0];
  if (options.command == "--help" || options.command == "-h") options.command = "help";
  if (std::find(std::begin(kCommands), std::end(kCommands), options.command) ==
      std::end(kCommands)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.command, ": no such command; known are ", known));
  }
  ApplyCommand(&options);
  SubjectFlags subjects;
  absl::Status status = ParseFlags(arguments.subspan(1), Flags(&options, &subjects));
  if (absl::IsCancelled(status)) {
    options.command = "help";
    return options;
  }
  if (status.ok()) status = Check(options);
  if (status.ok()) status = MakeSubjects(subjects, program, &options);
  if (!status.ok()) return status;
  return options;
}

std::string RelayHelpText() {
  return R"(ringsock-relay-bench: a relay (DERP over TLS) measured beside a bare forwarder

usage: ringsock-relay-bench COMMAND [FLAGS]

commands
  quick       1 to 1 and 20 to 20, paced and flat out; about half a minute
  throughput  one shape, as the flags say
  all         1-1, 1-100, 20-20, 100-100 at 1400 and 64 B, paced and flat out
  sweep       offered load from 0.5 to 4 times the capacity, and flat out: what is delivered, as a
              share of what was due, or of the best rate of all where more was due than that
  latency     one packet in flight (128 B), and the same at --rate packets a second
  memory      --clients idle clients: memory of the relay and of the kernel, each
  stall       20 to 20 and one more receiver that every sender also sends to: it reads, or stops

load: one thread with all clients, on the first core; each sends frames in TLS records as full as
they come
  --senders N --receivers M  clients; M is a multiple of N, sender i has the i-th part of them
  --size BYTES       of a packet, 32 to 16347
  --rate PPS         packets a second over all senders, such as 40k: what is due in a tick leaves in
                     one go. 0: flat out, as much as TCP takes
  --tick-us US       (1000)
  --check N          open one of so many received TLS records (8); packets are counted by length

measurement
  --rounds N         in each, every subject runs once, beginning with another one (5)
  --seconds S        of one measurement (1), after --warmup S (0.3)
  --clients N        of memory (10000), which is read --settle S (3) after the last login
  --capacity PPS     of sweep; searched for if not given
  --json FILE|-      everything measured, each round

subjects: by default the ringsock-relay built beside this program, and the floor
  --relay-command [NAME=]COMMAND
                     starts it on the last core; {port}, {metrics} become free TCP ports, {dir} a
                     fresh directory. May be repeated
  --relay IP:PORT    one that runs already, with --pid N for its CPU time, --metrics IP:PORT for its
                     counters
  --pin sha256-raw:HEX | --insecure | --insecure-plain
                     its certificate; any certificate; no TLS. What this program starts needs none
  --host NAME        for SNI and HTTP (localhost)
  --no-floor

figures
  floor      one thread, epoll, BoringSSL: reads records of one connection and writes what they hold
             to another. No frames, no queues: what any relay in user space has to spend
  ns/pkt     CPU time of the whole relay process per packet that came out of it
  busy       that CPU time over wall time; the load's beside it. Where the load is at 100% and the
             relay is not, the load was the limit
  lost       written by the sender and never delivered, of all that was offered
  held       was due and never written, because TCP took no more: the relay slowed the sender down
  p50 p99    microseconds from when a packet was due until it was counted
)";
}

}  // namespace ringsock::bench
