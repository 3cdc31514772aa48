// A TLS client and server in memory, joined by two byte queues that a test can cut, hold and spoil.
#ifndef RINGSOCK_TESTS_DERP_TLS_PAIR_H_
#define RINGSOCK_TESTS_DERP_TLS_PAIR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "derp/tls.h"

namespace ringsock::derp {

inline std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// The time that clients of NewTestClient() see. At first kTestTime.
void SetTestTime(int64_t unix_time);
// Contexts that must come about. `roots_pem` empty: no roots but those of the options.
std::unique_ptr<TlsClientContext> NewTestClient(const std::string& roots_pem,
                                                TlsClientContext::Options options = {});
// Its meta key begins with 1, 2, 3.
std::unique_ptr<TlsServerContext> NewTestServer(const std::string& chain_pem,
                                                const std::string& key_pem,
                                                bool meta_certificate = true);
// For a name alone.
TlsTarget TargetNamed(const std::string& name);

// One end: takes what its session writes and remembers what it hears.
class TlsEnd final : public TlsSink, public TlsEvents {
 public:
  // TlsSink
  size_t Room() const override { return room > written.size() ? room - written.size() : 0; }
  void Write(std::span<const std::byte> ciphertext) override {
    written.insert(written.end(), ciphertext.begin(), ciphertext.end());
    ++writes;
  }
  std::span<std::byte> Reserve(size_t bytes) override {
    if (!reserves) return {};
    reserved = written.size();
    written.resize(reserved + bytes);
    return std::span(written).subspan(reserved);
  }
  void Commit(size_t bytes) override {
    written.resize(reserved + bytes);
    ++writes;
  }
  // TlsEvents
  Instant Now() const override { return now; }
  void OnHandshakeDone() override {
    ++handshakes;
    if (on_handshake_done) on_handshake_done();
  }
  absl::Status OnPlaintext(std::span<std::byte> bytes) override {
    received.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    ++deliveries;
    return on_plaintext ? on_plaintext() : absl::OkStatus();
  }

  // Gives up to `chunk` bytes of what `other` wrote to this session at a time until there are none
  // or it fails.
  void TakeFrom(TlsEnd* other, size_t chunk = SIZE_MAX);
  void Send(const std::string& text) { sent += session->Send(AsBytes(text)); }

  std::unique_ptr<TlsSession> session;
  absl::Status status;  // of the last Start() or Receive()
  std::vector<std::byte> written;
  std::string received;
  size_t room = SIZE_MAX;
  size_t reserved = 0;   // where what is being sealed begins
  bool reserves = true;  // off: what is sealed is given to Write()
  size_t sent = 0;
  int writes = 0;
  int handshakes = 0;
  int deliveries = 0;
  Instant now{};
  std::function<void()> on_handshake_done;
  std::function<absl::Status()> on_plaintext;
};

struct TlsPair {
  TlsPair(TlsClientContext* client_context, TlsServerContext* server_context,
          const TlsTarget& target);
  // Starts and moves bytes both ways until nothing moves.
  void Handshake(size_t chunk = SIZE_MAX);
  // Moves bytes both ways until nothing moves.
  void Pump(size_t chunk = SIZE_MAX);
  bool done() const { return client.session->handshake_done() && server.session->handshake_done(); }

  TlsEnd client;
  TlsEnd server;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_TLS_PAIR_H_
