// The smallest relay that tests can talk to, on any loop: a ServerSession per stream, routes by
// key, no bounds worth the name, and switches for what goes wrong. Not the product: that is relay/.
#ifndef RINGSOCK_TESTS_DERP_RELAY_FIXTURE_H_
#define RINGSOCK_TESTS_DERP_RELAY_FIXTURE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/endpoint.h"
#include "base/key.h"
#include "base/random.h"
#include "base/timer_queue.h"
#include "derp/relay_map.h"
#include "derp/relay_transport.h"
#include "derp/server_session.h"
#include "derp/tls.h"
#include "io/loop.h"

namespace ringsock::derp {

// Driven by its owner: loop->Poll() and timers->RunDue() in turns. Both outlive it.
class RelayFixture final : io::ListenHandler {
 public:
  struct Options {
    Endpoint bind;                    // port 0: the loop chooses one
    TlsServerContext* tls = nullptr;  // null: plain HTTP
    ServerInfo info;                  // with the rate limit to ask clients for
    uint64_t seed = 1;                // of keys and nonces
  };
  RelayFixture(io::Loop* loop, TimerQueue* timers, const Options& options);
  ~RelayFixture() override;

  // The key that Options::seed leads to, for a meta certificate.
  static PrivateKey Key(uint64_t seed);
  const PublicKey& key() const { return identity_.public_key(); }

  // Begins to listen, as the constructor does; for after Stop(). Then on the same port.
  absl::Status Start();
  // Stops listening; clients stay.
  void Stop();
  Endpoint at() const { return at_; }
  // A node and a region of that one node that lead here; verification is off.
  RelayNode Node(const std::string& name, RegionId region = 1) const;
  RelayRegion Region(RegionId region = 1) const;

  // ---- Switches ----
  bool refuse = false;            // resets new connections
  bool mute = false;              // takes bytes and answers nothing, not even TLS
  bool refuse_login = false;      // ends connections that show their key
  void SetStalled(bool stalled);  // reads nothing from clients there are, and from new ones
  void CloseClients();            // as a relay that stops
  void ResetClients();            // as one that crashes

  // ---- Clients, by their key; the newest if there are more. False: not here. ----
  bool Has(const PublicKey& client) const { return Find(client) != nullptr; }
  bool Preferred(const PublicKey& client) const;
  size_t clients() const { return clients_.size(); }  // connections, logged in or not
  // Whom a packet comes from is for the caller to say.
  bool Deliver(const PublicKey& client, const PublicKey& source, Bytes packet);
  bool SendRaw(const PublicKey& client, Bytes bytes);
  // For its commands; call Flush() after them.
  ServerSession* session(const PublicKey& client);
  void Flush();

  // Called for each packet of a client before it is routed; false: it is not.
  std::function<bool(const PublicKey& from, const PublicKey& to, Bytes packet)> on_packet;

  uint64_t accepts = 0;
  uint64_t logins = 0;
  uint64_t packets = 0;         // from clients
  uint64_t pongs = 0;           // from clients
  uint64_t unroutable = 0;      // packets for clients that are not here
  std::string last_ideal_node;  // of the last login
  std::string last_error;       // of the last connection that ended

 private:
  struct Client;

  io::StreamHandler* OnAccept(io::StreamId listener, io::StreamId stream,
                              const Endpoint& from) override;
  Client* Find(const PublicKey& client) const;
  void Remove(Client* client);

  io::Loop* const loop_;
  TimerQueue* const timers_;
  const Options options_;
  SeededRandom random_;
  const ServerIdentity identity_;
  ServerSessionConfig config_;
  Endpoint at_;
  io::StreamId listener_ = io::kNoStream;
  bool stalled_ = false;
  std::vector<std::unique_ptr<Client>> clients_;  // in the order they came
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_RELAY_FIXTURE_H_
