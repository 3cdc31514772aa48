// A connection of the load to what is measured, from TCP to the login: blocking and one after the
// other, as it is set up before anything is measured. What then carries the load is the descriptor
// and a cipher for each direction.
#ifndef RINGSOCK_BENCH_RELAY_LINK_H_
#define RINGSOCK_BENCH_RELAY_LINK_H_

#include <openssl/ssl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/endpoint.h"
#include "base/key.h"
#include "bench/relay/record_cipher.h"
#include "io/fd.h"

namespace ringsock::bench {

// Where the measured side listens and how it proves to be the one that is meant.
struct LinkTarget {
  Endpoint address;
  std::string host = "localhost";  // SNI and the Host header
  bool tls = true;
  // SHA-256 of the certificate's DER bytes; nothing: any will do (the measured side is our own).
  std::optional<std::array<uint8_t, 32>> pin;
};

// "sha256-raw:<64 hex digits>".
absl::StatusOr<std::array<uint8_t, 32>> ParsePin(absl::string_view text);

class Link {
 public:
  // TCP, then TLS 1.3. `receive_buffer`: SO_RCVBUF in bytes, 0: the kernel adjusts it. Every step
  // of a link's setting up fails after some seconds of silence.
  static absl::StatusOr<std::unique_ptr<Link>> Open(const LinkTarget& target,
                                                    int receive_buffer = 0);

  // The HTTP upgrade and DERP's login, as the client that `key` makes it.
  absl::Status Login(const LinkTarget& target, const PrivateKey& key);

  // Blocking. Sends plaintext in one record; receives what one record, or one read, brings.
  absl::Status Send(std::span<const std::byte> plaintext);
  absl::StatusOr<std::vector<std::byte>> Receive();

  // From here on the owner reads and writes the descriptor, which does not block any more.
  absl::Status MakeNonBlocking();
  int fd() const { return fd_.get(); }
  // Null without TLS.
  RecordCipher* sealer() { return sealer_ ? &*sealer_ : nullptr; }
  RecordCipher* opener() { return opener_ ? &*opener_ : nullptr; }

 private:
  Link() = default;
  absl::Status Connect(const LinkTarget& target, int receive_buffer);
  absl::Status Handshake(const LinkTarget& target);
  absl::Status ReadAll(std::span<std::byte> out);

  io::Fd fd_;
  std::optional<RecordCipher> sealer_;
  std::optional<RecordCipher> opener_;
};

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_RELAY_LINK_H_
