// One TLS connection. BoringSSL does the handshake, and all of TLS 1.2; the records of TLS 1.3 are
// ours after it (derp/tls_records.h).
//
// The point where one takes over from the other is the end of the handshake, before any plaintext:
//  1. BoringSSL reads one record at a time and nothing ahead, and refuses a key change within a
//     message: it holds no byte of what follows (asked for all the same). What Receive() was given
//     beyond that is ours.
//  2. A server's ticket waits in BoringSSL for the first write: an empty one sends it. How many
//     records went with the new key is asked for and not assumed.
//  3. Secrets and numbers of records are BoringSSL's present ones.
//  4. A client's tickets come later, whenever the server likes. They are opened here; BoringSSL is
//     given the message inside and makes the session of it, which needs nothing of its records. So
//     a client keeps its SSL for that alone, and with it the first traffic secrets: until it has a
//     ticket, which is enough for the one connection that will use it, or until a key is updated,
//     after which the one before must be known to nobody. Later tickets are passed over. A server's
//     SSL is freed at once.
// Where a condition does not hold the session stays with BoringSSL, which never learns of it.
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "derp/tls.h"
#include "derp/tls_certificate.h"
#include "derp/tls_client_context.h"
#include "derp/tls_records.h"
#include "derp/tls_server_context.h"
#include "derp/tls_ssl.h"

namespace ringsock::derp {
namespace {

// The most that a whole handshake may bring. A client's is under 2 KB; a relay's is its chain,
// which has a limit of its own (64 KiB), and some.
constexpr size_t kMaxHandshakeBytes = 128 << 10;
// Of one connection, that sessions are made of; what comes after them is passed over.
constexpr uint32_t kMaxTickets = 16;

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
  bool resumed() const override { return resumed_; }
  bool own_records() const override { return records_ != nullptr; }
  std::string Description() const override;
  std::optional<PublicKey> fast_start_key() const override;

 private:
  absl::Status Init(SSL_CTX* ctx);
  absl::Status Handshake();
  absl::Status ReadRecords();
  void FinishHandshake();
  void TakeOver();
  bool FlushTickets();
  absl::Status OnTicket(std::span<const uint8_t> message);
  void ForgetFirstSecrets();
  absl::Status ReceiveRecords(std::span<std::byte> ciphertext);
  absl::Status Fail(int result);
  absl::Status Fail(absl::Status status);

