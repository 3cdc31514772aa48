// Makes the certificate that a relay without one gives itself.
#include <arpa/inet.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "absl/strings/str_cat.h"
#include "derp/tls.h"
#include "derp/tls_certificate.h"

namespace ringsock::derp {
namespace {

// ub-common-name (RFC 5280, appendix A.1). A longer host name stands in the alternative name alone.
constexpr size_t kMaxCommonName = 64;
constexpr size_t kMaxHostName = 253;

bssl::UniquePtr<EVP_PKEY> MakeKey() {
  bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  if (ec == nullptr || key == nullptr || !EC_KEY_generate_key(ec.get()) ||
      !EVP_PKEY_set1_EC_KEY(key.get(), ec.get())) {
    return nullptr;
  }
  return key;
}

// 127 random bits, positive (RFC 5280, 4.1.2.2).
bool SetSerial(X509* certificate) {
  uint8_t bytes[16];
  RAND_bytes(bytes, sizeof(bytes));
  bytes[0] &= 0x7f;
  const bssl::UniquePtr<BIGNUM> number(BN_bin2bn(bytes, sizeof(bytes), nullptr));
  return number != nullptr &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool SetNames(X509* certificate, const std::string& host_name) {
  X509_NAME* name = X509_get_subject_name(certificate);
  const std::string common_name =
      host_name.size() <= kMaxCommonName ? host_name : "self-signed relay certificate";
  return X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
                                    reinterpret_cast<const uint8_t*>(common_name.data()),
                                    static_cast<int>(common_name.size()), -1, 0) &&
         X509_set_issuer_name(certificate, name);
}

bool SetTimes(X509* certificate, int64_t not_before, int64_t not_after) {
  const bssl::UniquePtr<ASN1_TIME> before(ASN1_TIME_set(nullptr, static_cast<time_t>(not_before)));
  const bssl::UniquePtr<ASN1_TIME> after(ASN1_TIME_set(nullptr, static_cast<time_t>(not_after)));
  return before != nullptr && after != nullptr && X509_set1_notBefore(certificate, before.get()) &&
         X509_set1_notAfter(certificate, after.get());
}

bool AddAlternativeName(X509* certificate, const std::string& host_name) {
  bssl::UniquePtr<GENERAL_NAMES> names(sk_GENERAL_NAME_new_null());
  bssl::UniquePtr<GENERAL_NAME> name(GENERAL_NAME_new());
  if (names == nullptr || name == nullptr) return false;
  if (IsIpAddress(host_name)) {
    ASN1_OCTET_STRING* address = a2i_IPADDRESS(host_name.c_str());
    if (address == nullptr) return false;
    GENERAL_NAME_set0_value(name.get(), GEN_IPADD, address);
  } else {
    ASN1_IA5STRING* text = ASN1_IA5STRING_new();
    if (text == nullptr) return false;
    GENERAL_NAME_set0_value(name.get(), GEN_DNS, text);
    if (!ASN1_STRING_set(text, host_name.data(), static_cast<int>(host_name.size()))) return false;
  }
  if (!sk_GENERAL_NAME_push(names.get(), name.get())) return false;
  name.release();
  return X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, 0) == 1;
}

bool AddExtension(X509* certificate, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  const bssl::UniquePtr<X509_EXTENSION> extension(
      X509V3_EXT_nconf_nid(nullptr, &context, nid, const_cast<char*>(value)));
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1);
}

template <typename Write>
std::string ToPem(Write write) {
  const bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
  const uint8_t* data = nullptr;
  size_t size = 0;
  if (bio == nullptr || !write(bio.get()) || !BIO_mem_contents(bio.get(), &data, &size)) return "";
  return std::string(reinterpret_cast<const char*>(data), size);
}

}  // namespace

absl::StatusOr<SelfSignedCertificate> MakeSelfSignedCertificate(const std::string& host_name,
                                                                int64_t not_before,
                                                                int64_t not_after) {
  if (host_name.empty() || host_name.size() > kMaxHostName ||
      host_name.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("host name of the certificate: empty or too long");
  }
  if (not_before >= not_after) {
    return absl::InvalidArgumentError("certificate would end before it begins");
  }
  constexpr long kX509Version3 = 2;
  const bssl::UniquePtr<EVP_PKEY> key = MakeKey();
  const bssl::UniquePtr<X509> certificate(X509_new());
  X509* x509 = certificate.get();
  if (key == nullptr || x509 == nullptr || !X509_set_version(x509, kX509Version3) ||
      !SetSerial(x509) || !SetNames(x509, host_name) || !SetTimes(x509, not_before, not_after) ||
      !X509_set_pubkey(x509, key.get()) ||
      !AddExtension(x509, NID_basic_constraints, "critical,CA:FALSE") ||
      !AddExtension(x509, NID_key_usage, "critical,digitalSignature") ||
      !AddExtension(x509, NID_ext_key_usage, "serverAuth") ||
      !AddAlternativeName(x509, host_name) || !X509_sign(x509, key.get(), EVP_sha256())) {
    return absl::InvalidArgumentError(
        absl::StrCat("no certificate can be made for \"", host_name, "\" and these times"));
  }
  SelfSignedCertificate made;
  made.chain_pem = ToPem([x509](BIO* bio) { return PEM_write_bio_X509(bio, x509); });
  made.key_pem = ToPem([&key](BIO* bio) {
    return PEM_write_bio_PKCS8PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  if (made.chain_pem.empty() || made.key_pem.empty()) {
    return absl::ResourceExhaustedError("out of memory");
  }
  return made;
}

}  // namespace ringsock::derp
