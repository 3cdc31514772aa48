#include "stun/message.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace ringsock::stun {
namespace {

// Message types: method "binding" in its three classes (RFC 8489 section 5).
constexpr uint16_t kBindingRequest = 0x0001;
constexpr uint16_t kBindingSuccess = 0x0101;
constexpr uint16_t kBindingError = 0x0111;

// Attribute types (RFC 8489 section 18.3).
constexpr uint16_t kMappedAddress = 0x0001;
constexpr uint16_t kErrorCode = 0x0009;
constexpr uint16_t kXorMappedAddress = 0x0020;
constexpr uint16_t kXorMappedAddressAlt = 0x8020;  // of a draft; some servers still send it
constexpr uint16_t kSoftwareAttribute = 0x8022;
constexpr uint16_t kFingerprint = 0x8028;
constexpr uint16_t kFirstOptional = 0x8000;  // below it: must be understood

constexpr uint8_t kFamilyV4 = 1;
constexpr uint8_t kFamilyV6 = 2;
constexpr size_t kAttributeHeader = 4;
constexpr size_t kFingerprintSize = 8;
constexpr uint32_t kFingerprintXor = 0x5354554e;  // "STUN"
constexpr size_t kSoftwareSize = sizeof(kSoftware) - 1;
static_assert(kSoftwareSize % 4 == 0, "the encoder writes no padding");

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

// CRC-32 of ISO 3309, as FINGERPRINT has it (RFC 8489 section 14.7).
uint32_t Fingerprint(std::span<const std::byte> bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const std::byte b : bytes) {
    crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<uint32_t>(b)) & 0xFF];
  }
  return ~crc ^ kFingerprintXor;
}

uint16_t Load16(const std::byte* p) {
  return static_cast<uint16_t>(static_cast<uint32_t>(p[0]) << 8 | static_cast<uint32_t>(p[1]));
}
uint32_t Load32(const std::byte* p) {
  return static_cast<uint32_t>(Load16(p)) << 16 | Load16(p + 2);
}
void Store16(std::byte* p, uint16_t value) {
  p[0] = static_cast<std::byte>(value >> 8);
  p[1] = static_cast<std::byte>(value);
}
void Store32(std::byte* p, uint32_t value) {
  Store16(p, static_cast<uint16_t>(value >> 16));
  Store16(p + 2, static_cast<uint16_t>(value));
}

void WriteHeader(std::byte* out, uint16_t type, size_t body, const TransactionId& id) {
  Store16(out, type);
  Store16(out + 2, static_cast<uint16_t>(body));
  Store32(out + 4, kMagicCookie);
  std::memcpy(out + 8, id.data(), id.size());
}

// What XOR-MAPPED-ADDRESS is XORed with: the cookie, then the transaction id, which are neighbours
// in the header.
std::span<const std::byte, 16> XorKey(const std::byte* message) {
  return std::span<const std::byte, 16>(message + 4, 16);
}

struct Attribute {
  uint16_t type = 0;
  std::span<const std::byte> value;  // without padding
};

// Walks the attributes of one message and checks its frame: lengths, padding, fingerprint.
class Reader {
 public:
  // kOk: the rest may be called.
  ParseResult Open(std::span<const std::byte> packet) {
    if (!IsStun(packet)) return ParseResult::kNotStun;
    const size_t body = Load16(packet.data() + 2);
    // Attributes are padded, so their sum is a multiple of 4 (RFC 8489 section 5).
    if (body % 4 != 0 || body > packet.size() - kHeaderSize) return ParseResult::kBadLength;
    message_ = packet.first(kHeaderSize + body);
    return ParseResult::kOk;
  }

  uint16_t type() const { return Load16(message_.data()); }
  TransactionId id() const {
    TransactionId id;
    std::memcpy(id.data(), message_.data() + 8, id.size());
    return id;
  }
  std::span<const std::byte, 16> xor_key() const { return XorKey(message_.data()); }
  bool has_fingerprint() const { return has_fingerprint_; }

  // False at the end, and after an error, which `result` then has.
  bool Next(Attribute* attribute, ParseResult* result) {
    *result = ParseResult::kOk;
    const size_t left = message_.size() - position_;
    if (left == 0) return false;
    // As the length is a multiple of 4 and so is every step, at least 4 bytes are left.
    const std::byte* at = message_.data() + position_;
    attribute->type = Load16(at);
    const size_t size = Load16(at + 2);
    const size_t padded = (size + 3) / 4 * 4;
    if (padded > left - kAttributeHeader) {
      *result = ParseResult::kOverrun;
      return false;
    }
    attribute->value = {at + kAttributeHeader, size};
    if (attribute->type == kFingerprint && !CheckFingerprint(*attribute)) {
      *result = ParseResult::kBadFingerprint;
      return false;
    }
    position_ += kAttributeHeader + padded;
    return true;
  }

