// The STUN codec against recorded bytes of the reference, and against bytes nobody should send.
#include "stun/message.h"

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace ringsock::stun {
namespace {

using Bytes = std::vector<std::byte>;

Bytes FromHex(const std::string& hex) {
  const std::string text = absl::HexStringToBytes(hex);
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return Bytes(data, data + text.size());
}

template <typename Range>
std::string Hex(const Range& bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

Endpoint At(const std::string& text) { return Endpoint::Parse(text).value(); }

constexpr TransactionId kId = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5,
                               0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab};
const char kIdHex[] = "a0a1a2a3a4a5a6a7a8a9aaab";

// A message by hand: type and body in hex, the length stated right.
Bytes Message(const std::string& type, const std::string& body) {
  const size_t size = body.size() / 2;
  return FromHex(absl::StrCat(type, absl::Hex(size, absl::kZeroPad4), "2112a442", kIdHex, body));
}

const std::string kXorV4 = "00200008000183bbea12d54b";    // 203.0.113.9:41641
const std::string kPlainV4 = "000100080001a2a9c6336401";  // 198.51.100.1:41641
const std::string kXorV6 = "00200014000283bb0113a9faa0a1a2a3a4a5a6a7a8a8aaa9";

ParseResult Request(const Bytes& packet, Dialect dialect) {
  TransactionId id{};
  const ParseResult result = ParseBindingRequest(packet, dialect, &id);
  EXPECT_EQ(id, result == ParseResult::kOk ? kId : TransactionId{});
  return result;
}

ParseResult Response(const Bytes& packet) {
  BindingResponse response;
  const ParseResult result = ParseBindingResponse(packet, &response);
  EXPECT_EQ(response == BindingResponse{}, result != ParseResult::kOk);
  return result;
}

std::string MappedIn(const Bytes& packet) {
  BindingResponse response;
  const ParseResult result = ParseBindingResponse(packet, &response);
  if (result != ParseResult::kOk) return ParseResultName(result);
  return response.error_code != 0 ? std::to_string(response.error_code)
                                  : response.mapped.ToString();
}

nlohmann::json Vectors() {
  std::ifstream file("tests/stun/testdata/stun.json");
  return nlohmann::json::parse(file);
}

TEST(MessageVectorTest, WeWriteWhatTheReferenceWrites) {
  const nlohmann::json vectors = Vectors();
  ASSERT_EQ(vectors["tx_id"], kIdHex);
  EXPECT_EQ(Hex(EncodeBindingRequest(kId)), vectors["request"].get<std::string>());
  for (const char* name : {"response_v4", "response_v6"}) {
    std::array<std::byte, kResponseSizeV6> out;
    const Endpoint mapped = At(vectors[name]["addr"].get<std::string>());
    const size_t size = EncodeBindingResponse(kId, mapped, out);
    EXPECT_EQ(Hex(std::span(out).first(size)), vectors[name]["bytes"].get<std::string>());
    EXPECT_EQ(size, mapped.IsV4() ? kResponseSizeV4 : kResponseSizeV6);
  }
}

TEST(MessageVectorTest, WeReadWhatTheReferenceWrites) {
  const nlohmann::json vectors = Vectors();
  const Bytes request = FromHex(vectors["request"].get<std::string>());
  EXPECT_EQ(Request(request, Dialect::kReference), ParseResult::kOk);
  EXPECT_EQ(Request(request, Dialect::kRfc), ParseResult::kOk);
  EXPECT_EQ(Response(request), ParseResult::kOtherType);
  for (const char* name : {"response_v4", "response_v6"}) {
    const Bytes bytes = FromHex(vectors[name]["bytes"].get<std::string>());
    BindingResponse response;
    ASSERT_EQ(ParseBindingResponse(bytes, &response), ParseResult::kOk);
    EXPECT_EQ(response.id, kId);
    EXPECT_EQ(response.mapped, At(vectors[name]["addr"].get<std::string>()));
    EXPECT_EQ(response.error_code, 0);
    EXPECT_EQ(Request(bytes, Dialect::kRfc), ParseResult::kOtherType);
  }
}

// spec: RECV-1
TEST(MessageTest, WhatIsStun) {
  Bytes packet(20);
  EXPECT_FALSE(IsStun(packet));
  packet = Message("0101", "");
  EXPECT_TRUE(IsStun(packet));
  for (const int bit : {0x80, 0x40}) {
    Bytes other = packet;
    other[0] |= static_cast<std::byte>(bit);
    EXPECT_FALSE(IsStun(other));
  }
  for (size_t i = 4; i < 8; ++i) {
    Bytes other = packet;
    other[i] ^= std::byte{1};
    EXPECT_FALSE(IsStun(other)) << i;
  }
  packet.pop_back();
  EXPECT_FALSE(IsStun(packet));
  EXPECT_FALSE(IsStun({}));
}

TEST(MessageTest, TransactionIdsComeFromTheSourceOfRandomness) {
  SeededRandom a(1), b(1), c(2);
  const TransactionId id = MakeTransactionId(&a);
  EXPECT_EQ(id, MakeTransactionId(&b));
  EXPECT_NE(id, MakeTransactionId(&a));
  EXPECT_NE(id, MakeTransactionId(&c));
}

// No prefix and no flipped bit of a good message is read past its end (the address sanitizer sees
// it: each packet has a block of its own), and the reference's dialect takes none of the broken.
TEST(MessageTest, EveryPrefixAndEveryFlippedBitOfARequest) {
  const auto good = EncodeBindingRequest(kId);
  for (size_t size = 0; size < good.size(); ++size) {
    const Bytes packet(good.begin(), good.begin() + size);
    EXPECT_NE(Request(packet, Dialect::kRfc), ParseResult::kOk) << size;
    EXPECT_NE(Request(packet, Dialect::kReference), ParseResult::kOk) << size;
  }
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes packet(good.begin(), good.end());
    packet[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    EXPECT_NE(Request(packet, Dialect::kReference), ParseResult::kOk) << bit;
  }
}

TEST(MessageTest, EveryPrefixOfResponses) {
  for (const std::string& body : {kXorV4, kXorV6, kPlainV4, kXorV4 + kXorV6}) {
    const Bytes good = Message("0101", body);
    EXPECT_EQ(Response(good), ParseResult::kOk);
    for (size_t size = 0; size < good.size(); ++size) {
      EXPECT_NE(Response(Bytes(good.begin(), good.begin() + size)), ParseResult::kOk) << size;
    }
  }
}

TEST(MessageTest, BytesAfterTheStatedLengthAreIgnored) {
  const auto request = EncodeBindingRequest(kId);
  Bytes packet(request.begin(), request.end());
  packet.resize(packet.size() + 3, std::byte{0xFF});
  EXPECT_EQ(Request(packet, Dialect::kReference), ParseResult::kOk);
  packet = Message("0101", kXorV4);
  packet.resize(1500, std::byte{0x20});
  EXPECT_EQ(MappedIn(packet), "203.0.113.9:41641");
}

TEST(MessageTest, DialectsOfRequests) {
  const std::string software = "802200087461696c6e6f6465";
  const std::string other = "802200086d79636c69656e74";
  struct Case {
    const char* what;
    std::string body;
    ParseResult rfc, reference;
  } const cases[] = {
      {"bare", "", ParseResult::kOk, ParseResult::kNotReference},
      {"no fingerprint", software, ParseResult::kOk, ParseResult::kNotReference},
      {"other software", other, ParseResult::kOk, ParseResult::kNotReference},
      {"longer name", "802200097461696c6e6f646532000000", ParseResult::kOk,
       ParseResult::kNotReference},
      {"wrong fingerprint", software + "8028000428a54bba", ParseResult::kBadFingerprint,
       ParseResult::kBadFingerprint},
      {"short fingerprint", software + "8028000328a54bbb", ParseResult::kBadFingerprint,
       ParseResult::kBadFingerprint},
      {"long fingerprint", software + "8028000828a54bbb28a54bbb", ParseResult::kBadFingerprint,
       ParseResult::kBadFingerprint},
      {"fingerprint not last", "8028000428a54bbb" + software, ParseResult::kBadFingerprint,
       ParseResult::kBadFingerprint},
      {"user name", "0006000361626300", ParseResult::kOk, ParseResult::kNotReference},
      {"unknown, optional", "c0570004000003e7", ParseResult::kOk, ParseResult::kNotReference},
      {"change request", "0003000400000006", ParseResult::kUnknownAttribute,
       ParseResult::kUnknownAttribute},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(Request(Message("0001", c.body), Dialect::kRfc), c.rfc) << c.what;
    EXPECT_EQ(Request(Message("0001", c.body), Dialect::kReference), c.reference) << c.what;
  }
}

TEST(MessageTest, OtherTypes) {
  for (const char* type : {"0000", "0002", "0003", "0011", "0101", "0111", "0201", "3fff"}) {
    EXPECT_EQ(Request(Message(type, ""), Dialect::kRfc), ParseResult::kOtherType) << type;
  }
  for (const char* type : {"0000", "0001", "0011", "0102", "0103", "0112", "3fff"}) {
    EXPECT_EQ(Response(Message(type, kXorV4)), ParseResult::kOtherType) << type;
  }
}

TEST(MessageTest, Lengths) {
  for (size_t length = 0; length <= 0xFFFF; ++length) {
    Bytes packet = Message("0101", kXorV4);
    packet[2] = static_cast<std::byte>(length >> 8);
    packet[3] = static_cast<std::byte>(length);
    const ParseResult expected = length == 12                     ? ParseResult::kOk
                                 : length % 4 != 0 || length > 12 ? ParseResult::kBadLength
                                 : length == 0                    ? ParseResult::kNoAddress
                                                                  : ParseResult::kOverrun;
    ASSERT_EQ(Response(packet), expected) << length;
  }
}

// The length of an attribute in the middle, from 0 to the largest.
TEST(MessageTest, AttributesThatOverrun) {
  for (size_t length = 0; length <= 0xFFFF; ++length) {
    Bytes packet = Message("0101", "8022000461626364" + kXorV4);
    packet[22] = static_cast<std::byte>(length >> 8);
    packet[23] = static_cast<std::byte>(length);
    if (length > 16) {
      ASSERT_EQ(Response(packet), ParseResult::kOverrun) << length;
    } else if (length >= 1 && length <= 4) {
      ASSERT_EQ(Response(packet), ParseResult::kOk) << length;  // padded to 4
    } else {
      ASSERT_NE(Response(packet), ParseResult::kOk) << length;
    }
  }
}

TEST(MessageTest, PaddingIsSkippedWhateverItHolds) {
  EXPECT_EQ(MappedIn(Message("0101",
                             "80220001"
                             "61000000" +
                                 kXorV4)),
            "203.0.113.9:41641");
  EXPECT_EQ(MappedIn(Message("0101",
                             "80220002"
                             "6162ffff" +
                                 kXorV4)),
            "203.0.113.9:41641");
  EXPECT_EQ(MappedIn(Message("0101",
                             "80220003"
                             "616263ff" +
                                 kXorV4)),
            "203.0.113.9:41641");
  EXPECT_EQ(MappedIn(Message("0101", "80220000" + kXorV4)), "203.0.113.9:41641");
}

TEST(MessageTest, WhichAddressIsTaken) {
  const std::string alt = "80200008" + kXorV4.substr(8);
  const std::string other_xor_v4 =
      "002000080001"
      "83bb"
      "ea12d54a";  // .8 in place of .9
  EXPECT_EQ(MappedIn(Message("0101", alt)), "203.0.113.9:41641");
  EXPECT_EQ(MappedIn(Message("0101", kPlainV4)), "198.51.100.1:41641");
  EXPECT_EQ(MappedIn(Message("0101", kPlainV4 + kXorV4)), "203.0.113.9:41641");
  EXPECT_EQ(MappedIn(Message("0101", kXorV6)), "[2001:db8::1:2]:41641");
  EXPECT_EQ(MappedIn(Message("0101", kXorV6 + kXorV4)), "203.0.113.9:41641");
  EXPECT_EQ(MappedIn(Message("0101", kXorV4 + kXorV6)), "203.0.113.9:41641");
  EXPECT_EQ(MappedIn(Message("0101", kPlainV4 + kXorV6)), "[2001:db8::1:2]:41641");
  EXPECT_EQ(MappedIn(Message("0101", kXorV4 + other_xor_v4)), "203.0.113.9:41641");
  EXPECT_EQ(MappedIn(Message("0101", other_xor_v4 + alt)), "203.0.113.8:41641");
  const std::string plain_v6 = "000100140002a2a920010db8000000000000000000010002";
  EXPECT_EQ(MappedIn(Message("0101", plain_v6)), "[2001:db8::1:2]:41641");
  EXPECT_EQ(MappedIn(Message("0101", plain_v6 + kPlainV4)), "198.51.100.1:41641");
}

TEST(MessageTest, AddressesThatAreNone) {
  for (const char* body : {
           "00010000",                                          // empty
           "000100040001a2a9",                                  // no address
           "000100080000a2a9c6336401",                          // family 0
           "000100080002a2a9c6336401",                          // IPv6 of 4 bytes
           "000100080003a2a9c6336401",                          // family 3
           "000100140001a2a920010db8000000000000000000010002",  // IPv4 of 16 bytes
           "0001000c0001a2a9c633640100000000",                  // longer than IPv4
           "0001000800010000c6336401",                          // port 0
           "000100080001a2a900000000",                          // 0.0.0.0
           "000100140002a2a900000000000000000000000000000000",  // ::
           "002000080001"
           "2112"
           "ea12d54b",  // port 0 once decoded
       }) {
    EXPECT_EQ(Response(Message("0101", body)), ParseResult::kBadAttribute) << body;
    EXPECT_EQ(Response(Message("0101", kXorV4 + body)), ParseResult::kBadAttribute) << body;
  }
  EXPECT_EQ(Response(Message("0101", "")), ParseResult::kNoAddress);
  EXPECT_EQ(Response(Message("0101", "8022000461626364")), ParseResult::kNoAddress);
}

TEST(MessageTest, FingerprintsWithoutSoftware) {
  // Both sums were computed with zlib.
  EXPECT_EQ(MappedIn(Message("0101", kXorV4 + "80280004d168984b")), "203.0.113.9:41641");
  EXPECT_EQ(Request(Message("0001", "80280004f767916f"), Dialect::kRfc), ParseResult::kOk);
  EXPECT_EQ(Response(Message("0101", kXorV4 + "8028000400000000")), ParseResult::kBadFingerprint);
  EXPECT_EQ(Response(Message("0101", "8028000400000000" + kXorV4)), ParseResult::kBadFingerprint);
}

TEST(MessageTest, ErrorResponses) {
  EXPECT_EQ(MappedIn(Message("0111", "0009000400000401")), "401");
  EXPECT_EQ(MappedIn(Message("0111",
                             "0009000900000414"
                             "4261642100000000"
                             "00000000")),
            "420");
  EXPECT_EQ(MappedIn(Message("0111", "0009000400000300" + kXorV4)), "300");
  EXPECT_EQ(MappedIn(Message("0111", "0009000400000663")), "699");
  for (const char* body : {"", "00090000", "00090003000004ff", "0009000400000200",
                           "0009000400000700", "0009000400000464"}) {
    EXPECT_EQ(Response(Message("0111", body)), ParseResult::kBadAttribute) << body;
  }
}

TEST(MessageTest, RoundTripsOfAddresses) {
  for (const char* text : {"0.0.0.1:1", "255.255.255.255:65535", "33.18.164.66:8466",
                           "[2112:a442::]:8466", "[fe80::1]:3478", "[ffff::ffff]:1"}) {
    std::array<std::byte, kResponseSizeV6> out;
    const size_t size = EncodeBindingResponse(kId, At(text), out);
    EXPECT_EQ(MappedIn(Bytes(out.begin(), out.begin() + size)), text);
  }
}

TEST(MessageTest, EveryResultHasAName) {
  std::set<std::string> names;
  for (size_t i = 0; i < kParseResults; ++i) {
    names.insert(ParseResultName(static_cast<ParseResult>(i)));
  }
  EXPECT_EQ(names.size(), kParseResults);
  EXPECT_EQ(names.count("unknown"), 0u);
}

}  // namespace
}  // namespace ringsock::stun
