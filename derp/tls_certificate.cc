#include "derp/tls_certificate.h"

#include <arpa/inet.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include <ctime>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "derp/tls.h"

namespace ringsock::derp {
namespace {

// A chain of a relay has two or three; a file of roots a few hundred.
constexpr size_t kMaxPemCertificates = 10000;
constexpr size_t kMaxNamesShown = 8;
// The longest name of DNS (RFC 1035, 2.3.4).
constexpr size_t kMaxTextLength = 255;

// Certificates come from the network: no control characters and no endless names in a log.
std::string Shown(absl::string_view text) {
  return absl::CHexEscape(text.substr(0, kMaxTextLength));
}

std::string CommonName(X509_NAME* name) {
  char text[kMaxTextLength + 1] = {};
  const int size = X509_NAME_get_text_by_NID(name, NID_commonName, text, sizeof(text));
  return size <= 0 ? "" : Shown(absl::string_view(text, static_cast<size_t>(size)));
}

std::string WholeName(X509_NAME* name) {
  char text[kMaxTextLength + 1] = {};
  return X509_NAME_oneline(name, text, sizeof(text)) == nullptr ? "" : Shown(text);
}

std::string AlternativeName(const GENERAL_NAME& name) {
  if (name.type == GEN_DNS) {
    const auto* text = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name.d.dNSName));
    return Shown(absl::string_view(text, static_cast<size_t>(ASN1_STRING_length(name.d.dNSName))));
  }
  if (name.type == GEN_IPADD) {
    const int size = ASN1_STRING_length(name.d.iPAddress);
    char text[INET6_ADDRSTRLEN] = {};
    if ((size == 4 || size == 16) &&
        inet_ntop(size == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(name.d.iPAddress), text,
                  sizeof(text)) != nullptr) {
      return text;
    }
  }
  return "";
}

std::vector<std::string> AlternativeNames(X509* certificate, size_t limit) {
  const bssl::UniquePtr<GENERAL_NAMES> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::vector<std::string> texts;
  if (names == nullptr) return texts;
  for (size_t i = 0; i < sk_GENERAL_NAME_num(names.get()) && texts.size() < limit; ++i) {
    std::string text = AlternativeName(*sk_GENERAL_NAME_value(names.get(), i));
    if (!text.empty()) texts.push_back(std::move(text));
  }
  return texts;
}

// Nothing if it cannot be read.
std::optional<int64_t> UnixTime(const ASN1_TIME* time) {
  const bssl::UniquePtr<ASN1_TIME> epoch(ASN1_TIME_set(nullptr, 0));
  int days = 0;
  int seconds = 0;
  if (epoch == nullptr || !ASN1_TIME_diff(&days, &seconds, epoch.get(), time)) return std::nullopt;
  return int64_t{days} * 86400 + seconds;
}

// Files of this project hold no encrypted keys, and nobody is there to be asked.
int NoPassword(char*, int, int, void*) { return 0; }

bssl::UniquePtr<BIO> Reader(const std::string& text) {
  if (text.size() > static_cast<size_t>(std::numeric_limits<int>::max())) return nullptr;
  return bssl::UniquePtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

}  // namespace

CRYPTO_BUFFER_POOL* TlsCertificatePool() {
  static CRYPTO_BUFFER_POOL* const pool = CRYPTO_BUFFER_POOL_new();
  return pool;
}

absl::StatusOr<std::vector<TlsCertificate>> ReadPemChain(const std::string& pem) {
  const bssl::UniquePtr<BIO> reader = Reader(pem);
  std::vector<TlsCertificate> chain;
  while (reader != nullptr && chain.size() < kMaxPemCertificates) {
    char* name = nullptr;
    char* header = nullptr;
    uint8_t* data = nullptr;
    long size = 0;
    ERR_clear_error();
    if (!PEM_read_bio(reader.get(), &name, &header, &data, &size)) {
      const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
      ERR_clear_error();
      if (at_end) break;
      return absl::InvalidArgumentError(
          absl::StrCat("PEM block ", chain.size() + 1, " of the certificate chain is damaged"));
    }
    const bssl::UniquePtr<char> free_name(name), free_header(header);
    const bssl::UniquePtr<uint8_t> free_data(data);
    const absl::string_view kind = name;
    if (kind != PEM_STRING_X509 && kind != PEM_STRING_X509_OLD) continue;
    chain.emplace_back(CRYPTO_BUFFER_new(data, static_cast<size_t>(size), TlsCertificatePool()));
    if (chain.back() == nullptr) return absl::ResourceExhaustedError("out of memory");
  }
  if (chain.empty()) return absl::InvalidArgumentError("no PEM block CERTIFICATE in it");
  return chain;
}

