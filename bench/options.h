// The command line of ringsock-bench.
#ifndef RINGSOCK_BENCH_OPTIONS_H_
#define RINGSOCK_BENCH_OPTIONS_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "io/loop.h"

namespace ringsock::bench {

enum class Mode : uint8_t {
  kForward,  // what peer i sends goes to peer i^1
  kEcho,     // ... goes back to peer i
  kReceive,  // ... is counted and dropped
  kSend,     // trains leave for the peers in turn, as many as small requests ask for
};
const char* ModeName(Mode mode);

enum class TopologyKind : uint8_t { kLoopback, kVeth, kNicLike };
const char* TopologyName(TopologyKind kind);

enum class SubjectKind : uint8_t {
  kRecvfrom,
  kRecvmmsg,
  kRecvmmsgGro,
  kUring,
  kRingsockUring,
  kRingsockMmsg,
};

// One of the things that are measured.
struct SubjectSpec {
  SubjectKind kind = SubjectKind::kRecvfrom;
  std::string name;    // as given to --subjects
  uint32_t batch = 0;  // messages per system call; 0 where the subject has no such knob
  // Of the engine, over those of --engine-options: "gso=0,rx_batch=4". Variants of one engine are
  // measured in alternating rounds like other subjects.
  std::string variant;

  bool is_bare() const {
    return kind != SubjectKind::kRingsockUring && kind != SubjectKind::kRingsockMmsg;
  }
  // "recvmmsg+gro:8" or "ringsock:gso=0/rx_batch=4", as --subjects takes it.
  std::string Label() const;
};

// What the load looks like.
struct Traffic {
  Mode mode = Mode::kForward;
  uint32_t size = 1400;  // bytes of a datagram (UDP payload)
  uint32_t train = 46;   // datagrams that leave back to back, as one UDP_SEGMENT send
  uint32_t peers = 64;
  double rate = 0;  // packets a second over all peers; 0: flat out
  // Flat out: trains under way at one time per load thread. 0: as many as the socket buffers take.
  uint32_t window = 0;
  bool flood = false;  // flat out without a window: measures what overload does
  // Trains that a peer sends while it is its turn, one by one with those of three other peers.
  uint32_t interleave = 1;
  // Of the peers, in percent: what they send goes on over a relay, with TLS (Mode::kForward).
  uint32_t relayed = 0;
  bool mix = false;  // trains of 1 to `train` datagrams, each of 64 to `size` bytes

  // The sizes of --mix: a share of each, whatever the length of the train.
  std::array<uint32_t, 3> mixed_sizes() const;
  double mean_size() const;
  // Trains that one request asks for (Mode::kSend): enough for the request itself not to matter.
  uint32_t trains_per_request() const { return train >= 8 ? 8 : 32; }
};

struct Options {
  std::string command;  // "quick", "forward", "echo", "receive", "send", "latency", "help"
  Traffic traffic;
  TopologyKind topology = TopologyKind::kLoopback;
  uint32_t gro_flush_us = 0;  // of TopologyKind::kNicLike, see Topology::Create()
  std::vector<SubjectSpec> subjects;
  uint32_t rounds = 5;
  double seconds = 1;
  double warmup = 0.2;           // seconds of load before each measurement
  uint32_t shards = 1;           // cores of the measured side
  uint32_t load_threads = 0;     // cores of the load; 0: what is left, at most 4
  uint32_t idle_peers = 10'000;  // that ringsock subjects know besides, and that never send
  uint32_t check = 8;            // read one of this many received trains whole; 1: all
  std::string json;              // file, or "-" for standard output; "": none
  io::LoopOptions engine;        // of the ringsock subjects
  int socket_buffer = io::kDefaultSocketBuffer;  // of every socket
  uint32_t subject_buffer = 0;                   // of the measured side's, if not 0
};

// `arguments` are those after the program's name. Errors are one line that names the flag, the
// value and what would be right.
absl::StatusOr<Options> ParseOptions(std::span<const char* const> arguments);
// A comma-separated list of names; "all" is every subject.
absl::StatusOr<std::vector<SubjectSpec>> ParseSubjects(absl::string_view text);
// "gso=0,rx_buffers=32,spin_us=20": changes the named fields.
absl::Status ParseEngineOptions(absl::string_view text, io::LoopOptions* options);
std::string EngineOptionsText(const io::LoopOptions& options);
std::string HelpText();

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_OPTIONS_H_
