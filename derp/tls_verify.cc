#include "derp/tls_verify.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/obj.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "derp/frame.h"
#include "derp/meta_cert.h"
#include "derp/tls_certificate.h"

namespace ringsock::derp {
namespace {

// Chains of the public web have two or three between leaf and root.
constexpr int kMaxDepth = 8;
constexpr size_t kMaxIntermediates = 16;
// What public authorities have asked for since 2013.
constexpr int kMinRsaBits = 2048;

TlsVerdict Refuse(uint8_t alert, std::string why) {
  TlsVerdict verdict;
  verdict.status = absl::UnauthenticatedError(std::move(why));
  verdict.alert = alert;
  return verdict;
}

std::string Of(X509* certificate) {
  return absl::StrCat(" (of \"", SubjectText(certificate), "\")");
}

std::string Hex(const std::array<uint8_t, 32>& pin) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(pin.data()), pin.size()));
}

// Nothing if it is in its time, of which BoringSSL takes the last second for being over.
std::optional<TlsVerdict> CheckTime(X509* certificate, int64_t now) {
  if (now >= NotAfter(certificate)) {
    return Refuse(SSL_AD_CERTIFICATE_EXPIRED,
                  absl::StrCat("certificate expired on ", UnixTimeText(NotAfter(certificate)),
                               Of(certificate)));
  }
  if (now < NotBefore(certificate)) {
    return Refuse(
        SSL_AD_BAD_CERTIFICATE,
        absl::StrCat("certificate not valid before ", UnixTimeText(NotBefore(certificate)),
                     Of(certificate), ": the clock here says ", UnixTimeText(now)));
  }
  return std::nullopt;
}

TlsVerdict VerifyPin(CRYPTO_BUFFER* leaf, const std::array<uint8_t, 32>& wanted, int64_t now) {
  const std::array<uint8_t, 32> pin = CertificatePin(leaf);
  if (pin != wanted) {
    return Refuse(SSL_AD_BAD_CERTIFICATE,
                  absl::StrCat("certificate is not the pinned one: wanted sha256-raw:", Hex(wanted),
                               ", got sha256-raw:", Hex(pin)));
  }
  const bssl::UniquePtr<X509> x509 = ParseCertificate(leaf);
  if (x509 == nullptr) return Refuse(SSL_AD_BAD_CERTIFICATE, "certificate cannot be read");
  if (auto refusal = CheckTime(x509.get(), now); refusal.has_value()) return *refusal;
  TlsVerdict verdict;
  verdict.valid_until = NotAfter(x509.get());
  return verdict;
}

TlsVerdict UnknownIssuer(X509* certificate, const TlsRoots& roots) {
  const bool self_signed =
      X509_NAME_cmp(X509_get_subject_name(certificate), X509_get_issuer_name(certificate)) == 0;
  const std::string who =
      self_signed ? "self-signed" : absl::StrCat("\"", IssuerText(certificate), "\"");
  return Refuse(SSL_AD_UNKNOWN_CA,
                absl::StrCat("certificate issuer unknown: ", who, Of(certificate),
                             self_signed ? ", which is not" : ", which is not in the chain nor",
                             " among the roots of ", roots.source()));
}

// Why X509_verify_cert failed.
TlsVerdict ChainRefusal(X509_STORE_CTX* context, const TlsRoots& roots, int64_t now) {
  X509* at = X509_STORE_CTX_get_current_cert(context);
  if (at == nullptr) at = X509_STORE_CTX_get0_cert(context);
  const int error = X509_STORE_CTX_get_error(context);
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      if (auto refusal = CheckTime(at, now); refusal.has_value()) return *refusal;
      break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED:
      return UnknownIssuer(at, roots);
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return Refuse(SSL_AD_BAD_CERTIFICATE, absl::StrCat("certificate signature wrong", Of(at)));
    case X509_V_ERR_INVALID_PURPOSE:
      return Refuse(SSL_AD_UNSUPPORTED_CERTIFICATE,
                    absl::StrCat("certificate not meant for servers", Of(at)));
    case X509_V_ERR_INVALID_CA:
      return Refuse(SSL_AD_BAD_CERTIFICATE,
                    absl::StrCat("certificate issued by one that may not issue any", Of(at)));
    default:
      break;
  }
  return Refuse(
      SSL_AD_BAD_CERTIFICATE,
      absl::StrCat("certificate invalid: ", X509_verify_cert_error_string(error), Of(at)));
}

// SHA-1 and older can be forged for a price (as can small keys): what was signed so proves nothing.
std::optional<TlsVerdict> CheckStrength(X509* certificate) {
  int digest = NID_undef;
  OBJ_find_sigid_algs(X509_get_signature_nid(certificate), &digest, nullptr);
  if (digest == NID_md4 || digest == NID_md5 || digest == NID_sha1) {
    return Refuse(
        SSL_AD_BAD_CERTIFICATE,
        absl::StrCat("certificate signature weak: ", OBJ_nid2ln(digest), Of(certificate)));
  }
  const bssl::UniquePtr<EVP_PKEY> key(X509_get_pubkey(certificate));
  if (key != nullptr && EVP_PKEY_id(key.get()) == EVP_PKEY_RSA &&
      EVP_PKEY_bits(key.get()) < kMinRsaBits) {
    return Refuse(SSL_AD_BAD_CERTIFICATE,
                  absl::StrCat("certificate key weak: RSA of ", EVP_PKEY_bits(key.get()), " bits",
                               Of(certificate)));
  }
  return std::nullopt;
}

