// STUN messages, the part that tells a host its own public address (RFC 8489, RFC 5389): binding
// requests and their answers, as bytes in and bytes out. Everything read here comes from strangers.
#ifndef RINGSOCK_STUN_MESSAGE_H_
#define RINGSOCK_STUN_MESSAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/endpoint.h"
#include "base/random.h"

namespace ringsock::stun {

inline constexpr uint16_t kDefaultPort = 3478;
inline constexpr size_t kHeaderSize = 20;
inline constexpr uint32_t kMagicCookie = 0x2112A442;
// What our client calls itself. Servers of the reference answer no other (spec: stun-netcheck.md).
inline constexpr char kSoftware[] = "tailnode";

// Ties an answer to its request. Whoever can guess it can forge answers, so production takes it
// from SystemRandom().
using TransactionId = std::array<uint8_t, 12>;
TransactionId MakeTransactionId(Random* random);

// Header, SOFTWARE (8 bytes), FINGERPRINT.
inline constexpr size_t kRequestSize = kHeaderSize + 12 + 8;
// Header, XOR-MAPPED-ADDRESS of IPv4 or IPv6.
inline constexpr size_t kResponseSizeV4 = kHeaderSize + 12;
inline constexpr size_t kResponseSizeV6 = kHeaderSize + 24;

// True for what looks like STUN and is not WireGuard's: 20 bytes or more, the two top bits zero,
// the magic cookie in place (spec: RECV-1).
bool IsStun(std::span<const std::byte> packet);

std::array<std::byte, kRequestSize> EncodeBindingRequest(const TransactionId& id);

// Writes the success response that tells `mapped` to its owner; returns its size. A zone is local
// to this host and stays here.
size_t EncodeBindingResponse(const TransactionId& id, const Endpoint& mapped,
                             std::span<std::byte, kResponseSizeV6> out);

// Which requests a server takes.
enum class Dialect {
  kReference,  // only those with exactly our SOFTWARE and a right FINGERPRINT at the end
  kRfc,        // all that RFC 8489 allows; a FINGERPRINT that is there must be right
};

enum class ParseResult : uint8_t {
  kOk,
  kNotStun,           // see IsStun()
  kOtherType,         // STUN, but not the kind of message asked for
  kBadLength,         // more than there is, or not a multiple of 4
  kOverrun,           // an attribute reaches past the end of the message
  kBadAttribute,      // an attribute whose contents cannot be
  kBadFingerprint,    // wrong, or not the last attribute
  kNotReference,      // fine, but not in the reference's dialect
  kUnknownAttribute,  // a request that must not be answered by who does not understand it all
  kNoAddress,         // a success response without an address
};
inline constexpr size_t kParseResults = static_cast<size_t>(ParseResult::kNoAddress) + 1;
const char* ParseResultName(ParseResult result);  // "ok", "not_stun", ...

// Reads a binding request. `id` is set only with kOk. Bytes after the length that the message
// states are ignored.
ParseResult ParseBindingRequest(std::span<const std::byte> packet, Dialect dialect,
                                TransactionId* id);

struct BindingResponse {
  TransactionId id{};
  // The address the server saw, never port 0 or unspecified. XOR-MAPPED-ADDRESS comes before
  // MAPPED-ADDRESS, which some NAT boxes rewrite; within each, IPv4 before IPv6.
  Endpoint mapped;
  // Of an error response: 300 to 699, and `mapped` is none. 0: success.
  int error_code = 0;

  friend bool operator==(const BindingResponse&, const BindingResponse&) = default;
};

// Reads a success or error response to a binding request. `out` is set only with kOk. The caller
// checks the transaction id.
ParseResult ParseBindingResponse(std::span<const std::byte> packet, BindingResponse* out);

}  // namespace ringsock::stun

#endif  // RINGSOCK_STUN_MESSAGE_H_
