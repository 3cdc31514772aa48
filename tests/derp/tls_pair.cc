#include "tests/derp/tls_pair.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "tests/derp/tls_certificates.h"

namespace ringsock::derp {
namespace {

int64_t test_time = kTestTime;

}  // namespace

void SetTestTime(int64_t unix_time) { test_time = unix_time; }

std::unique_ptr<TlsClientContext> NewTestClient(const std::string& roots_pem,
                                                TlsClientContext::Options options) {
  if (!roots_pem.empty()) options.roots_file = WriteTestFile("roots.pem", roots_pem);
  options.unix_time = [] { return test_time; };
  auto context = TlsClientContext::Create(options);
  if (!context.ok()) std::abort();
  return *std::move(context);
}

std::unique_ptr<TlsServerContext> NewTestServer(const std::string& chain_pem,
                                                const std::string& key_pem, bool meta_certificate) {
  TlsServerContext::Options options;
  options.meta_key.bytes = {1, 2, 3};
  options.meta_certificate = meta_certificate;
  auto context = TlsServerContext::Create(options);
  if (!context.ok() || !(*context)->Load(chain_pem, key_pem).ok()) std::abort();
  return *std::move(context);
}

TlsTarget TargetNamed(const std::string& name) {
  TlsTarget target;
  target.host_name = target.certificate_name = name;
  return target;
}

void TlsEnd::TakeFrom(TlsEnd* other, size_t chunk) {
  std::vector<std::byte> bytes = std::exchange(other->written, {});
  for (std::span<std::byte> rest = bytes; !rest.empty() && status.ok();) {
    const size_t size = std::min(chunk, rest.size());
    status = session->Receive(rest.first(size));
    rest = rest.subspan(size);
  }
}

TlsPair::TlsPair(TlsClientContext* client_context, TlsServerContext* server_context,
                 const TlsTarget& target) {
  auto client_session = TlsSession::NewClient(client_context, target, &client, &client);
  auto server_session = TlsSession::NewServer(server_context, &server, &server);
  if (!client_session.ok() || !server_session.ok()) std::abort();
  client.session = *std::move(client_session);
  server.session = *std::move(server_session);
}

void TlsPair::Handshake(size_t chunk) {
  client.status = client.session->Start();
  server.status = server.session->Start();
  Pump(chunk);
}

void TlsPair::Pump(size_t chunk) {
  const auto moving = [](const TlsEnd& from, const TlsEnd& to) {
    return !from.written.empty() && to.status.ok();
  };
  while (moving(client, server) || moving(server, client)) {
    server.TakeFrom(&client, chunk);
    client.TakeFrom(&server, chunk);
  }
}

}  // namespace ringsock::derp
