// ringsock-idle-bench: what an engine costs that has nothing to do. It has peers, a connection to a
// relay and a netcheck every 20 to 26 s; the relay, with STUN, is a process of its own. Prints the
// CPU time of the engine's threads as a share of a core, and how often they woke up.
#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "bench/flags.h"
#include "core/engine.h"
#include "derp/tls.h"
#include "relay/server.h"
#include "stun/server.h"

namespace ringsock::bench {
namespace {

struct Options {
  uint32_t seconds = 60;
  uint32_t peers = 1000;
  uint32_t shards = 1;
};

class Ignore final : public Handler {
 public:
  void OnReceive(Shard&, std::span<const ReceivedTrain>) override {}
};

// What the engine has to know of the relay.
struct RelayAddress {
  uint16_t derp_port = 0;
  uint16_t stun_port = 0;
  char pin[65] = {};  // SHA-256 of the certificate
};

absl::Status ServeForEver(int pipe) {
  const derp::ServerIdentity identity(PrivateKey::Generate());
  auto tls = derp::TlsServerContext::Create({.meta_key = identity.public_key()});
  if (!tls.ok()) return tls.status();
  const int64_t now = time(nullptr);
  auto certificate = derp::MakeSelfSignedCertificate("127.0.0.1", now - 60, now + 86400);
  if (!certificate.ok()) return certificate.status();
  absl::Status status = (*tls)->Load(certificate->chain_pem, certificate->key_pem);
  if (!status.ok()) return status;
  const auto pin = derp::CertificatePin(certificate->chain_pem);
  if (!pin.ok()) return pin.status();
  relay::Options options;
  options.identity = &identity;
  options.tls = tls->get();
  options.listen = {{{IpAddress::V4(127, 0, 0, 1), 0, 0}, /*tls=*/true}};
  auto server = relay::Server::Create(std::move(options));
  if (!server.ok()) return server.status();
  status = (*server)->Start();
  if (!status.ok()) return status;
  auto loop = io::CreateLoop({});
  if (!loop.ok()) return loop.status();
  stun::Server stun(loop->get(), stun::Dialect::kReference);
  status = stun.Open({IpAddress::V4(127, 0, 0, 1), 0, 0});
  if (!status.ok()) return status;

  RelayAddress address;
  address.derp_port = (*server)->LocalEndpoints().at(0).port;
  address.stun_port = stun.endpoints().at(0).port;
  const std::string hex =
      absl::BytesToHexString({reinterpret_cast<const char*>(pin->data()), pin->size()});
  std::strncpy(address.pin, hex.c_str(), sizeof(address.pin) - 1);
  if (write(pipe, &address, sizeof(address)) != sizeof(address)) {
    return absl::InternalError("the pipe is gone");
  }
  for (;;) (*loop)->Poll(Instant::max());
}

// Forks; this process has no threads yet.
absl::StatusOr<RelayAddress> StartRelay() {
  int ends[2];
  if (pipe(ends) != 0) return absl::ResourceExhaustedError("pipe");
  const pid_t child = fork();
  if (child < 0) return absl::ResourceExhaustedError("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    const absl::Status status = ServeForEver(ends[1]);
    std::fprintf(stderr, "ringsock-idle-bench: relay: %s\n", status.ToString().c_str());
    _exit(1);
  }
  close(ends[1]);
  RelayAddress address;
  if (read(ends[0], &address, sizeof(address)) != sizeof(address)) {
    return absl::UnavailableError("the relay did not start");
  }
  return address;
}

derp::RelayMap MapOf(const RelayAddress& address) {
  derp::RelayNode node;
  node.name = "1a";
  node.region_id = 1;
  node.host_name = node.ipv4 = "127.0.0.1";
  node.ipv6 = "none";
  node.cert_name = absl::StrCat("sha256-raw:", address.pin);
  node.derp_port = address.derp_port;
  node.stun_port = address.stun_port;
  derp::RelayMap map;
  map.regions[1] = {.region_id = 1, .region_code = "here", .region_name = "", .nodes = {node}};
  return map;
}

PublicKey KeyOf(uint64_t index) {
  PublicKey key;
  ++index;
  std::memcpy(key.bytes.data(), &index, sizeof(index));
  return key;
}

struct ThreadTimes {
  std::string name;
  double milliseconds = 0;
  uint64_t sleeps = 0;  // times it gave up its core by itself
};

// By thread id, all threads of this process but the first.
std::map<int, ThreadTimes> ReadThreads() {
  std::map<int, ThreadTimes> threads;
  DIR* const directory = opendir("/proc/self/task");
  while (const dirent* entry = readdir(directory)) {
    const int tid = atoi(entry->d_name);
    if (tid == 0 || tid == getpid()) continue;
    const std::string path = absl::StrCat("/proc/self/task/", tid, "/");
    ThreadTimes& thread = threads[tid];
    std::ifstream(path + "comm") >> thread.name;
    double nanoseconds = 0;
    std::ifstream(path + "schedstat") >> nanoseconds;
    thread.milliseconds = nanoseconds / 1e6;
    std::ifstream status(path + "status");
    for (std::string line; std::getline(status, line);) {
      if (sscanf(line.c_str(), "voluntary_ctxt_switches: %lu", &thread.sleeps) == 1) break;
    }
  }
  closedir(directory);
  return threads;
}

bool RelayIsUp(const Engine& engine) {
  const EngineStatus status = engine.Status();
  return !status.relays.empty() && status.relays.front().up && status.last_report.has_value();
}

absl::Status Measure(const Options& options) {
  const auto relay = StartRelay();
  if (!relay.ok()) return relay.status();
  Log().set_level(spdlog::level::warn);
  Ignore ignore;
  EngineOptions engine_options;
  engine_options.shards = options.shards;
  auto engine = Engine::Start(engine_options, &ignore);
  if (!engine.ok()) return engine.status();
  absl::Status status = (*engine)->SetPrivateKey(PrivateKey::Generate());
  if (status.ok()) status = (*engine)->SetRelayMap(MapOf(*relay));
  if (!status.ok()) return status;
  for (uint32_t i = 0; i < options.peers; ++i) {
    // Addresses of RFC 6598: nothing is sent there.
    const Endpoint nowhere{.ip = IpAddress::V4(0x64400000u + i), .port = 51820};
    const auto id =
        (*engine)->CreateEndpoint(KeyOf(i), absl::StrCat("127.3.3.40:1,", nowhere.ToString()));
    if (!id.ok()) return id.status();
  }
  for (int i = 0; i < 100 && !RelayIsUp(**engine); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (!RelayIsUp(**engine)) return absl::UnavailableError("the engine does not reach its relay");
  std::this_thread::sleep_for(std::chrono::seconds(1));

  const auto before = ReadThreads();
  const uint64_t answers = (*engine)->Status().netcheck.answers;
  std::this_thread::sleep_for(std::chrono::seconds(options.seconds));
  auto after = ReadThreads();
  double total = 0;
  std::printf("%u s, %u peers, %lu answers of STUN, backend %s\n", options.seconds, options.peers,
              (*engine)->Status().netcheck.answers - answers, (*engine)->Status().backend.c_str());
  for (auto& [tid, thread] : after) {
    const auto was = before.find(tid);
    if (was != before.end()) {
      thread.milliseconds -= was->second.milliseconds;
      thread.sleeps -= was->second.sleeps;
    }
    total += thread.milliseconds;
    std::printf("  %-15s %8.3f ms  %6.4f%% of a core  %6.2f wake-ups/s\n", thread.name.c_str(),
                thread.milliseconds, thread.milliseconds / options.seconds / 10,
                static_cast<double>(thread.sleeps) / options.seconds);
  }
  std::printf("  %-15s %8.3f ms  %6.4f%% of a core\n", "all", total, total / options.seconds / 10);
  (*engine)->Close();
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  const std::vector<const char*> arguments(argv + std::min(argc, 1), argv + argc);
  absl::Status status = ParseFlags(arguments, {{"--seconds", {UintFlag(1, 3600, &options.seconds)}},
                                               {"--peers", {UintFlag(0, 1u << 20, &options.peers)}},
                                               {"--shards", {UintFlag(1, 128, &options.shards)}}});
  if (absl::IsCancelled(status)) {
    std::puts("usage: ringsock-idle-bench [--seconds S (60)] [--peers N (1000)] [--shards N (1)]");
    return 0;
  }
  const int usage = 2;
  if (!status.ok()) {
    std::fprintf(stderr, "ringsock-idle-bench: %s\n", status.ToString().c_str());
    return usage;
  }
  status = Measure(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "ringsock-idle-bench: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace ringsock::bench

int main(int argc, char** argv) { return ringsock::bench::Main(argc, argv); }
