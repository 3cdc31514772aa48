// The records of a session without its handshake, and the other side of it, which can send what no
// honest one does.
#ifndef RINGSOCK_TESTS_DERP_TLS_RECORDS_WORLD_H_
#define RINGSOCK_TESTS_DERP_TLS_RECORDS_WORLD_H_

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "derp/tls_records.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {

using TlsBytes = std::vector<std::byte>;

inline TlsBytes ToBytes(const std::string& text) {
  const auto bytes = AsBytes(text);
  return {bytes.begin(), bytes.end()};
}

struct TlsRecordsWorld {
  struct Seen {
    TlsContent type;
    std::string content;
    bool operator==(const Seen&) const = default;
  };

  explicit TlsRecordsWorld(bool client = true, uint16_t suite = kTlsAes128Gcm,
                           uint64_t records_per_key = TlsRecords::kMaxRecordsPerKey) {
    std::array<uint8_t, 48> to_us_secret, from_us_secret;
    to_us_secret.fill(1);
    from_us_secret.fill(2);
    const size_t size = suite == kTlsAes256Gcm ? 48 : 32;
    const std::span<const uint8_t> read(to_us_secret.data(), size);
    const std::span<const uint8_t> write(from_us_secret.data(), size);
    TlsRecords::OnTicket on_ticket;
    if (client) {
      on_ticket = [this](std::span<const uint8_t> message) {
        tickets.emplace_back(message.begin(), message.end());
        return ticket_status;
      };
    }
    records = TlsRecords::Create({.suite = suite, .read_secret = read, .write_secret = write}, &end,
                                 &end, std::move(on_ticket), records_per_key);
    // The other engine, so that each is checked by what it is not.
    if (records == nullptr || !to_us.Init(suite, read, 0, TlsAead::Engine::kBoringSsl) ||
        !from_us.Init(suite, write, 0, TlsAead::Engine::kBoringSsl)) {
      std::abort();
    }
  }

  // A record for us. With `padding`: so many zeros behind the content type.
  TlsBytes Record(TlsContent type, const TlsBytes& content, size_t padding = 0) {
    TlsBytes inner = content;
    if (padding > 0) {
      inner.push_back(static_cast<std::byte>(type));
      inner.resize(inner.size() + padding - 1);
    }
    TlsBytes record(inner.size() + kTlsRecordOverhead);
    if (to_us.Seal(padding > 0 ? TlsContent{0} : type, inner, record) != record.size()) {
      std::abort();
    }
    return record;
  }
  TlsBytes Data(const std::string& text, size_t padding = 0) {
    return Record(TlsContent::kApplicationData, ToBytes(text), padding);
  }
  TlsBytes Alert(int description, int level = 2) {
    return Record(TlsContent::kAlert,
                  {static_cast<std::byte>(level), static_cast<std::byte>(description)});
  }
  // Of the handshake protocol: header and body.
  static TlsBytes Message(int type, const std::string& body) {
    TlsBytes message = {static_cast<std::byte>(type), static_cast<std::byte>(body.size() >> 16),
                        static_cast<std::byte>(body.size() >> 8),
                        static_cast<std::byte>(body.size())};
    const TlsBytes bytes = ToBytes(body);
    message.insert(message.end(), bytes.begin(), bytes.end());
    return message;
  }
  TlsBytes Handshake(int type, const std::string& body) {
    return Record(TlsContent::kHandshake, Message(type, body));
  }
  // And uses the next key from then on.
  TlsBytes KeyUpdate(bool answer) {
    TlsBytes record = Handshake(24, std::string(1, answer ? '\1' : '\0'));
    if (!to_us.Update()) std::abort();
    return record;
  }

  absl::Status Receive(TlsBytes bytes, size_t chunk = SIZE_MAX) {
    absl::Status status;
    for (std::span<std::byte> rest(bytes); !rest.empty() && status.ok();) {
      const size_t size = std::min(chunk, rest.size());
      status = records->Receive(rest.first(size));
      rest = rest.subspan(size);
    }
    return status;
  }

  // What we have written since, opened; follows our key updates.
  std::vector<Seen> Take() {
    std::vector<Seen> seen;
    TlsBytes bytes = std::exchange(end.written, {});
    for (std::span<std::byte> rest(bytes); !rest.empty();) {
      const size_t size = kTlsHeaderSize + TlsBodySize(rest);
      const auto inner = from_us.Open(rest.first(size));
      if (!inner.has_value()) std::abort();
      rest = rest.subspan(size);
      const auto* text = reinterpret_cast<const char*>(inner->data());
      seen.push_back({static_cast<TlsContent>(inner->back()), {text, inner->size() - 1}});
      const bool update = seen.back().type == TlsContent::kHandshake;
      if (update && !from_us.Update()) std::abort();
    }
    return seen;
  }

  TlsEnd end;  // of ours; has no session
  std::unique_ptr<TlsRecords> records;
  TlsTrafficKey to_us, from_us;  // the other side's
  std::vector<std::string> tickets;
  absl::Status ticket_status;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_TLS_RECORDS_WORLD_H_
