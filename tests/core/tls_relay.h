// A relay as it runs in production, threads and TLS with a self-signed certificate, on loopback.
#ifndef RINGSOCK_TESTS_CORE_TLS_RELAY_H_
#define RINGSOCK_TESTS_CORE_TLS_RELAY_H_

#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "derp/relay_map.h"
#include "derp/tls.h"
#include "gtest/gtest.h"
#include "relay/server.h"

namespace ringsock {

class TlsRelay {
 public:
  TlsRelay() {
    auto context = derp::TlsServerContext::Create({.meta_key = identity_.public_key()});
    const int64_t now = time(nullptr);
    auto certificate = derp::MakeSelfSignedCertificate("127.0.0.1", now - 60, now + 3600);
    EXPECT_TRUE(context.ok() && certificate.ok());
    tls_ = std::move(context).value();
    EXPECT_TRUE(tls_->Load(certificate->chain_pem, certificate->key_pem).ok());
    const auto pin = derp::CertificatePin(certificate->chain_pem).value();
    pin_ = absl::StrCat(
        "sha256-raw:",
        absl::BytesToHexString({reinterpret_cast<const char*>(pin.data()), pin.size()}));
    relay::Options options;
    options.identity = &identity_;
    options.tls = tls_.get();
    // Nothing is dropped however long a busy machine keeps a thread waiting.
    options.queues.max_age = options.queues.write_timeout = std::chrono::minutes(1);
    options.listen = {{{IpAddress::V4(127, 0, 0, 1), 0, 0}, /*tls=*/true}};
    auto server = relay::Server::Create(std::move(options));
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = std::move(server).value();
    const absl::Status started = server_->Start();
    EXPECT_TRUE(started.ok()) << started;
  }

  relay::Server& server() { return *server_; }
  const std::string& pin() const { return pin_; }
  // As region 1, with `pin` for its certificate.
  derp::RelayMap Map(const std::string& pin) const {
    derp::RelayNode node;
    node.name = "1a";
    node.region_id = 1;
    node.host_name = node.ipv4 = "127.0.0.1";
    node.ipv6 = "none";
    node.cert_name = pin;
    node.derp_port = server_->LocalEndpoints().at(0).port;
    node.stun_port = -1;
    derp::RelayMap map;
    map.regions[1] = {.region_id = 1, .region_code = "here", .region_name = "", .nodes = {node}};
    return map;
  }

 private:
  const derp::ServerIdentity identity_{PrivateKey::Generate()};
  std::unique_ptr<derp::TlsServerContext> tls_;
  std::string pin_;
  std::unique_ptr<relay::Server> server_;
};

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_TLS_RELAY_H_