 private:
  bool CheckFingerprint(const Attribute& attribute) {
    has_fingerprint_ = attribute.value.size() == 4 &&
                       position_ + kFingerprintSize == message_.size() &&
                       Load32(attribute.value.data()) == Fingerprint(message_.first(position_));
    return has_fingerprint_;
  }

  std::span<const std::byte> message_;
  size_t position_ = kHeaderSize;
  bool has_fingerprint_ = false;
};

// The value of MAPPED-ADDRESS, or with a key of XOR-MAPPED-ADDRESS (RFC 8489 sections 14.1, 14.2).
std::optional<Endpoint> ReadAddress(std::span<const std::byte> value,
                                    std::span<const std::byte> key) {
  if (value.size() != 8 && value.size() != 20) return std::nullopt;
  const auto family = static_cast<uint8_t>(value[1]);
  if (family != (value.size() == 8 ? kFamilyV4 : kFamilyV6)) return std::nullopt;
  std::array<uint8_t, 16> ip{};
  for (size_t i = 0; i + 4 < value.size(); ++i) {
    ip[i] = static_cast<uint8_t>(key.empty() ? value[4 + i] : value[4 + i] ^ key[i]);
  }
  Endpoint endpoint;
  endpoint.port = Load16(value.data() + 2);
  if (!key.empty()) endpoint.port ^= Load16(key.data());
  endpoint.ip = family == kFamilyV4 ? IpAddress::V4(ip[0], ip[1], ip[2], ip[3]) : IpAddress::V6(ip);
  // Nobody can have such a source address, so nobody can be told of one.
  if (endpoint.port == 0 || endpoint.ip.IsUnspecified()) return std::nullopt;
  return endpoint;
}

// The first address of each kind, in the order in which they are preferred.
struct Addresses {
  std::optional<Endpoint> xor_v4, xor_v6, plain_v4, plain_v6;

  // False: not an address.
  bool Add(const Attribute& attribute, std::span<const std::byte> key) {
    const bool plain = attribute.type == kMappedAddress;
    const auto endpoint = ReadAddress(attribute.value, plain ? std::span<const std::byte>() : key);
    if (!endpoint.has_value()) return false;
    std::optional<Endpoint>& slot =
        endpoint->IsV4() ? (plain ? plain_v4 : xor_v4) : (plain ? plain_v6 : xor_v6);
    if (!slot.has_value()) slot = endpoint;
    return true;
  }
  std::optional<Endpoint> Best() const {
    for (const auto* candidate : {&xor_v4, &xor_v6, &plain_v4, &plain_v6}) {
      if (candidate->has_value()) return *candidate;
    }
    return std::nullopt;
  }
};

// RFC 8489 section 14.8: class (3 to 6) and number (0 to 99). 0: malformed.
int ReadErrorCode(std::span<const std::byte> value) {
  if (value.size() < 4) return 0;
  const int error_class = static_cast<int>(value[2]) & 7;
  const int number = static_cast<int>(value[3]);
  return error_class < 3 || error_class > 6 || number > 99 ? 0 : error_class * 100 + number;
}

// Attributes of RFC 8489 that demand to be understood and change nothing here: no credentials are
// asked for. An older one such as CHANGE-REQUEST asks for another answer than ours.
bool MayIgnore(uint16_t type) {
  constexpr uint16_t kHarmless[] = {
      0x0006,  // USERNAME
      0x0008,  // MESSAGE-INTEGRITY
      0x0014,  // REALM
      0x0015,  // NONCE
      0x001C,  // MESSAGE-INTEGRITY-SHA256
      0x001D,  // PASSWORD-ALGORITHM
      0x001E,  // USERHASH
  };
  return type >= kFirstOptional ||
         std::find(std::begin(kHarmless), std::end(kHarmless), type) != std::end(kHarmless);
}

bool IsOurSoftware(const Attribute& attribute) {
  return attribute.type == kSoftwareAttribute && attribute.value.size() == kSoftwareSize &&
         std::memcmp(attribute.value.data(), kSoftware, kSoftwareSize) == 0;
}

}  // namespace

TransactionId MakeTransactionId(Random* random) {
  TransactionId id;
  random->Fill(std::as_writable_bytes(std::span(id)));
  return id;
}

bool IsStun(std::span<const std::byte> packet) {
  return packet.size() >= kHeaderSize && (packet[0] & std::byte{0xC0}) == std::byte{0} &&
         Load32(packet.data() + 4) == kMagicCookie;
}

