#include "tests/derp/tls_certificates.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdlib>
#include <fstream>

namespace ringsock::derp {
namespace {

void Check(bool good) {
  if (!good) std::abort();
}

bssl::UniquePtr<EVP_PKEY> MakeKey(int rsa_bits) {
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  if (rsa_bits > 0) {
    bssl::UniquePtr<RSA> rsa(RSA_new());
    bssl::UniquePtr<BIGNUM> exponent(BN_new());
    Check(BN_set_word(exponent.get(), RSA_F4) &&
          RSA_generate_key_ex(rsa.get(), rsa_bits, exponent.get(), nullptr) &&
          EVP_PKEY_set1_RSA(key.get(), rsa.get()));
    return key;
  }
  bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
  Check(EC_KEY_generate_key(ec.get()) && EVP_PKEY_set1_EC_KEY(key.get(), ec.get()));
  return key;
}

void AddExtension(X509* certificate, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  const bssl::UniquePtr<X509_EXTENSION> extension(
      X509V3_EXT_nconf_nid(nullptr, &context, nid, const_cast<char*>(value.c_str())));
  Check(extension != nullptr && X509_add_ext(certificate, extension.get(), -1));
}

std::string AlternativeNames(const TestCertificateOptions& options) {
  std::string value;
  for (const std::string& name : options.dns_names) value += ",DNS:" + name;
  for (const std::string& address : options.ip_addresses) value += ",IP:" + address;
  return value.empty() ? value : value.substr(1);
}

void AddExtensions(X509* certificate, const TestCertificateOptions& options) {
  AddExtension(certificate, NID_basic_constraints,
               options.authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
  AddExtension(certificate, NID_key_usage,
               options.authority ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
  if (!options.extended_key_usage.empty()) {
    AddExtension(certificate, NID_ext_key_usage, options.extended_key_usage);
  }
  if (const std::string names = AlternativeNames(options); !names.empty()) {
    AddExtension(certificate, NID_subject_alt_name, names);
  }
}

void SetName(X509_NAME* name, const std::string& common_name) {
  Check(X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
                                   reinterpret_cast<const uint8_t*>(common_name.data()),
                                   static_cast<int>(common_name.size()), -1, 0));
}

void SetTime(ASN1_TIME* time, int64_t unix_time) {
  Check(ASN1_TIME_set(time, static_cast<time_t>(unix_time)) != nullptr);
}

bssl::UniquePtr<BIO> Reader(const std::string& text) {
  return bssl::UniquePtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string Contents(BIO* bio) {
  const uint8_t* data = nullptr;
  size_t size = 0;
  Check(BIO_mem_contents(bio, &data, &size));
  return std::string(reinterpret_cast<const char*>(data), size);
}

// Signs with the issuer's key, or with its own.
void Sign(X509* certificate, EVP_PKEY* own_key, const TestCertificate* issuer, bool sha1) {
  const EVP_MD* digest = sha1 ? EVP_sha1() : EVP_sha256();
  if (issuer == nullptr) {
    Check(X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) &&
          X509_sign(certificate, own_key, digest));
    return;
  }
  const bssl::UniquePtr<X509> above(
      PEM_read_bio_X509(Reader(issuer->pem).get(), nullptr, nullptr, nullptr));
  const bssl::UniquePtr<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(Reader(issuer->key_pem).get(), nullptr, nullptr, nullptr));
  Check(above != nullptr && key != nullptr &&
        X509_set_issuer_name(certificate, X509_get_subject_name(above.get())) &&
        X509_sign(certificate, key.get(), digest));
}

bool IsRoot(const TestCertificate& certificate) {
  const bssl::UniquePtr<X509> x509(
      PEM_read_bio_X509(Reader(certificate.pem).get(), nullptr, nullptr, nullptr));
  return X509_NAME_cmp(X509_get_subject_name(x509.get()), X509_get_issuer_name(x509.get())) == 0;
}

}  // namespace

TestCertificateOptions AuthorityNamed(const std::string& name) {
  TestCertificateOptions options;
  options.common_name = name;
  options.dns_names = {};
  options.authority = true;
  options.extended_key_usage = "";
  options.not_before = kTestTime - 10 * kDay;
  options.not_after = kTestTime + 10 * kDay;
  return options;
}

TestCertificate MakeTestCertificate(const TestCertificateOptions& options,
                                    const TestCertificate* issuer) {
  const bssl::UniquePtr<EVP_PKEY> key = MakeKey(options.rsa_bits);
  const bssl::UniquePtr<X509> x509(X509_new());
  uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<uint8_t*>(&serial), sizeof(serial));
  Check(X509_set_version(x509.get(), 2) && X509_set_pubkey(x509.get(), key.get()) &&
        ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509.get()), serial >> 1));
  SetName(X509_get_subject_name(x509.get()), options.common_name);
  SetTime(X509_getm_notBefore(x509.get()), options.not_before);
  SetTime(X509_getm_notAfter(x509.get()), options.not_after);
  AddExtensions(x509.get(), options);
  Sign(x509.get(), key.get(), issuer, options.sha1);

  TestCertificate made;
  const bssl::UniquePtr<BIO> pem(BIO_new(BIO_s_mem())), key_pem(BIO_new(BIO_s_mem()));
  Check(PEM_write_bio_X509(pem.get(), x509.get()) &&
        PEM_write_bio_PKCS8PrivateKey(key_pem.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                      nullptr));
  made.pem = Contents(pem.get());
  made.key_pem = Contents(key_pem.get());
  if (issuer != nullptr && !IsRoot(*issuer)) made.above_pem = issuer->chain_pem();
  return made;
}

std::string WriteTestFile(const std::string& name, const std::string& text) {
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string path = std::string(folder == nullptr ? "/tmp" : folder) + "/" + name;
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  Check(file.good());
  return path;
}

}  // namespace ringsock::derp
