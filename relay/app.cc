#include "relay/app.h"

#include <algorithm>
#include <ctime>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "derp/json.h"
#include "derp/relay_map.h"
#include "relay/allow_list.h"
#include "relay/certificate_info.h"
#include "relay/key_file.h"
#include "relay/map_entry.h"
#include "relay/state_file.h"

namespace ringsock::relay {
namespace {

constexpr char kKeyFile[] = "/relay.key";
constexpr char kSelfSignedFile[] = "/self-signed.pem";
constexpr size_t kClientsLogged = 100;
// A worker that does not answer for so long is stuck: its turns take milliseconds. STUN waits too.
constexpr Duration kStuck = std::chrono::seconds(1);
// Descriptors beside the clients': rings, listeners, mesh, files.
constexpr uint64_t kOtherDescriptors = 256;
// The services' loop moves little: two UDP sockets and a few connections.
constexpr uint32_t kServiceSlabs = 8;

int64_t UnixTime() { return std::time(nullptr); }

std::string JoinEndpoints(const std::vector<Endpoint>& endpoints) {
  return absl::StrJoin(endpoints, ", ", [](std::string* out, const Endpoint& endpoint) {
    absl::StrAppend(out, endpoint.ToString());
  });
}

}  // namespace

App::~App() {
  services_.reset();
  StopServer();
}

void App::StopServer() {
  if (server_ != nullptr) server_->Stop(Duration::zero());
  server_.reset();
}

absl::StatusOr<std::unique_ptr<App>> App::Prepare(const Config& config) {
  std::unique_ptr<App> app(new App(config));
  if (absl::Status made = PrepareStateDirectory(config.state_dir); !made.ok()) return made;
  const std::string key_file = config.state_dir + kKeyFile;
  bool made = false;
  absl::StatusOr<PrivateKey> key = LoadOrMakeKey(key_file, &made);
  if (!key.ok()) return key.status();
  if (made) Log().info("made a new key, kept in {}", key_file);
  app->identity_ = std::make_unique<derp::ServerIdentity>(*std::move(key));
  if (absl::Status tls = app->PrepareTls(); !tls.ok()) return tls;
  if (absl::Status mesh = app->PrepareMesh(); !mesh.ok()) return mesh;
  if (absl::Status allowed = app->LoadAllowed(); !allowed.ok()) return allowed;
  app->bind_ = config.bind;
  if (app->bind_.empty()) {
    app->bind_.push_back(IpAddress::AnyV4());
    if (HasIpv6()) {
      app->bind_.push_back(IpAddress::AnyV6());
    } else {
      Log().info("this host has no IPv6: serving IPv4 only");
    }
  }
  return app;
}

absl::Status App::PrepareTls() {
  if (config_.port < 0) return absl::OkStatus();
  auto context = derp::TlsServerContext::Create(
      {.meta_key = identity_->public_key(), .meta_certificate = config_.fast_start});
  if (!context.ok()) return context.status();
  tls_ = *std::move(context);
  CertificateSource source;
  source.host_name = config_.host_name;
  source.chain_file = config_.certificate;
  source.key_file = config_.certificate_key;
  source.self_signed_file = config_.state_dir + kSelfSignedFile;
  certificate_ = std::make_unique<CertificateStore>(source, tls_.get(), UnixTime);
  if (absl::Status loaded = certificate_->Load(); !loaded.ok()) return loaded;
  if (certificate_->made()) {
    Log().info("made a self-signed certificate, kept in {}", source.self_signed_file);
  }
  LogWarnings();
  return absl::OkStatus();
}

absl::Status App::PrepareMesh() {
  if (config_.mesh_key.empty()) return absl::OkStatus();
  absl::StatusOr<PrivateKey> key = LoadKey(config_.mesh_key);
  if (!key.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--mesh-key ", key.status().message()));
  }
  mesh_key_ = *std::move(key);
  bool any_tls = false;
  for (const MeshUrl& url : config_.mesh) {
    const absl::StatusOr<IpAddress> ip = ResolveHost(url.host);
    if (!ip.ok()) {
      return absl::UnavailableError(
          absl::StrCat("--mesh-with ", url.ToString(), ": ", ip.status().message()));
    }
    MeshPeer peer;
    peer.address = Endpoint{*ip, url.port};
    peer.tls = url.tls;
    derp::RelayNode node;
    node.host_name = url.host;
    node.cert_name = url.pin;
    peer.target = derp::TlsTarget::Of(node);
    mesh_.push_back(std::move(peer));
    any_tls = any_tls || url.tls;
  }
  if (!any_tls) return absl::OkStatus();
  derp::TlsClientContext::Options options;
  options.roots_file = config_.mesh_roots;
  auto context = derp::TlsClientContext::Create(options);
  if (!context.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--mesh-roots: ", context.status().message()));
  }
  mesh_tls_ = *std::move(context);
  return absl::OkStatus();
}

absl::Status App::LoadAllowed() {
  if (config_.allow_list.empty()) return absl::OkStatus();
  absl::StatusOr<AllowList> allowed = LoadAllowList(config_.allow_list);
  if (!allowed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--allow-list ", allowed.status().message()));
  }
  if (allowed->empty()) {
    Log().warn("allow-list {} has no keys: nobody will be let in", config_.allow_list);
  }
  allowed_ = std::make_shared<const AllowList>(*std::move(allowed));
  shown_.allowed_keys.store(allowed_->size());
  return absl::OkStatus();
}

Options App::ServerOptions() const {
  Options options;
  options.identity = identity_.get();
  options.tls = tls_.get();
  options.mesh_tls = mesh_tls_.get();
  if (config_.port >= 0) {
    for (const IpAddress& ip : bind_) {
      options.listen.push_back({Endpoint{ip, port_}, true});
    }
  }
  for (const Endpoint& address : config_.plain) options.listen.push_back({address, false});
  const std::vector<int> cpus = AllowedCpus();
  options.workers = config_.workers != 0
                        ? config_.workers
                        : std::clamp(static_cast<int>(cpus.size()), 1, Options::kMaxWorkers);
  if (config_.pin_workers) options.cpus = cpus;
  options.loop.backend = config_.backend;
  // All of them may meet on one worker.
  options.loop.max_streams =
      std::max<uint32_t>(options.loop.max_streams, config_.limits.max_clients + 1024);
  options.limits = config_.limits;
  options.queues = config_.queues;
  options.allow = allowed_;
  options.mesh_key = mesh_key_.Clone();
  options.mesh = mesh_;
  options.restart_reconnect_in = config_.reconnect_in;
  return options;
}

LocalServices::Options App::ServicesOptions() {
  LocalServices::Options options;
  options.loop.backend = config_.backend;
  options.loop.tx_slabs = kServiceSlabs;
  options.loop.zero_copy = false;
  options.loop.max_streams = 2 * LocalHttp::kMaxConnections;
  options.loop.stream_buffers = LocalHttp::kMaxConnections;
  if (config_.stun_port >= 0) {
    for (const IpAddress& ip : bind_) {
      options.stun.push_back(Endpoint{ip, static_cast<uint16_t>(config_.stun_port)});
    }
  }
  options.metrics = config_.metrics;
  options.pages = [this](absl::string_view path, const stun::ServerStats* stun) {
    return MakePage(path, stun);
  };
  return options;
}

absl::Status App::ClaimPorts(std::vector<SharedPort>* claimed) {
  for (const Endpoint& address : config_.plain) {
    absl::StatusOr<SharedPort> port = ClaimPort(address);
    if (!port.ok()) return port.status();
  }
  if (config_.port < 0) return absl::OkStatus();
  port_ = static_cast<uint16_t>(config_.port);
  for (const IpAddress& ip : bind_) {
    absl::StatusOr<SharedPort> port = ClaimPort(Endpoint{ip, port_});
    if (!port.ok()) return port.status();
    // One that the kernel chose for the first address is everyone's.
    port_ = port->port;
    claimed->push_back(*std::move(port));
  }
  return absl::OkStatus();
}

absl::Status App::Start() {
  absl::StatusOr<io::Fd> lock = LockStateDirectory(config_.state_dir);
  if (!lock.ok()) return lock.status();
  lock_ = *std::move(lock);
  const uint64_t descriptors = RaiseDescriptorLimit();
  if (descriptors < config_.limits.max_clients + kOtherDescriptors) {
    Log().warn(
        "this process may open {} files, too few for --max-clients {}: raise LimitNOFILE in its "
        "systemd unit (ulimit -Hn)",
        descriptors, config_.limits.max_clients);
  }
  std::vector<SharedPort> claimed;
  if (absl::Status ports = ClaimPorts(&claimed); !ports.ok()) return ports;
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Create(ServerOptions());
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  if (absl::Status started = server_->Start(); !started.ok()) {
    server_.reset();
    return started;
  }
  absl::StatusOr<std::unique_ptr<LocalServices>> services = LocalServices::Start(ServicesOptions());
  if (!services.ok()) {
    StopServer();
    return services.status();
  }
  services_ = *std::move(services);
  return absl::OkStatus();
}

std::string App::MapJson() const {
  MapEntry entry;
  entry.region_id = config_.region_id;
  entry.region_code = config_.region_code;
  entry.region_name = config_.region_name;
  entry.host_name = config_.host_name;
  entry.ipv4 = config_.public_ipv4;
  entry.ipv6 = config_.public_ipv6;
  // Without TLS of our own, whatever stands in front is taken to serve the usual port.
  if (config_.port >= 0) entry.derp_port = static_cast<uint16_t>(config_.port);
  if (config_.stun_port >= 0) entry.stun_port = static_cast<uint16_t>(config_.stun_port);
  if (port_ != 0) entry.derp_port = port_;
  if (services_ != nullptr && config_.stun_port == 0) {
    entry.stun_port = services_->stun_endpoints().front().port;
  }
  if (certificate_ != nullptr && config_.certificate.empty()) entry.pin = certificate_->pin();
  return derp::ToJson(MakeRelayMap(entry));
}

std::vector<std::string> App::Banner() const {
  std::vector<std::string> lines;
  lines.push_back(absl::StrCat("public key ", identity_->public_key().ToHex()));
  if (certificate_ != nullptr) {
    const bool own = config_.certificate.empty();
    lines.push_back(absl::StrCat(
        own ? "self-signed certificate" : "certificate ", config_.certificate, ", valid to ",
        DateText(certificate_->not_after()), ", ", PinText(certificate_->pin())));
  }
  if (server_ == nullptr) return lines;
  std::vector<Endpoint> listening = server_->LocalEndpoints();
  const size_t tls = config_.port < 0 ? 0 : bind_.size();
  const std::vector<Endpoint> plain(listening.begin() + static_cast<ptrdiff_t>(tls),
                                    listening.end());
  listening.resize(tls);
  if (!listening.empty()) lines.push_back(absl::StrCat("TLS on ", JoinEndpoints(listening)));
  if (!plain.empty()) {
    lines.push_back(absl::StrCat("plain HTTP on ", JoinEndpoints(plain),
                                 ", for a proxy that adds TLS: who is on the way can read, "
                                 "block and forge"));
  }
  if (!services_->stun_endpoints().empty()) {
    lines.push_back(absl::StrCat("STUN on ", JoinEndpoints(services_->stun_endpoints())));
  }
  if (services_->metrics_endpoint().has_value()) {
    const std::string at = services_->metrics_endpoint()->ToString();
    lines.push_back(
        absl::StrCat("metrics on http://", at, "/metrics, health on http://", at, "/healthz"));
  }
  return lines;
}

LocalPage App::MakePage(absl::string_view path, const stun::ServerStats* stun) const {
  if (path == "/healthz") {
    const std::lock_guard lock(shown_.mutex);
    if (shown_.stopping) return {.status = 503, .body = "stopping\n"};
    if (!server_->Responsive(kStuck)) return {.status = 503, .body = "a worker is stuck\n"};
    return {.status = 200, .body = "ok\n"};
  }
  if (path != "/metrics") return {};
  MetricsInput input;
  input.server = server_->GetStats();
  if (stun != nullptr) input.stun = *stun;
  if (certificate_ != nullptr) input.certificate_not_after = certificate_->not_after();
  for (size_t i = 0; i < kReloadedFiles; ++i) {
    input.reloads[i] = {shown_.reloads_ok[i].load(), shown_.reloads_refused[i].load()};
  }
  input.max_clients = config_.limits.max_clients;
  input.allow_list = !config_.allow_list.empty();
  input.allowed_keys = shown_.allowed_keys.load();
  input.process = ReadProcessStats();
  return {.status = 200,
          .content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = MetricsText(input)};
}

void App::CountReload(ReloadedFile file, const absl::Status& status) {
  auto& counts = status.ok() ? shown_.reloads_ok : shown_.reloads_refused;
  counts[static_cast<size_t>(file)].fetch_add(1);
  if (!status.ok()) {
    Log().error("reload: {}; the old {} stays", Fmt(status.message()), ReloadedFileName(file));
  }
}

void App::Reload() {
  if (certificate_ != nullptr) {
    const absl::Status loaded = certificate_->Load();
    CountReload(ReloadedFile::kCertificate, loaded);
    if (loaded.ok()) {
      Log().info("reload: certificate valid to {}, {}", DateText(certificate_->not_after()),
                 PinText(certificate_->pin()));
      LogWarnings();
    }
  }
  if (!config_.allow_list.empty()) {
    const absl::Status loaded = LoadAllowed();
    CountReload(ReloadedFile::kAllowList, loaded);
    if (loaded.ok()) {
      server_->SetAllowList(allowed_);
      Log().info("reload: {} keys on the allow-list", allowed_->size());
    }
  }
  Log().info("reload: done");
  Log().flush();
}

void App::LogStatus() const {
  for (const ClientStatus& client : server_->Clients(kClientsLogged)) {
    Log().info("status: client {} from {}{}{}{} {} in={} ({} B) out={} dropped={} queued={} B {}",
               client.key.ToHex(), client.remote.ToString(), client.active ? "" : " standby",
               client.mesh ? " mesh" : "", client.preferred ? " home" : "",
               client.tls.empty() ? "plain" : client.tls, client.packets_in, client.bytes_in,
               client.packets_out, client.dropped, client.queued_bytes,
               derp::CleanText(client.app_name, 40));
  }
  const Stats stats = server_->GetStats();
  std::string text = absl::StrCat("clients=", stats.clients, " keys=", stats.keys,
                                  " connections=", stats.connections);
  for (const CounterInfo& counter : CounterTable()) {
    const uint64_t value = stats.*counter.field;
    if (value == 0) continue;
    absl::StrAppend(&text, " ", counter.family, counter.label[0] == '\0' ? "" : ".", counter.label,
                    "=", value);
  }
  Log().info("status: {}", text);
  Log().flush();
}

void App::LogWarnings() const {
  if (certificate_ == nullptr) return;
  for (const std::string& warning : certificate_->warnings()) Log().warn("{}", warning);
}

void App::Stop() {
  {
    // No page asks the workers from here on.
    const std::lock_guard lock(shown_.mutex);
    shown_.stopping = true;
  }
  server_->Stop(config_.stop_grace);
  LogStatus();
  services_.reset();
}

}  // namespace ringsock::relay
