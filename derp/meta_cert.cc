#include "derp/meta_cert.h"

#include <openssl/bytestring.h>
#include <openssl/curve25519.h>
#include <openssl/mem.h>

#include <ctime>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ringsock::derp {
namespace {

constexpr absl::string_view kNamePrefix = "derpkey";
constexpr size_t kKeyDigits = 2 * kKeySize;
constexpr uint8_t kOidCommonName[] = {0x55, 0x04, 0x03};        // 2.5.4.3
constexpr uint8_t kOidBasicConstraints[] = {0x55, 0x1d, 0x13};  // 2.5.29.19
constexpr uint8_t kOidEd25519[] = {0x2b, 0x65, 0x70};           // 1.3.101.112
constexpr unsigned kExplicit0 = CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0;
constexpr unsigned kExplicit3 = CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 3;

// The first common name of an RDNSequence's content.
std::optional<absl::string_view> CommonName(CBS names) {
  while (CBS_len(&names) > 0) {
    CBS set;
    if (!CBS_get_asn1(&names, &set, CBS_ASN1_SET)) return std::nullopt;
    while (CBS_len(&set) > 0) {
      CBS attribute, oid, value;
      unsigned tag = 0;
      if (!CBS_get_asn1(&set, &attribute, CBS_ASN1_SEQUENCE) ||
          !CBS_get_asn1(&attribute, &oid, CBS_ASN1_OBJECT) ||
          !CBS_get_any_asn1(&attribute, &value, &tag)) {
        return std::nullopt;
      }
      if (!CBS_mem_equal(&oid, kOidCommonName, sizeof(kOidCommonName))) continue;
      if (tag != CBS_ASN1_PRINTABLESTRING && tag != CBS_ASN1_UTF8STRING) return std::nullopt;
      return absl::string_view(reinterpret_cast<const char*>(CBS_data(&value)), CBS_len(&value));
    }
  }
  return std::nullopt;
}

bool AddAlgorithm(CBB* to) {
  CBB algorithm, oid;
  return CBB_add_asn1(to, &algorithm, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&algorithm, &oid, CBS_ASN1_OBJECT) &&
         CBB_add_bytes(&oid, kOidEd25519, sizeof(kOidEd25519)) && CBB_flush(to);
}

bool AddName(CBB* to, const std::string& common_name) {
  CBB names, set, attribute, oid, value;
  return CBB_add_asn1(to, &names, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&names, &set, CBS_ASN1_SET) &&
         CBB_add_asn1(&set, &attribute, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&attribute, &oid, CBS_ASN1_OBJECT) &&
         CBB_add_bytes(&oid, kOidCommonName, sizeof(kOidCommonName)) &&
         CBB_add_asn1(&attribute, &value, CBS_ASN1_PRINTABLESTRING) &&
         CBB_add_bytes(&value, reinterpret_cast<const uint8_t*>(common_name.data()),
                       common_name.size()) &&
         CBB_flush(to);
}

// UTCTime, whose two-digit years are 1950 to 2049 (RFC 5280, 4.1.2.5.1).
bool AddTime(CBB* to, int64_t unix_time) {
  const auto seconds = static_cast<time_t>(unix_time);
  std::tm tm{};
  if (gmtime_r(&seconds, &tm) == nullptr || tm.tm_year < 50 || tm.tm_year > 149) return false;
  char text[16];
  if (std::strftime(text, sizeof(text), "%y%m%d%H%M%SZ", &tm) != 13) return false;
  CBB time;
  return CBB_add_asn1(to, &time, CBS_ASN1_UTCTIME) &&
         CBB_add_bytes(&time, reinterpret_cast<const uint8_t*>(text), 13) && CBB_flush(to);
}

bool AddPublicKey(CBB* to, const uint8_t key[ED25519_PUBLIC_KEY_LEN]) {
  CBB info, bits;
  return CBB_add_asn1(to, &info, CBS_ASN1_SEQUENCE) && AddAlgorithm(&info) &&
         CBB_add_asn1(&info, &bits, CBS_ASN1_BITSTRING) && CBB_add_u8(&bits, 0) &&
         CBB_add_bytes(&bits, key, ED25519_PUBLIC_KEY_LEN) && CBB_flush(to);
}

// Basic constraints, critical, not an authority.
bool AddExtensions(CBB* to) {
  CBB outer, extensions, extension, oid, octets, constraints;
  return CBB_add_asn1(to, &outer, kExplicit3) &&
         CBB_add_asn1(&outer, &extensions, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&extensions, &extension, CBS_ASN1_SEQUENCE) &&
         CBB_add_asn1(&extension, &oid, CBS_ASN1_OBJECT) &&
         CBB_add_bytes(&oid, kOidBasicConstraints, sizeof(kOidBasicConstraints)) &&
         CBB_add_asn1_bool(&extension, 1) &&
         CBB_add_asn1(&extension, &octets, CBS_ASN1_OCTETSTRING) &&
         CBB_add_asn1(&octets, &constraints, CBS_ASN1_SEQUENCE) && CBB_flush(to);
}

bool AddToBeSigned(CBB* to, const MetaCert& cert, int64_t not_before, int64_t not_after,
                   const uint8_t public_key[ED25519_PUBLIC_KEY_LEN]) {
  const std::string name = absl::StrCat(kNamePrefix, cert.server_key.ToHex());
  constexpr uint64_t kX509Version3 = 2;
  CBB tbs, version, validity;
  return CBB_add_asn1(to, &tbs, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&tbs, &version, kExplicit0) &&
         CBB_add_asn1_uint64(&version, kX509Version3) &&
         CBB_add_asn1_uint64(&tbs, static_cast<uint64_t>(cert.version)) && AddAlgorithm(&tbs) &&
         AddName(&tbs, name) && CBB_add_asn1(&tbs, &validity, CBS_ASN1_SEQUENCE) &&
         AddTime(&validity, not_before) && AddTime(&validity, not_after) && AddName(&tbs, name) &&
         AddPublicKey(&tbs, public_key) && AddExtensions(&tbs) && CBB_flush(to);
}

// The finished bytes of `cbb`, which is used up whether or not `good`.
std::optional<std::vector<uint8_t>> Finish(CBB* cbb, bool good) {
  uint8_t* data = nullptr;
  size_t size = 0;
  if (!good || !CBB_finish(cbb, &data, &size)) {
    CBB_cleanup(cbb);
    return std::nullopt;
  }
  std::vector<uint8_t> bytes(data, data + size);
  OPENSSL_free(data);
  return bytes;
}

}  // namespace

