// The server behind relay/server.h: makes the workers, starts and ends their threads, and carries
// questions to them.
#ifndef RINGSOCK_RELAY_SERVER_IMPL_H_
#define RINGSOCK_RELAY_SERVER_IMPL_H_

#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "relay/registry.h"
#include "relay/server.h"
#include "relay/worker.h"

namespace ringsock::relay {

class ServerImpl final : public Server {
 public:
  explicit ServerImpl(Options options);
  ~ServerImpl() override;

  absl::Status Start() override;
  std::vector<Endpoint> LocalEndpoints() const override { return endpoints_; }
  void Stop(Duration grace) override;
  void SetAllowList(std::shared_ptr<const AllowList> allow) override;
  Stats GetStats() const override;
  std::vector<ClientStatus> Clients(size_t max) override;
  bool Responsive(Duration within) override;

  // As Start() without threads, for simulated loops: whoever drives them calls Worker::Turn().
  absl::Status Open();
  Worker& worker(size_t index) { return *workers_[index]; }

 private:
  absl::Status OpenWorkers();
  void RunThread(uint32_t index);
  // Makes `call` on every worker that lives, and waits until all have made it, at most `within`.
  bool AskAll(const Mailbox::Call& call, Duration within);

  Options options_;
  // Meshed servers know one another by the mesh key; this only has to be one that nobody else has.
  const PrivateKey mesh_login_ = PrivateKey::Generate();
  WorkerShared shared_;
  std::unique_ptr<Registry> registry_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Endpoint> endpoints_;
  std::unique_ptr<std::latch> all_ended_;
  std::vector<std::thread> threads_;
  bool started_ = false;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_SERVER_IMPL_H_