std::array<std::byte, kRequestSize> EncodeBindingRequest(const TransactionId& id) {
  std::array<std::byte, kRequestSize> out;
  // The length counts FINGERPRINT too, though that is computed over what stands before it.
  WriteHeader(out.data(), kBindingRequest, kRequestSize - kHeaderSize, id);
  std::byte* at = out.data() + kHeaderSize;
  Store16(at, kSoftwareAttribute);
  Store16(at + 2, kSoftwareSize);
  std::memcpy(at + kAttributeHeader, kSoftware, kSoftwareSize);
  at += kAttributeHeader + kSoftwareSize;
  Store16(at, kFingerprint);
  Store16(at + 2, 4);
  Store32(at + kAttributeHeader,
          Fingerprint(std::span(out).first(kRequestSize - kFingerprintSize)));
  return out;
}

size_t EncodeBindingResponse(const TransactionId& id, const Endpoint& mapped,
                             std::span<std::byte, kResponseSizeV6> out) {
  const bool v4 = mapped.IsV4();
  const size_t address_size = v4 ? 4 : 16;
  const size_t value_size = 4 + address_size;
  WriteHeader(out.data(), kBindingSuccess, kAttributeHeader + value_size, id);
  const auto key = XorKey(out.data());
  std::byte* at = out.data() + kHeaderSize;
  Store16(at, kXorMappedAddress);
  Store16(at + 2, static_cast<uint16_t>(value_size));
  at += kAttributeHeader;
  Store16(at, v4 ? kFamilyV4 : kFamilyV6);
  Store16(at + 2, mapped.port ^ static_cast<uint16_t>(kMagicCookie >> 16));
  const uint8_t* ip = mapped.ip.bytes.data() + (16 - address_size);
  for (size_t i = 0; i < address_size; ++i) at[4 + i] = std::byte{ip[i]} ^ key[i];
  return kHeaderSize + kAttributeHeader + value_size;
}

const char* ParseResultName(ParseResult result) {
  switch (result) {
    case ParseResult::kOk:
      return "ok";
    case ParseResult::kNotStun:
      return "not_stun";
    case ParseResult::kOtherType:
      return "other_type";
    case ParseResult::kBadLength:
      return "bad_length";
    case ParseResult::kOverrun:
      return "overrun";
    case ParseResult::kBadAttribute:
      return "bad_attribute";
    case ParseResult::kBadFingerprint:
      return "bad_fingerprint";
    case ParseResult::kNotReference:
      return "not_reference";
    case ParseResult::kUnknownAttribute:
      return "unknown_attribute";
    case ParseResult::kNoAddress:
      return "no_address";
  }
  return "unknown";
}

ParseResult ParseBindingRequest(std::span<const std::byte> packet, Dialect dialect,
                                TransactionId* id) {
  Reader reader;
  ParseResult result = reader.Open(packet);
  if (result != ParseResult::kOk) return result;
  if (reader.type() != kBindingRequest) return ParseResult::kOtherType;
  bool our_software = false;
  bool understood = true;
  for (Attribute attribute; reader.Next(&attribute, &result);) {
    our_software |= IsOurSoftware(attribute);
    understood &= MayIgnore(attribute.type);
  }
  if (result != ParseResult::kOk) return result;
  if (!understood) return ParseResult::kUnknownAttribute;
  if (dialect == Dialect::kReference && !(our_software && reader.has_fingerprint())) {
    return ParseResult::kNotReference;
  }
  *id = reader.id();
  return ParseResult::kOk;
}

ParseResult ParseBindingResponse(std::span<const std::byte> packet, BindingResponse* out) {
  Reader reader;
  ParseResult result = reader.Open(packet);
  if (result != ParseResult::kOk) return result;
  const bool success = reader.type() == kBindingSuccess;
  if (!success && reader.type() != kBindingError) return ParseResult::kOtherType;
  Addresses addresses;
  int error_code = 0;
  for (Attribute attribute; reader.Next(&attribute, &result);) {
    switch (attribute.type) {
      case kMappedAddress:
      case kXorMappedAddress:
      case kXorMappedAddressAlt:
        if (!addresses.Add(attribute, reader.xor_key())) return ParseResult::kBadAttribute;
        break;
      case kErrorCode:
        if (error_code == 0) error_code = ReadErrorCode(attribute.value);
        if (error_code == 0) return ParseResult::kBadAttribute;
        break;
      default:
        break;
    }
  }
  if (result != ParseResult::kOk) return result;
  const std::optional<Endpoint> mapped = addresses.Best();
  if (success && !mapped.has_value()) return ParseResult::kNoAddress;
  if (!success && error_code == 0) return ParseResult::kBadAttribute;
  *out = {.id = reader.id(),
          .mapped = success ? *mapped : Endpoint{},
          .error_code = success ? 0 : error_code};
  return ParseResult::kOk;
}

}  // namespace ringsock::stun