  TlsTransport transport_;
  TlsEvents* const events_;
  std::unique_ptr<TlsClientPeer> peer_;  // of a client
  bssl::UniquePtr<SSL> ssl_;             // uses the two above until it dies
  std::unique_ptr<TlsRecords> records_;  // in its place
  std::unique_ptr<absl::Status> error_;  // once it failed
  uint32_t handshake_bytes_ = 0;
  uint32_t tickets_ = 0;  // that records_ brought
  // What the handshake agreed on.
  const SSL_CIPHER* cipher_ = nullptr;
  uint16_t version_ = 0;
  bool resumed_ = false;
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

absl::Status CannotSeal() { return absl::InternalError("TLS: no record can be sealed any more"); }

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
  if (status.ok() && records_ != nullptr) {
    // A handshake that ended in this call has read the first part.
    status = ReceiveRecords(ciphertext.last(transport_.input.size()));
  } else if (status.ok() && done_) {
    status = ReadRecords();
  }
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
  cipher_ = SSL_get_current_cipher(ssl_.get());
  version_ = static_cast<uint16_t>(SSL_version(ssl_.get()));
  resumed_ = SSL_session_reused(ssl_.get()) == 1;
  // TLS 1.2 may resume a session without a new ticket: the one it had is still good.
  if (peer_ != nullptr && !peer_->ticket_stored && resumed_ && version_ == TLS1_2_VERSION) {
    peer_->Store(bssl::UniquePtr<SSL_SESSION>(SSL_get1_session(ssl_.get())));
  }
  if (version_ == TLS1_3_VERSION) TakeOver();
  events_->OnHandshakeDone();
}

// The conditions are those of the head of this file.
void TlsSessionImpl::TakeOver() {
  SSL* const ssl = ssl_.get();
  if (SSL_in_init(ssl) || SSL_has_pending(ssl)) return;  // 1
  const bool is_client = peer_ != nullptr;
  if (!is_client && !FlushTickets()) return;  // 2
  bssl::Span<const uint8_t> read_secret, write_secret;
  if (!bssl::SSL_get_traffic_secrets(ssl, &read_secret, &write_secret)) {
    ERR_clear_error();
    return;
  }
  TlsRecords::OnTicket on_ticket;  // 4
  if (is_client) on_ticket = [this](std::span<const uint8_t> message) { return OnTicket(message); };
  records_ = TlsRecords::Create(  // 3
      {.suite = SSL_CIPHER_get_protocol_id(cipher_),
       .read_secret = {read_secret.data(), read_secret.size()},
       .write_secret = {write_secret.data(), write_secret.size()},
       .read_sequence = SSL_get_read_sequence(ssl),
       .write_sequence = SSL_get_write_sequence(ssl)},
      transport_.sink, events_, std::move(on_ticket));
  if (records_ == nullptr) return;
  if (!is_client) ssl_.reset();
  // Its key and number are those of records that are ours now: what it may yet want to say, such as
  // an alert about a ticket, would be sealed with a nonce that is used already.
  transport_.sink = nullptr;
}

bool TlsSessionImpl::FlushTickets() {
  ERR_clear_error();
  SSL_write(ssl_.get(), "", 0);
  const bool good = ERR_peek_error() == 0;
  ERR_clear_error();
  return good;
}

absl::Status TlsSessionImpl::OnTicket(std::span<const uint8_t> message) {
  // A server sends a few. Each costs us more than it costs the other side.
  if (ssl_ == nullptr || tickets_ == kMaxTickets) return absl::OkStatus();
  ++tickets_;
  ERR_clear_error();
  bssl::UniquePtr<SSL_SESSION> session(
      SSL_process_tls13_new_session_ticket(ssl_.get(), message.data(), message.size()));
  if (session == nullptr) return TakeSslError();
  // One that is about to be closed is not to surprise its owner.
  if (!shut_down_) peer_->Store(std::move(session));
  return absl::OkStatus();
}

// What it frees BoringSSL wipes.
void TlsSessionImpl::ForgetFirstSecrets() {
  if (ssl_ != nullptr && (peer_->ticket_stored || records_->key_updated())) ssl_.reset();
}

absl::Status TlsSessionImpl::ReceiveRecords(std::span<std::byte> ciphertext) {
  absl::Status status = records_->Receive(ciphertext);
  ForgetFirstSecrets();
  closed_by_peer_ = records_->closed_by_peer();
  if (status.ok() && records_->write_failed()) status = CannotSeal();
  return status.ok() ? status : Fail(std::move(status));
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
  if (records_ != nullptr) {
    const size_t sealed = records_->Send(plaintext);
    ForgetFirstSecrets();
    if (records_->write_failed()) Fail(CannotSeal()).IgnoreError();  // the next Receive() says so
    return sealed;
  }
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
  if (records_ != nullptr) return records_->Shutdown();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

std::string TlsSessionImpl::Description() const {
  if (!done_) return "TLS, within the handshake";
  return absl::StrCat(version_ == TLS1_3_VERSION ? "TLSv1.3 " : "TLSv1.2 ",
                      SSL_CIPHER_standard_name(cipher_), resumed_ ? ", resumed" : "");
}

std::optional<PublicKey> TlsSessionImpl::fast_start_key() const {
  if (!done_ || peer_ == nullptr || version_ < TLS1_3_VERSION) return std::nullopt;
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
