// ringsock-relay put together: files of the state directory, the server, and what it serves beside.
#ifndef RINGSOCK_RELAY_APP_H_
#define RINGSOCK_RELAY_APP_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "derp/login.h"
#include "derp/tls.h"
#include "io/fd.h"
#include "relay/certificate_store.h"
#include "relay/config.h"
#include "relay/host.h"
#include "relay/local_services.h"
#include "relay/metrics.h"
#include "relay/server.h"

namespace ringsock::relay {

// For one thread.
class App {
 public:
  // Reads what the configuration names and makes what is not there yet: key, certificate. Opens no
  // socket. Errors name the file or the option, and the cure.
  static absl::StatusOr<std::unique_ptr<App>> Prepare(const Config& config);
  ~App();

  // Opens the sockets and starts the threads; once. An error leaves nothing running.
  absl::Status Start();
  // The relay map that leads clients here, as JSON; with the ports in use once it has started.
  std::string MapJson() const;
  // Where it listens and who it is, in lines for the log.
  std::vector<std::string> Banner() const;

  // Reads the certificate and the allow-list again; what is wrong is refused, logged and counted,
  // and the old one stays.
  void Reload();
  // Clients (the first 100) and counters, to the log.
  void LogStatus() const;
  // Warnings that come with time: a certificate about to expire.
  void LogWarnings() const;
  // Tells clients to reconnect and stops.
  void Stop();

 private:
  explicit App(const Config& config) : config_(config) {}

  absl::Status PrepareTls();
  absl::Status PrepareMesh();
  absl::Status LoadAllowed();
  absl::Status ClaimPorts(std::vector<SharedPort>* claimed);
  Options ServerOptions() const;
  LocalServices::Options ServicesOptions();
  LocalPage MakePage(absl::string_view path, const stun::ServerStats* stun) const;
  void StopServer();
  void CountReload(ReloadedFile file, const absl::Status& status);

  const Config config_;
  io::Fd lock_;
  std::unique_ptr<derp::ServerIdentity> identity_;
  std::unique_ptr<derp::TlsServerContext> tls_;
  std::unique_ptr<CertificateStore> certificate_;  // null without TLS
  std::unique_ptr<derp::TlsClientContext> mesh_tls_;
  derp::MeshKey mesh_key_;
  std::vector<MeshPeer> mesh_;
  std::vector<IpAddress> bind_;
  uint16_t port_ = 0;                         // of TLS, once claimed
  std::shared_ptr<const AllowList> allowed_;  // null: everyone

  // Read by the pages, on the services' thread.
  struct Shown {
    std::mutex mutex;  // held while workers are asked
    bool stopping = false;
    std::atomic<uint64_t> allowed_keys{0};
    std::array<std::atomic<uint64_t>, kReloadedFiles> reloads_ok{};
    std::array<std::atomic<uint64_t>, kReloadedFiles> reloads_refused{};
  };
  mutable Shown shown_;

  std::unique_ptr<Server> server_;
  std::unique_ptr<LocalServices> services_;  // after the server, which its pages ask
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_APP_H_