absl::StatusOr<bssl::UniquePtr<EVP_PKEY>> ReadPemKey(const std::string& pem) {
  const bssl::UniquePtr<BIO> reader = Reader(pem);
  bssl::UniquePtr<EVP_PKEY> key;
  ERR_clear_error();
  if (reader != nullptr) {
    key.reset(PEM_read_bio_PrivateKey(reader.get(), nullptr, &NoPassword, nullptr));
  }
  const uint32_t error = ERR_peek_last_error();
  ERR_clear_error();
  if (key != nullptr) return key;
  if (ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE) {
    return absl::InvalidArgumentError("no PEM block with a private key in it");
  }
  if (pem.find("ENCRYPTED") != std::string::npos) {
    return absl::InvalidArgumentError("the private key is encrypted: store it without a password");
  }
  return absl::InvalidArgumentError("the private key's PEM block is damaged or of no known kind");
}

std::array<uint8_t, 32> CertificatePin(const CRYPTO_BUFFER* certificate) {
  std::array<uint8_t, 32> pin;
  SHA256(CRYPTO_BUFFER_data(certificate), CRYPTO_BUFFER_len(certificate), pin.data());
  return pin;
}

absl::StatusOr<std::array<uint8_t, 32>> CertificatePin(const std::string& chain_pem) {
  const auto chain = ReadPemChain(chain_pem);
  if (!chain.ok()) return chain.status();
  return CertificatePin(chain->front().get());
}

bssl::UniquePtr<X509> ParseCertificate(CRYPTO_BUFFER* certificate) {
  bssl::UniquePtr<X509> parsed(X509_parse_from_buffer(certificate));
  ERR_clear_error();
  return parsed;
}

int64_t NotBefore(const X509* certificate) {
  return UnixTime(X509_get0_notBefore(certificate)).value_or(std::numeric_limits<int64_t>::max());
}

int64_t NotAfter(const X509* certificate) {
  return UnixTime(X509_get0_notAfter(certificate)).value_or(std::numeric_limits<int64_t>::min());
}

std::string UnixTimeText(int64_t unix_time) {
  const auto seconds = static_cast<time_t>(unix_time);
  std::tm tm{};
  char text[64];
  if (gmtime_r(&seconds, &tm) == nullptr ||
      std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm) == 0) {
    return "an unknown date";
  }
  return text;
}

std::string SubjectText(X509* certificate) {
  std::string name = CommonName(X509_get_subject_name(certificate));
  if (!name.empty()) return name;
  const std::vector<std::string> names = AlternativeNames(certificate, 1);
  return names.empty() ? WholeName(X509_get_subject_name(certificate)) : names.front();
}

std::string IssuerText(X509* certificate) {
  std::string name = CommonName(X509_get_issuer_name(certificate));
  return name.empty() ? WholeName(X509_get_issuer_name(certificate)) : name;
}

std::string NamesText(X509* certificate) {
  std::vector<std::string> names = AlternativeNames(certificate, kMaxNamesShown + 1);
  if (names.empty()) return "no name at all";
  if (names.size() > kMaxNamesShown) names.back() = "and more";
  return absl::StrJoin(names, ", ");
}

bool IsIpAddress(const std::string& host_name) {
  in6_addr address;
  return inet_pton(AF_INET, host_name.c_str(), &address) == 1 ||
         inet_pton(AF_INET6, host_name.c_str(), &address) == 1;
}

}  // namespace ringsock::derp
