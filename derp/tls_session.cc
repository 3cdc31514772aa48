// One TLS connection: BoringSSL between the bytes of Receive() and a sink.
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "derp/tls.h"
#include "derp/tls_certificate.h"
#include "derp/tls_client_context.h"
#include "derp/tls_server_context.h"
#include "derp/tls_ssl.h"

namespace ringsock::derp {
namespace {

// The most that a whole handshake may bring. A client's is under 2 KB; a relay's is its chain,
// which has a limit of its own (64 KiB), and some.
constexpr size_t kMaxHandshakeBytes = 128 << 10;

class TlsSessionImpl final : public TlsSession {
 public:
  TlsSessionImpl(TlsSink* sink, TlsEvents* events) : events_(events) { transport_.sink = sink; }

  absl::Status InitClient(TlsClientContextImpl* context, TlsTarget target);
  absl::Status InitServer(bssl::UniquePtr<SSL_CTX> ctx);

  absl::Status Start() override;
  absl::Status Receive(std::span<std::byte> ciphertext) override;
  size_t Send(std::span<const std::byte> plaintext) override;
  absl::Status OnStreamEnd() override;
  void Shutdown() override;
  bool handshake_done() const override { return done_; }
  bool resumed() const override { return done_ && SSL_session_reused(ssl_.get()) == 1; }
  std::string Description() const override;
  std::optional<PublicKey> fast_start_key() const override;

 private:
  absl::Status Init(SSL_CTX* ctx);
  absl::Status Handshake();
  absl::Status ReadRecords();
  void FinishHandshake();
  absl::Status Fail(int result);
  absl::Status Fail(absl::Status status);

  TlsTransport transport_;
  TlsEvents* const events_;
  std::unique_ptr<TlsClientPeer> peer_;  // of a client
  bssl::UniquePtr<SSL> ssl_;             // uses the two above until it dies
  std::unique_ptr<absl::Status> error_;  // once it failed
  uint32_t handshake_bytes_ = 0;
  bool done_ = false;
  bool closed_by_peer_ = false;  // its close_notify has come
  bool shut_down_ = false;
};

// The root's dot at the end of a name stands in no certificate and no SNI.
std::string WithoutDot(std::string name) {
  if (name.size() > 1 && name.back() == '.') name.pop_back();
  return name;
}

// Everything that trust depends on, beside the context's roots.
std::string CacheKey(const TlsTarget& target) {
  std::string key =
      absl::StrCat(target.host_name.size(), ":", target.host_name, target.certificate_name.size(),
                   ":", target.certificate_name, target.insecure ? "insecure" : "");
  if (target.pin.has_value()) key.append(target.pin->begin(), target.pin->end());
  return key;
}

absl::Status TlsSessionImpl::Init(SSL_CTX* ctx) {
  ssl_.reset(SSL_new(ctx));
  if (ssl_ == nullptr || !AttachTransport(ssl_.get(), &transport_)) {
    return absl::ResourceExhaustedError("out of memory");
  }
  SSL_set_shed_handshake_config(ssl_.get(), 1);
  return absl::OkStatus();
}

absl::Status TlsSessionImpl::InitClient(TlsClientContextImpl* context, TlsTarget target) {
  target.host_name = WithoutDot(std::move(target.host_name));
  target.certificate_name = WithoutDot(std::move(target.certificate_name));
  if (target.host_name.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("host name with a zero byte");
  }
  if (absl::Status status = Init(context->ssl_ctx()); !status.ok()) return status;
  SSL_set_connect_state(ssl_.get());
  if (!target.host_name.empty() && !IsIpAddress(target.host_name) &&
      !SSL_set_tlsext_host_name(ssl_.get(), target.host_name.c_str())) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        absl::StrCat("host name of ", target.host_name.size(), " bytes: no name for TLS"));
  }
  peer_ = std::make_unique<TlsClientPeer>();
  peer_->context = context;
  peer_->cache_key = CacheKey(target);
  peer_->target = std::move(target);
  SSL_set_app_data(ssl_.get(), peer_.get());
  if (auto known = context->cache()->Take(peer_->cache_key, context->UnixTime())) {
    SSL_set_session(ssl_.get(), known->session.get());
    peer_->verdict.valid_until = known->valid_until;
    peer_->verdict.meta_key = known->meta_key;
  }
  return absl::OkStatus();
}

absl::Status TlsSessionImpl::InitServer(bssl::UniquePtr<SSL_CTX> ctx) {
  if (ctx == nullptr) return absl::FailedPreconditionError("no certificate has been loaded");
  if (absl::Status status = Init(ctx.get()); !status.ok()) return status;
  SSL_set_accept_state(ssl_.get());
  return absl::OkStatus();
}

absl::Status TlsSessionImpl::Start() { return peer_ == nullptr ? absl::OkStatus() : Handshake(); }