std::optional<TlsVerdict> CheckName(X509* leaf, const std::string& name) {
  const bool matches =
      IsIpAddress(name)
          ? X509_check_ip_asc(leaf, name.c_str(), 0) == 1
          : !name.empty() && X509_check_host(leaf, name.data(), name.size(),
                                             X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr) == 1;
  if (matches) return std::nullopt;
  return Refuse(SSL_AD_CERTIFICATE_UNKNOWN,
                absl::StrCat("certificate for another name: wanted \"", absl::CHexEscape(name),
                             "\", it is for ", NamesText(leaf)));
}

// The chain that was built, from the leaf to its root.
TlsVerdict CheckBuiltChain(STACK_OF(X509) * built, const std::string& name) {
  TlsVerdict verdict;
  verdict.valid_until = std::numeric_limits<int64_t>::max();
  const size_t size = sk_X509_num(built);
  for (size_t i = 0; i < size; ++i) {
    X509* certificate = sk_X509_value(built, i);
    verdict.valid_until = std::min(verdict.valid_until, NotAfter(certificate));
    if (i + 1 == size) break;  // the root is trusted for being one
    if (auto refusal = CheckStrength(certificate); refusal.has_value()) return *refusal;
  }
  if (auto refusal = CheckName(sk_X509_value(built, 0), name); refusal.has_value()) {
    return *refusal;
  }
  return verdict;
}

TlsVerdict VerifyName(const STACK_OF(CRYPTO_BUFFER) * chain, size_t chain_size,
                      const std::string& name, const TlsRoots& roots, int64_t now) {
  const bssl::UniquePtr<X509> leaf = ParseCertificate(sk_CRYPTO_BUFFER_value(chain, 0));
  if (leaf == nullptr) return Refuse(SSL_AD_BAD_CERTIFICATE, "certificate cannot be read");
  if (roots.size() == 0) {
    return Refuse(SSL_AD_UNKNOWN_CA,
                  "no root certificates on this system to verify the certificate with: install "
                  "ca-certificates, or name a file of roots");
  }
  const bssl::UniquePtr<STACK_OF(X509)> intermediates(sk_X509_new_null());
  const bssl::UniquePtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
  if (intermediates == nullptr || context == nullptr) {
    return Refuse(SSL_AD_INTERNAL_ERROR, "out of memory");
  }
  for (size_t i = 1; i < std::min(chain_size, kMaxIntermediates + 1); ++i) {
    bssl::UniquePtr<X509> x509 = ParseCertificate(sk_CRYPTO_BUFFER_value(chain, i));
    // One that cannot be read is one fewer: if it was needed, an issuer is missing.
    if (x509 != nullptr) bssl::PushToStack(intermediates.get(), std::move(x509));
  }
  if (!X509_STORE_CTX_init(context.get(), roots.store(), leaf.get(), intermediates.get()) ||
      !X509_STORE_CTX_set_default(context.get(), "ssl_server")) {
    return Refuse(SSL_AD_INTERNAL_ERROR, "out of memory");
  }
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
  X509_VERIFY_PARAM_set_depth(param, kMaxDepth);
  X509_VERIFY_PARAM_set_time(param, static_cast<time_t>(now));
  if (X509_verify_cert(context.get()) != 1) return ChainRefusal(context.get(), roots, now);
  return CheckBuiltChain(X509_STORE_CTX_get0_chain(context.get()), name);
}

}  // namespace

TlsVerdict VerifyTlsChain(const STACK_OF(CRYPTO_BUFFER) * chain, const TlsTarget& target,
                          const TlsRoots& roots, int64_t unix_time) {
  size_t size = chain == nullptr ? 0 : sk_CRYPTO_BUFFER_num(chain);
  if (size == 0) return Refuse(SSL_AD_CERTIFICATE_REQUIRED, "no certificate was sent");
  std::optional<PublicKey> meta_key;
  if (size > 1) {
    const CRYPTO_BUFFER* last = sk_CRYPTO_BUFFER_value(chain, size - 1);
    const auto meta = ParseMetaCert({CRYPTO_BUFFER_data(last), CRYPTO_BUFFER_len(last)});
    if (meta.has_value()) {
      --size;
      if (meta->version >= kProtocolVersion) meta_key = meta->server_key;
    }
  }
  TlsVerdict verdict;
  if (target.insecure) {
    verdict.valid_until = std::numeric_limits<int64_t>::max();
  } else if (target.pin.has_value()) {
    verdict = VerifyPin(sk_CRYPTO_BUFFER_value(chain, 0), *target.pin, unix_time);
  } else {
    verdict = VerifyName(chain, size, target.certificate_name, roots, unix_time);
  }
  ERR_clear_error();
  verdict.meta_key = meta_key;
  return verdict;
}

}  // namespace ringsock::derp
