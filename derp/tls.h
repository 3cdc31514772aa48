// TLS for relay connections as a filter without I/O: ciphertext of the stream in, plaintext out,
// and the other way round. BoringSSL does the work but for the records of TLS 1.3
// (derp/tls_records.h); the rules of who is trusted are here (spec: derp.md, Transport). The owner
// moves the bytes between this and a stream.
//
//   stream ─ciphertext─▶ Receive() ─▶ TlsEvents::OnPlaintext
//   TlsSink::Write ◀─ciphertext─ Send() ◀─plaintext
#ifndef RINGSOCK_DERP_TLS_H_
#define RINGSOCK_DERP_TLS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/key.h"
#include "derp/relay_map.h"

namespace ringsock::derp {

// The most plaintext in one record (RFC 8446 section 5.1), and how much longer one gets in all
// ciphers that are on.
inline constexpr size_t kMaxTlsPlaintext = 16384;
inline constexpr size_t kMaxTlsOverhead = 256;

// Takes ciphertext for the stream, in order.
class TlsSink {
 public:
  virtual ~TlsSink() = default;
  // Bytes that Write() takes now. Handshake messages are written whatever it says: the sink bounds
  // what one connection may queue by ending it.
  virtual size_t Room() const = 0;
  virtual void Write(std::span<const std::byte> ciphertext) = 0;
  // To write where Write() would copy to: `bytes` contiguous bytes, which Room() has said are
  // there; they stay until Commit(), the next call, which takes the first `bytes` of them (0:
  // none). Less than was asked for: Write() is called instead.
  virtual std::span<std::byte> Reserve(size_t) { return {}; }
  virtual void Commit(size_t) {}
};

// Called from inside Start() and Receive(). Must not destroy the session.
class TlsEvents {
 public:
  virtual ~TlsEvents() = default;
  // The handshake is over and the other side is whom it must be. Once, before any plaintext.
  virtual void OnHandshakeDone() = 0;
  // Bytes in order, up to kMaxTlsPlaintext at a time; they may be written to, and end with the
  // call. An error ends the session with that error.
  virtual absl::Status OnPlaintext(std::span<std::byte> bytes) = 0;
  // Asked for when something comes that is bounded per time, which is seldom.
  virtual Instant Now() const { return SystemClock().Now(); }
};

class TlsClientContext;
class TlsServerContext;

// Whom a client wants to reach. A session is resumed only for an equal one.
struct TlsTarget {
  std::string host_name;         // SNI (not sent if it is an IP address)
  std::string certificate_name;  // what the chain must be for; an IP address must be among its IPs
  // SHA-256 of the one certificate that will do, as long as it is in its time. Names, issuers and
  // roots do not matter then.
  std::optional<std::array<uint8_t, 32>> pin;
  bool insecure = false;  // no verification at all: only the test switches

  static TlsTarget Of(const RelayNode& node);
};

// One connection, either role. Not thread safe. The context, sink and events outlive it.
class TlsSession {
 public:
  virtual ~TlsSession() = default;

  static absl::StatusOr<std::unique_ptr<TlsSession>> NewClient(TlsClientContext* context,
                                                               const TlsTarget& target,
                                                               TlsSink* sink, TlsEvents* events);
  static absl::StatusOr<std::unique_ptr<TlsSession>> NewServer(TlsServerContext* context,
                                                               TlsSink* sink, TlsEvents* events);

  // A client says hello; a server waits. Once.
  virtual absl::Status Start() = 0;
  // Takes all of `ciphertext`, which is decrypted in place, and of which it may keep a part of a
  // record. An error ends the session;
  // each later call says the same. An alert for the other side has been written by then.
  //   kUnauthenticated: the certificate; which check failed and why, such as: certificate expired
  //   on
  //     2026-01-02 03:04:05 UTC (of "derp1")
  //   kAborted: the other side refused, with its reason
  //   kInvalidArgument: what came is no TLS, was changed, or is over a limit
  // and whatever OnPlaintext returned.
  virtual absl::Status Receive(std::span<std::byte> ciphertext) = 0;
  // Seals plaintext into records of up to kMaxTlsPlaintext as long as the sink has room for a whole
  // one, and returns how many bytes it took: 0 before the handshake is done. What it took is on its
  // way: it is never offered again.
  virtual size_t Send(std::span<const std::byte> plaintext) = 0;
  // The stream ended. OK after the other side's close_notify, else kDataLoss: it may have been cut.
  virtual absl::Status OnStreamEnd() = 0;
  // Says close_notify.
  virtual void Shutdown() = 0;

  virtual bool handshake_done() const = 0;
  virtual bool resumed() const = 0;
  // The records are ours and not BoringSSL's: after a handshake of TLS 1.3, unless something stood
  // against it.
  virtual bool own_records() const = 0;
  virtual std::string Description() const = 0;  // "TLSv1.3 TLS_AES_128_GCM_SHA256, resumed"
  // Of a client: the relay's key for fast start, if its chain ended in a meta certificate and this
  // is TLS 1.3, whose transcript covers it. A resumed session has the key of its first handshake.
  virtual std::optional<PublicKey> fast_start_key() const = 0;
};

// What all connections of a client share: trust, and sessions to resume. For one thread, that of
// its sessions. Outlives them.
class TlsClientContext {
 public:
  struct Options {
    // PEM file or directory of roots, or both; both empty: the system's, which may be missing until
    // a chain is to be verified.
    std::string roots_file;
    std::string roots_directory;
    bool allow_tls13 = true;     // off only in tests
    size_t max_sessions = 1024;  // remembered for resumption, the oldest go first
    // Seconds of Unix time, for validity periods. Null: the system's.
    int64_t (*unix_time)() = nullptr;
  };
  static absl::StatusOr<std::unique_ptr<TlsClientContext>> Create(const Options& options);
  virtual ~TlsClientContext() = default;
};

// What all connections of a server share. May be shared by threads; `Load` may be called while
// sessions run, which keep what they began with. Outlives its sessions.
class TlsServerContext {
 public:
  struct Options {
    PublicKey meta_key;  // the relay's key, for the meta certificate
    bool meta_certificate = true;
  };
  // A server without a certificate yet: sessions fail until Load() succeeded.
  static absl::StatusOr<std::unique_ptr<TlsServerContext>> Create(const Options& options);
  virtual ~TlsServerContext() = default;
  // PEM chain, the leaf first, and its private key. An error names the fault, never quotes the key,
  // and leaves what was there. Tickets given out under another chain are not taken any more; the
  // same chain again changes nothing. Whether the chain is in its time is not looked at.
  virtual absl::Status Load(const std::string& chain_pem, const std::string& key_pem) = 0;
};

// A self-signed certificate with an ECDSA P-256 key, for servers. `host_name` may be an IP address;
// times are seconds of Unix time. The reference's clients, too, take it by its pin: it is the only
// one of its chain, and for the host name.
struct SelfSignedCertificate {
  std::string chain_pem;
  std::string key_pem;  // a secret
};
absl::StatusOr<SelfSignedCertificate> MakeSelfSignedCertificate(const std::string& host_name,
                                                                int64_t not_before,
                                                                int64_t not_after);
// SHA-256 of the DER bytes of the first certificate of a PEM chain: what "sha256-raw:" pins.
absl::StatusOr<std::array<uint8_t, 32>> CertificatePin(const std::string& chain_pem);

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_H_
