// Runs a hand-written loop as a subject: a thread per core, each with a socket of its own that
// shares the port.
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <latch>
#include <thread>

#include "absl/strings/str_cat.h"
#include "bench/baseline/baseline.h"
#include "bench/routes.h"
#include "bench/sockets.h"
#include "bench/subject.h"

namespace ringsock::bench {
namespace {

sockaddr_in ToV4(const Endpoint& endpoint) {
  sockaddr_storage storage = {};
  endpoint.ToSockaddr(&storage);
  sockaddr_in address;
  std::memcpy(&address, &storage, sizeof(address));
  return address;
}

}  // namespace

RouteTable MakeRoutes(const SubjectConfig& config) {
  RouteTable routes;
  for (size_t i = 0; i < config.peers.size(); ++i) {
    const size_t to = config.traffic.mode == Mode::kForward ? i ^ 1 : i;
    routes.Add(ToV4(config.peers[i]), ToV4(config.peers[to]));
  }
  return routes;
}

Source MakeSource(const SubjectConfig& config) {
  const Traffic& t = config.traffic;
  Source source;
  for (const Endpoint& peer : config.peers) source.targets.push_back(ToV4(peer));
  source.trains_per_request = t.trains_per_request();
  source.train = t.train;
  source.segment = t.size;
  source.bytes.resize(size_t{t.size} * t.train);
  return source;
}

namespace {

absl::Status RunLoop(SubjectKind kind, const Baseline& baseline) {
  switch (kind) {
    case SubjectKind::kRecvfrom:
      return RunRecvfrom(baseline);
    case SubjectKind::kRecvmmsg:
      return RunRecvmmsg(baseline);
    case SubjectKind::kRecvmmsgGro:
      return RunRecvmmsgGro(baseline);
    case SubjectKind::kUring:
      return RunUring(baseline);
    default:
      return absl::InternalError("not a hand-written loop");
  }
}

struct Worker {
  int fd = -1;
  BaselineTotals totals;
  Source source;
  absl::Status status;
  std::thread thread;
};

absl::Status OpenWorker(const SubjectConfig& config, uint16_t port, Worker* worker) {
  const absl::StatusOr<int> fd =
      OpenUdpSocket({.ip = config.address, .port = port}, config.socket_buffer);
  if (!fd.ok()) return fd.status();
  worker->fd = *fd;
  const timeval timeout = {.tv_sec = 0, .tv_usec = 20'000};
  if (setsockopt(*fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) != 0) {
    return absl::InternalError(absl::StrCat("SO_RCVTIMEO: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

void Account(const std::deque<Worker>& workers, SubjectTotals* totals) {
  uint64_t unknown = 0;
  uint64_t failed = 0;
  for (const Worker& worker : workers) {
    totals->received += worker.totals.received;
    totals->sent += worker.totals.sent;
    unknown += worker.totals.unknown;
    failed += worker.totals.failed;
  }
  totals->AddReason("unknown source", unknown);
  totals->AddReason("send failed", failed);
}

}  // namespace

absl::Status RunBaselineSubject(const SubjectConfig& config, SubjectShared* shared,
                                const SubjectHooks& hooks) {
  const RouteTable routes = MakeRoutes(config);
  const Mode mode = config.traffic.mode;
  const bool sends = mode == Mode::kSend;
  std::atomic<bool> stop{false};
  std::deque<Worker> workers(config.cores.size());
  uint16_t port = 0;
  for (Worker& worker : workers) {
    const absl::Status status = OpenWorker(config, port, &worker);
    if (!status.ok()) return status;
    port = LocalPort(worker.fd);
    if (sends) worker.source = MakeSource(config);
  }
  std::atomic<uint32_t> failed{0};
  std::latch set_up(static_cast<ptrdiff_t>(workers.size()));
  for (size_t i = 0; i < workers.size(); ++i) {
    workers[i].thread = std::thread([&, i] {
      PinThisThread({config.cores[i]});
      Worker& worker = workers[i];
      worker.status = RunLoop(config.spec.kind, {.fd = worker.fd,
                                                 .routes = &routes,
                                                 .receive_only = mode == Mode::kReceive,
                                                 .source = sends ? &worker.source : nullptr,
                                                 .batch = std::max(config.spec.batch, 1u),
                                                 .spin = config.engine.spin > Duration::zero(),
                                                 .stop = &stop,
                                                 .feedback = &shared->received,
                                                 .totals = &worker.totals,
                                                 .ready = &set_up});
      if (worker.status.ok()) return;
      failed.fetch_add(1);
      set_up.count_down();
    });
  }
  set_up.wait();
  shared->port = port;
  if (failed.load() == 0) {
    hooks.ready(hooks.context);
    hooks.wait(hooks.context);
  }
  stop = true;
  for (Worker& worker : workers) worker.thread.join();
  for (Worker& worker : workers) {
    if (!worker.status.ok()) return worker.status;
    close(worker.fd);
  }
  Account(workers, &shared->totals);
  return absl::OkStatus();
}

}  // namespace ringsock::bench
