// Where the packets of a benchmark go: this host's loopback, or a veth pair between two network
// namespaces made for it.
#ifndef RINGSOCK_BENCH_TOPOLOGY_H_
#define RINGSOCK_BENCH_TOPOLOGY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "bench/options.h"

namespace ringsock::bench {

// A network namespace, held open; it and its devices are gone when the last holder and the last
// process in it are.
class Namespace {
 public:
  Namespace() = default;  // the one the process started in
  explicit Namespace(int fd) : fd_(fd) {}
  Namespace(Namespace&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Namespace& operator=(Namespace&& other) noexcept;
  ~Namespace();

  // Moves the calling thread into it. Does nothing for the process's own.
  absl::Status Enter() const;
  bool is_own() const { return fd_ < 0; }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

// Puts the calling thread back where it was at the end of a scope.
class ScopedNamespace {
 public:
  static absl::StatusOr<std::unique_ptr<ScopedNamespace>> Enter(const Namespace& ns);
  ~ScopedNamespace();

 private:
  explicit ScopedNamespace(int fd) : fd_(fd) {}
  int fd_;
};

class Topology {
 public:
  // `mtu`: the largest IP packet that must pass. `load_cores`, `subject_cores`: where kernel
  // threads of each side are bound. `gro_flush_us`: NIC-like: how long the kernel waits for more
  // packets to merge when it has taken all there are. Errors name the cure.
  static absl::StatusOr<std::unique_ptr<Topology>> Create(TopologyKind kind, uint32_t mtu,
                                                          const std::vector<int>& load_cores,
                                                          const std::vector<int>& subject_cores,
                                                          uint32_t gro_flush_us = 0);

  TopologyKind kind() const { return kind_; }
  const Namespace& load() const { return load_; }
  const Namespace& subject() const { return subject_; }
  IpAddress subject_address() const { return subject_address_; }
  // Peer n has this address plus n; room for 2^20 peers.
  uint32_t first_peer_address() const { return first_peer_; }
  // Kernel threads that do the subject's share of the work outside its process.
  const std::vector<int>& subject_kernel_threads() const { return subject_kernel_threads_; }

 private:
  Topology() = default;
  absl::Status Connect(uint32_t mtu);
  absl::Status MakeNicLike(const std::vector<int>& load_cores,
                           const std::vector<int>& subject_cores, uint32_t gro_flush_us);

  TopologyKind kind_ = TopologyKind::kLoopback;
  Namespace load_;
  Namespace subject_;
  IpAddress subject_address_ = IpAddress::V4(127, 0, 0, 1);
  uint32_t first_peer_ = 0;
  std::vector<int> subject_kernel_threads_;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_TOPOLOGY_H_