absl::Status TlsSessionImpl::Receive(std::span<std::byte> ciphertext) {
  if (error_ != nullptr) return *error_;
  transport_.input = ciphertext;
  absl::Status status = absl::OkStatus();
  if (!done_) {
    const size_t room = kMaxHandshakeBytes - handshake_bytes_;
    status = Handshake();
    if (status.ok() && !done_) {
      if (ciphertext.size() > room) {
        status = Fail(absl::InvalidArgumentError("TLS: an endless handshake"));
      } else {
        handshake_bytes_ += static_cast<uint32_t>(ciphertext.size());
      }
    }
  }
  if (status.ok() && done_) status = ReadRecords();
  transport_.input = {};
  return status;
}

absl::Status TlsSessionImpl::Handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result != 1) return Fail(result);
  FinishHandshake();
  return absl::OkStatus();
}

void TlsSessionImpl::FinishHandshake() {
  done_ = true;
  // TLS 1.2 may resume a session without a new ticket: the one it had is still good.
  if (peer_ != nullptr && !peer_->ticket_stored && resumed() &&
      SSL_version(ssl_.get()) == TLS1_2_VERSION) {
    peer_->Store(bssl::UniquePtr<SSL_SESSION>(SSL_get1_session(ssl_.get())));
  }
  events_->OnHandshakeDone();
}

absl::Status TlsSessionImpl::ReadRecords() {
  // On the stack, so that a session may receive from inside another's OnPlaintext.
  std::byte plaintext[kMaxTlsPlaintext];
  ERR_clear_error();
  while (!closed_by_peer_) {
    const int count = SSL_read(ssl_.get(), plaintext, sizeof(plaintext));
    if (count <= 0) return Fail(count);
    absl::Status status =
        events_->OnPlaintext(std::span(plaintext).first(static_cast<size_t>(count)));
    if (!status.ok()) return Fail(std::move(status));
    if (error_ != nullptr) return *error_;  // a Send() in it failed
    // BoringSSL reads one record at a time and nothing ahead.
    if (transport_.input.empty() && SSL_pending(ssl_.get()) == 0) break;
  }
  return absl::OkStatus();
}

// What a call of BoringSSL that got nowhere means. OK if it waits for bytes.
absl::Status TlsSessionImpl::Fail(int result) {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return absl::OkStatus();
    case SSL_ERROR_ZERO_RETURN:
      closed_by_peer_ = true;
      return absl::OkStatus();
    default:
      break;
  }
  absl::Status status = TakeSslError();
  if (!done_ && peer_ != nullptr && !peer_->verdict.status.ok()) status = peer_->verdict.status;
  return Fail(std::move(status));
}

absl::Status TlsSessionImpl::Fail(absl::Status status) {
  error_ = std::make_unique<absl::Status>(status);
  return status;
}

size_t TlsSessionImpl::Send(std::span<const std::byte> plaintext) {
  if (!done_ || shut_down_ || error_ != nullptr) return 0;
  size_t taken = 0;
  ERR_clear_error();
  while (taken < plaintext.size()) {
    const size_t size = std::min(plaintext.size() - taken, kMaxTlsPlaintext);
    if (transport_.sink->Room() < size + kMaxTlsOverhead) break;
    const int result = SSL_write(ssl_.get(), plaintext.data() + taken, static_cast<int>(size));
    if (result <= 0) {
      Fail(result).IgnoreError();  // the next Receive() says so
      break;
    }
    taken += static_cast<size_t>(result);
  }
  return taken;
}

absl::Status TlsSessionImpl::OnStreamEnd() {
  if (error_ != nullptr) return *error_;
  if (closed_by_peer_) return absl::OkStatus();
  return Fail(
      absl::DataLossError(done_ ? "TLS: the stream ended without close_notify: it may have been cut"
                                : "TLS: the stream ended within the handshake"));
}

void TlsSessionImpl::Shutdown() {
  if (!done_ || shut_down_) return;
  shut_down_ = true;
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

std::string TlsSessionImpl::Description() const {
  if (!done_) return "TLS, within the handshake";
  return absl::StrCat(SSL_get_version(ssl_.get()), " ",
                      SSL_CIPHER_standard_name(SSL_get_current_cipher(ssl_.get())),
                      resumed() ? ", resumed" : "");
}

std::optional<PublicKey> TlsSessionImpl::fast_start_key() const {
  if (!done_ || peer_ == nullptr || SSL_version(ssl_.get()) < TLS1_3_VERSION) return std::nullopt;
  return peer_->verdict.meta_key;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsSession>> TlsSession::NewClient(TlsClientContext* context,
                                                                  const TlsTarget& target,
                                                                  TlsSink* sink,
                                                                  TlsEvents* events) {
  auto session = std::make_unique<TlsSessionImpl>(sink, events);
  absl::Status status = session->InitClient(static_cast<TlsClientContextImpl*>(context), target);
  if (!status.ok()) return status;
  return session;
}

absl::StatusOr<std::unique_ptr<TlsSession>> TlsSession::NewServer(TlsServerContext* context,
                                                                  TlsSink* sink,
                                                                  TlsEvents* events) {
  auto session = std::make_unique<TlsSessionImpl>(sink, events);
  absl::Status status = session->InitServer(static_cast<TlsServerContextImpl*>(context)->current());
  if (!status.ok()) return status;
  return session;
}

}  // namespace ringsock::derp
