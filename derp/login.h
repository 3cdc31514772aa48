// The login that opens a DERP connection, both roles, without I/O: frames in, bytes out.
//
//   server                         client
//   ServerKey  ──────────────────▶           magic, server's public key, in the clear
//              ◀──────────────────  ClientInfo   client's key; box of JSON
//   ServerInfo ──────────────────▶           box of JSON; the client may send from before it came
//
// With fast start the client knows the server's key from its meta certificate (derp/meta_cert.h),
// sends ClientInfo first and ignores the ServerKey. A box that opens proves that the other side has
// the private key it claims. Time limits are those of the sessions that own a login.
#ifndef RINGSOCK_DERP_LOGIN_H_
#define RINGSOCK_DERP_LOGIN_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/key.h"
#include "base/random.h"
#include "derp/box.h"
#include "derp/frame.h"
#include "derp/output_buffer.h"

namespace ringsock::derp {

// The secret that servers of one region share; as careful a type as a private key.
using MeshKey = PrivateKey;

// What a client says of itself.
struct ClientInfo {
  int version = kProtocolVersion;
  bool can_ack_pings = true;
  bool is_prober = false;
  MeshKey mesh_key;  // zero: none
  std::string app_name;
};

// What a server says of itself. A rate of 0 is no limit.
struct ServerInfo {
  int version = kProtocolVersion;
  uint64_t token_bucket_bytes_per_second = 0;
  uint64_t token_bucket_bytes_burst = 0;
};

// As they stand in the box. Client info is a secret if it has a mesh key.
std::string ToJson(const ClientInfo& info);
std::string ToJson(const ServerInfo& info);
// At most 64 KiB, 8 deep, 256 values. Fields of a wrong type, and protocol versions before 2 (whose
// packets carry no source), are errors; unknown fields are not.
absl::StatusOr<ClientInfo> ParseClientInfo(absl::string_view json);
absl::StatusOr<ServerInfo> ParseServerInfo(absl::string_view json);

// A client's side. `key` and `random` outlive it.
class ClientLogin {
 public:
  ClientLogin(const PrivateKey* key, ClientInfo info, Random* random);

  // Fast start: appends the ClientInfo frame before any frame came.
  absl::Status StartFast(const PublicKey& server, OutputBuffer* out);
  // Takes the next frame and appends the answer. An error ends the connection: wrong magic, a box
  // that does not open, frames out of order.
  absl::Status OnFrame(const Frame& frame, OutputBuffer* out);

  // ClientInfo is on its way, so packets may follow it.
  bool can_send() const { return state_ >= State::kSentInfo; }
  bool done() const { return state_ == State::kDone; }
  const PublicKey& server_key() const { return server_key_; }
  const ServerInfo& server_info() const { return server_info_; }

 private:
  enum class State : uint8_t { kWantServerKey, kSentInfo, kDone };

  absl::Status SendInfo(const PublicKey& server, OutputBuffer* out);

  const PrivateKey* const key_;
  const ClientInfo info_;
  Random* const random_;
  State state_ = State::kWantServerKey;
  bool ignore_server_key_ = false;  // fast start: it comes once and is not looked at
  PublicKey server_key_;
  std::optional<BoxKey> box_;
  ServerInfo server_info_;
};

// Who a server is. One object serves all its connections, from any thread.
class ServerIdentity {
 public:
  explicit ServerIdentity(PrivateKey key) : key_(std::move(key)), public_key_(key_.Public()) {}
  virtual ~ServerIdentity() = default;

  const PublicKey& public_key() const { return public_key_; }
  // The key shared with a client. Virtual so that the private key can live elsewhere.
  virtual absl::StatusOr<BoxKey> Agree(const PublicKey& client) const {
    return BoxKey::Agree(key_, client);
  }

 protected:
  // For one whose private key is not in this process.
  explicit ServerIdentity(const PublicKey& public_key) : public_key_(public_key) {}

 private:
  const PrivateKey key_;
  const PublicKey public_key_;
};

// A server's side. `identity`, `mesh_key` (null or zero: no mesh) and `random` outlive it.
class ServerLogin {
 public:
  ServerLogin(const ServerIdentity* identity, const MeshKey* mesh_key, const ServerInfo& info,
              Random* random);

  // Appends the ServerKey frame.
  absl::Status Start(OutputBuffer* out);
  // Takes the first frame, which must be ClientInfo. From then on client() and the rest are set.
  // The owner decides whether this client may come in, and calls Accept() if so.
  absl::Status OnFrame(const Frame& frame);
  // Appends the ServerInfo frame.
  absl::Status Accept(OutputBuffer* out);

  const PublicKey& client() const { return client_; }
  const ClientInfo& client_info() const { return client_info_; }
  // The client has shown our mesh key: it is a server of our region.
  bool is_mesh() const { return is_mesh_; }

 private:
  const ServerIdentity* const identity_;
  const MeshKey* const mesh_key_;
  const ServerInfo info_;
  Random* const random_;
  PublicKey client_;
  ClientInfo client_info_;
  bool is_mesh_ = false;
  bool seen_client_ = false;
  std::optional<BoxKey> box_;  // from ClientInfo to Accept()
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_LOGIN_H_
