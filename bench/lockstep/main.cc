// ringsock-lockstep: what the engine and hand-written loops cost, side by side on one thread.
#include <algorithm>
#include <cstdio>

#include "absl/strings/str_split.h"
#include "base/log.h"
#include "bench/flags.h"
#include "bench/lockstep/bench.h"

namespace ringsock::bench {
namespace {

constexpr char kUsage[] =
    "usage: ringsock-lockstep [--mode forward|receive|send] [--topology loopback|veth]\n"
    "  [--size BYTES] [--train N] [--mix] [--interleave N] [--peers N] [--idle-peers N]\n"
    "  [--burst TRAINS] [--rounds N] [--bursts N] [--subjects LIST] [--engine-options LIST]\n"
    "  [--shards 1|2] [--flood unknown|stun|handshake|garbage [--strangers PER_BURST]]\n";

absl::Status SetMode(absl::string_view flag, absl::string_view value, Mode* mode) {
  for (const Mode known : {Mode::kForward, Mode::kReceive, Mode::kSend}) {
    if (value != ModeName(known)) continue;
    *mode = known;
    return absl::OkStatus();
  }
  return BadFlag(flag, value, "forward, receive or send");
}

absl::Status SetTopology(absl::string_view flag, absl::string_view value, TopologyKind* kind) {
  for (const TopologyKind known : {TopologyKind::kLoopback, TopologyKind::kVeth}) {
    if (value != TopologyName(known)) continue;
    *kind = known;
    return absl::OkStatus();
  }
  return BadFlag(flag, value, "loopback or veth");
}

absl::StatusOr<LockstepOptions> Parse(const std::vector<const char*>& arguments) {
  LockstepOptions options;
  std::string subjects = "recvmmsg+gro:8,recvmmsg+gro:32,uring,ringsock,ringsock-mmsg";
  const auto flood = [&options](absl::string_view, absl::string_view value) {
    const auto kind = ParseFlood(value);
    if (kind.ok()) options.flood = *kind;
    return kind.status();
  };
  const auto engine = [&options](absl::string_view, absl::string_view value) {
    return ParseEngineOptions(value, &options.engine);
  };
  const auto mode = [&options](absl::string_view flag, absl::string_view value) {
    return SetMode(flag, value, &options.traffic.mode);
  };
  const auto topology = [&options](absl::string_view flag, absl::string_view value) {
    return SetTopology(flag, value, &options.topology);
  };
  const FlagTable flags = {{"--mode", {mode}},
                           {"--topology", {topology}},
                           {"--size", {UintFlag(32, 65507, &options.traffic.size)}},
                           {"--train", {UintFlag(1, 64, &options.traffic.train)}},
                           {"--mix", SwitchFlag(&options.traffic.mix)},
                           {"--interleave", {UintFlag(1, 64, &options.traffic.interleave)}},
                           {"--peers", {UintFlag(8, 1 << 16, &options.traffic.peers)}},
                           {"--idle-peers", {UintFlag(0, 1 << 20, &options.idle_peers)}},
                           {"--burst", {UintFlag(1, 64, &options.burst)}},
                           {"--rounds", {UintFlag(1, 10000, &options.rounds)}},
                           {"--bursts", {UintFlag(1, 10000, &options.bursts)}},
                           {"--subjects", {TextFlag("a list", &subjects)}},
                           {"--engine-options", {engine}},
                           {"--shards", {UintFlag(1, 2, &options.shards)}},
                           {"--flood", {flood}},
                           {"--strangers", {UintFlag(1, 1024, &options.strangers)}}};
  if (absl::Status status = ParseFlags(arguments, flags); !status.ok()) return status;
  if (uint64_t{options.traffic.size} * options.traffic.train > io::kMaxDatagram) {
    return absl::InvalidArgumentError("--size times --train is more than a train can be");
  }
  auto specs = ParseSubjects(subjects);
  if (!specs.ok()) return specs.status();
  options.subjects = *specs;
  return options;
}

int Main(int argc, char** argv) {
  Log().set_level(spdlog::level::warn);
  const auto options = Parse({argv + std::min(argc, 1), argv + argc});
  if (!options.ok()) {
    const bool help = absl::IsCancelled(options.status());
    std::fprintf(stderr, "%s%s%s", help ? "" : std::string(options.status().message()).c_str(),
                 help ? "" : "\n", kUsage);
    return help ? 0 : 2;
  }
  const auto cases = RunLockstep(*options);
  if (!cases.ok()) {
    std::fprintf(stderr, "ringsock-lockstep: %s\n", cases.status().ToString().c_str());
    return 1;
  }
  std::printf("%s", LockstepText(*options, *cases).c_str());
  return 0;
}

}  // namespace
}  // namespace ringsock::bench

int main(int argc, char** argv) { return ringsock::bench::Main(argc, argv); }
