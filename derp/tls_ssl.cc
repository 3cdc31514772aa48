#include "derp/tls_ssl.h"

#include <openssl/bio.h>
#include <openssl/err.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "derp/tls_certificate.h"

namespace ringsock::derp {
namespace {

// The certificates the other side may send, in bytes: a chain has some 3 KB to 6 KB.
constexpr size_t kMaxCertificateBytes = 64 << 10;

int ReadTransport(BIO* bio, char* out, int size) {
  auto* transport = static_cast<TlsTransport*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (size <= 0) return 0;
  if (transport->input.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t count = std::min(transport->input.size(), static_cast<size_t>(size));
  std::memcpy(out, transport->input.data(), count);
  transport->input = transport->input.subspan(count);
  return static_cast<int>(count);
}

int WriteTransport(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  if (size <= 0) return 0;
  TlsSink* const sink = static_cast<TlsTransport*>(BIO_get_data(bio))->sink;
  if (sink != nullptr) sink->Write(std::as_bytes(std::span(data, static_cast<size_t>(size))));
  return size;
}

long Control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

const BIO_METHOD* TransportMethod() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "transport");
    BIO_meth_set_read(made, &ReadTransport);
    BIO_meth_set_write(made, &WriteTransport);
    BIO_meth_set_ctrl(made, &Control);
    return made;
  }();
  return method;
}

// In words, where BoringSSL's own say little to who has to act.
const char* Words(int reason) {
  switch (reason) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
      return "the other side speaks plain HTTP";
    case SSL_R_WRONG_VERSION_NUMBER:
      return "the other side does not speak TLS, or a version older than 1.2";
    case SSL_R_UNSUPPORTED_PROTOCOL:
      return "no common version: the other side has none from TLS 1.2 on";
    case SSL_R_NO_SHARED_CIPHER:
      return "no common cipher";
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
      return "a record does not decrypt: it was changed on its way";
    case SSL_R_EXCESSIVE_MESSAGE_SIZE:
      return "a handshake message over its limit, such as too many certificates";
    default:
      return nullptr;
  }
}

}  // namespace

absl::Status ConfigureTls(SSL_CTX* ctx) {
  // Of TLS 1.2 what has forward secrecy and authenticated encryption; 1.3 has nothing else.
  static constexpr char kCiphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
  if (!SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) ||
      !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) ||
      !SSL_CTX_set_strict_cipher_list(ctx, kCiphers)) {
    return absl::InternalError("TLS cannot be set up");
  }
  SSL_CTX_set0_buffer_pool(ctx, TlsCertificatePool());
  SSL_CTX_set_max_cert_list(ctx, kMaxCertificateBytes);
  return absl::OkStatus();
}

bool AttachTransport(SSL* ssl, TlsTransport* transport) {
  BIO* bio = BIO_new(TransportMethod());
  if (bio == nullptr) return false;
  BIO_set_data(bio, transport);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  return true;
}

absl::Status TakeSslError() {
  // The first says why, later ones where. If one is of TLS itself, it knows best.
  uint32_t error = ERR_get_error();
  for (uint32_t next = error; next != 0 && ERR_GET_LIB(error) != ERR_LIB_SSL;) {
    next = ERR_get_error();
    if (ERR_GET_LIB(next) == ERR_LIB_SSL) error = next;
  }
  ERR_clear_error();
  const int reason = ERR_GET_REASON(error);
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET) {
    const int alert = reason - SSL_AD_REASON_OFFSET;
    return absl::AbortedError(
        absl::StrCat("TLS: the other side refused: ", SSL_alert_desc_string_long(alert), " (alert ",
                     alert, ")"));
  }
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && Words(reason) != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("TLS: ", Words(reason)));
  }
  const char* text = ERR_reason_error_string(error);
  return absl::InvalidArgumentError(absl::StrCat(
      "TLS: ", text == nullptr ? "unknown error"
                               : absl::StrReplaceAll(absl::AsciiStrToLower(text), {{"_", " "}})));
}

}  // namespace ringsock::derp
