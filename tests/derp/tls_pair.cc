#include "tests/derp/tls_pair.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace ringsock::derp {

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