std::optional<MetaCert> ParseMetaCert(std::span<const uint8_t> der) {
  // Certificate { tbs { [0] version, serial, algorithm, issuer, validity, subject, ... }, ... }
  CBS input, certificate, tbs, serial, subject;
  CBS_init(&input, der.data(), der.size());
  if (!CBS_get_asn1(&input, &certificate, CBS_ASN1_SEQUENCE) || CBS_len(&input) != 0 ||
      !CBS_get_asn1(&certificate, &tbs, CBS_ASN1_SEQUENCE) ||
      !CBS_get_optional_asn1(&tbs, nullptr, nullptr, kExplicit0) ||
      !CBS_get_asn1(&tbs, &serial, CBS_ASN1_INTEGER) ||
      !CBS_get_asn1(&tbs, nullptr, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&tbs, nullptr, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&tbs, nullptr, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&tbs, &subject, CBS_ASN1_SEQUENCE)) {
    return std::nullopt;
  }
  const std::optional<absl::string_view> name = CommonName(subject);
  if (!name.has_value() || name->size() != kNamePrefix.size() + kKeyDigits ||
      !absl::StartsWith(*name, kNamePrefix)) {
    return std::nullopt;
  }
  const auto key = PublicKey::Parse(name->substr(kNamePrefix.size()));
  // One byte is all a version has needed; a negative or longer serial is somebody else's.
  if (!key.ok() || CBS_len(&serial) != 1 || CBS_data(&serial)[0] > 127) return std::nullopt;
  return MetaCert{*key, CBS_data(&serial)[0]};
}

absl::StatusOr<std::vector<uint8_t>> MakeMetaCert(const MetaCert& cert, int64_t not_before,
                                                  int64_t not_after,
                                                  std::span<const uint8_t, 32> seed) {
  if (cert.version < 0 || cert.version > 127) {
    return absl::InvalidArgumentError("version: not from 0 to 127");
  }
  uint8_t public_key[ED25519_PUBLIC_KEY_LEN];
  uint8_t private_key[ED25519_PRIVATE_KEY_LEN];
  ED25519_keypair_from_seed(public_key, private_key, seed.data());

  CBB cbb;
  bool good = CBB_init(&cbb, 512) && AddToBeSigned(&cbb, cert, not_before, not_after, public_key);
  const auto tbs = Finish(&cbb, good);
  std::array<uint8_t, ED25519_SIGNATURE_LEN> signature{};
  good =
      tbs.has_value() && ED25519_sign(signature.data(), tbs->data(), tbs->size(), private_key) == 1;
  OPENSSL_cleanse(private_key, sizeof(private_key));
  if (!good) return absl::InvalidArgumentError("certificate cannot be made: time out of range?");

  CBB certificate, bits;
  good = CBB_init(&cbb, 512) && CBB_add_asn1(&cbb, &certificate, CBS_ASN1_SEQUENCE) &&
         CBB_add_bytes(&certificate, tbs->data(), tbs->size()) && AddAlgorithm(&certificate) &&
         CBB_add_asn1(&certificate, &bits, CBS_ASN1_BITSTRING) && CBB_add_u8(&bits, 0) &&
         CBB_add_bytes(&bits, signature.data(), signature.size());
  auto der = Finish(&cbb, good);
  if (!der.has_value()) return absl::InternalError("certificate cannot be made");
  return *std::move(der);
}

}  // namespace ringsock::derp
