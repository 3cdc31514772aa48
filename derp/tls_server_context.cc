#include "derp/tls_server_context.h"

#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/rand.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "derp/frame.h"
#include "derp/meta_cert.h"
#include "derp/tls_ssl.h"

namespace ringsock::derp {
namespace {

// Nobody looks at the meta certificate's time (the reference gives it a month each way and leaves
// it there); it is made once for each certificate, so it lasts as long as a process might.
constexpr int64_t kMetaBefore = int64_t{30} * 86400;
constexpr int64_t kMetaAfter = int64_t{3650} * 86400;
// A public chain has three; the rest of a file is somebody's mistake.
constexpr size_t kMaxChain = 16;

// HTTP/1.1 for clients that ask for a protocol by name (RFC 7301), such as browsers on the helper
// paths. Others are not turned away: relay clients ask for none.
int SelectAlpn(SSL*, const uint8_t** out, uint8_t* out_size, const uint8_t* offered,
               unsigned offered_size, void*) {
  static constexpr uint8_t kHttp11[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  uint8_t* selected = nullptr;
  if (SSL_select_next_proto(&selected, out_size, kHttp11, sizeof(kHttp11), offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = selected;
  return SSL_TLSEXT_ERR_OK;
}

absl::StatusOr<TlsCertificate> MetaCertificate(const PublicKey& key) {
  std::array<uint8_t, 32> seed;
  RAND_bytes(seed.data(), seed.size());
  const int64_t now = std::time(nullptr);
  const auto der = MakeMetaCert({key, kProtocolVersion}, now - kMetaBefore, now + kMetaAfter, seed);
  OPENSSL_cleanse(seed.data(), seed.size());
  if (!der.ok()) return der.status();
  return TlsCertificate(CRYPTO_BUFFER_new(der->data(), der->size(), TlsCertificatePool()));
}

// Why BoringSSL did not take a chain and its key.
absl::Status ChainError() {
  const uint32_t error = ERR_peek_last_error();
  ERR_clear_error();
  const int reason = ERR_GET_REASON(error);
  if (reason == X509_R_KEY_VALUES_MISMATCH || reason == X509_R_KEY_TYPE_MISMATCH ||
      reason == SSL_R_CERTIFICATE_AND_PRIVATE_KEY_MISMATCH) {
    return absl::InvalidArgumentError(
        "the private key is not that of the chain's first certificate");
  }
  const char* text = ERR_reason_error_string(error);
  return absl::InvalidArgumentError(
      absl::StrCat("the certificate cannot be used: ", text == nullptr ? "unknown" : text));
}

}  // namespace

bssl::UniquePtr<SSL_CTX> TlsServerContextImpl::current() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return bssl::UpRef(current_);
}

absl::StatusOr<bssl::UniquePtr<SSL_CTX>> TlsServerContextImpl::Make(
    const std::vector<TlsCertificate>& chain, EVP_PKEY* key) const {
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_with_buffers_method()));
  if (ctx == nullptr) return absl::ResourceExhaustedError("out of memory");
  if (absl::Status status = ConfigureTls(ctx.get()); !status.ok()) return status;
  std::vector<CRYPTO_BUFFER*> certificates;
  for (const TlsCertificate& certificate : chain) certificates.push_back(certificate.get());
  TlsCertificate meta;
  if (options_.meta_certificate) {
    absl::StatusOr<TlsCertificate> made = MetaCertificate(options_.meta_key);
    if (!made.ok()) return made.status();
    meta = *std::move(made);
    certificates.push_back(meta.get());
  }
  ERR_clear_error();
  if (!SSL_CTX_set_chain_and_key(ctx.get(), certificates.data(), certificates.size(), key,
                                 nullptr)) {
    return ChainError();
  }
  // Tickets instead: nothing is remembered here for those who may come back.
  SSL_CTX_set_session_cache_mode(ctx.get(), SSL_SESS_CACHE_OFF);
  // A client that comes back gets a new ticket each time.
  SSL_CTX_set_num_tickets(ctx.get(), 1);
  SSL_CTX_set_alpn_select_cb(ctx.get(), &SelectAlpn, nullptr);
  return ctx;
}

absl::Status TlsServerContextImpl::Load(const std::string& chain_pem, const std::string& key_pem) {
  auto chain = ReadPemChain(chain_pem);
  if (!chain.ok()) return chain.status();
  if (chain->size() > kMaxChain) {
    return absl::InvalidArgumentError(
        absl::StrCat("a chain of ", chain->size(), " certificates: too many"));
  }
  for (const TlsCertificate& certificate : *chain) {
    if (ParseCertificate(certificate.get()) == nullptr) {
      return absl::InvalidArgumentError("a certificate of the chain cannot be read");
    }
  }
  const auto key = ReadPemKey(key_pem);
  if (!key.ok()) return key.status();
  absl::StatusOr<bssl::UniquePtr<SSL_CTX>> made = Make(*chain, key->get());
  if (!made.ok()) return made.status();
  const std::lock_guard<std::mutex> lock(mutex_);
  // Equal certificates are one object. The same chain again has the same key: tickets live on.
  if (current_ != nullptr &&
      std::equal(chain->begin(), chain->end(), chain_.begin(), chain_.end())) {
    return absl::OkStatus();
  }
  current_ = *std::move(made);
  chain_ = *std::move(chain);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TlsServerContext>> TlsServerContext::Create(const Options& options) {
  return std::make_unique<TlsServerContextImpl>(options);
}

}  // namespace ringsock::derp
