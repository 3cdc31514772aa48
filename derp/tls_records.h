// The records of a TLS 1.3 connection once its handshake is done (RFC 8446, sections 4.6, 5 and 6):
// what TlsSession goes on with in BoringSSL's place. Records are opened where they were received
// and sealed where they are sent from, so that no byte is copied but those of a record that came in
// pieces. Handshakes, certificates and tickets stay with BoringSSL.
#ifndef RINGSOCK_DERP_TLS_RECORDS_H_
#define RINGSOCK_DERP_TLS_RECORDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "derp/tls.h"
#include "derp/tls_traffic_key.h"
#include "derp/token_bucket.h"

namespace ringsock::derp {

// Not thread safe. Sink and events outlive it.
class TlsRecords {
 public:
  // What the handshake left: suite, the application traffic secrets of both directions, and the
  // numbers of their next records.
  struct Start {
    uint16_t suite = 0;
    std::span<const uint8_t> read_secret;
    std::span<const uint8_t> write_secret;
    uint64_t read_sequence = 0;
    uint64_t write_sequence = 0;
  };
  // A client's: takes one NewSessionTicket, its header included. Null for a server, which is sent
  // none.
  using OnTicket = std::function<absl::Status(std::span<const uint8_t> message)>;

  // Records sealed with one key before the next one (KeyUpdate). AES-GCM may seal 2^24.5 of full
  // length (section 5.5).
  static constexpr uint64_t kMaxRecordsPerKey = uint64_t{1} << 23;
  // KeyUpdates of the other side: so many at once, and so many a second. Each costs us more than
  // it; who sends records as fast as a host can needs one in a minute.
  static constexpr uint32_t kKeyUpdateBurst = 64;
  static constexpr uint32_t kKeyUpdatesPerSecond = 1;

  // Null: no such suite, secrets of a wrong length, or no memory.
  static std::unique_ptr<TlsRecords> Create(const Start& start, TlsSink* sink, TlsEvents* events,
                                            OnTicket on_ticket,
                                            uint64_t records_per_key = kMaxRecordsPerKey);

  // As TlsSession's. The owner makes no call after an error.
  absl::Status Receive(std::span<std::byte> ciphertext);
  size_t Send(std::span<const std::byte> plaintext);
  void Shutdown();
  // Its close_notify has come; what follows is ignored.
  bool closed_by_peer() const { return closed_by_peer_; }
  // No record can be sealed any more, which takes a fault of the machine or 2^64 records.
  bool write_failed() const { return write_failed_; }
  // A key that the handshake agreed on is no longer in use.
  bool key_updated() const { return key_updated_; }

 private:
  enum class Alert : uint8_t;

  TlsRecords(TlsSink* sink, TlsEvents* events, OnTicket on_ticket, uint64_t records_per_key)
      : sink_(sink),
        events_(events),
        on_ticket_(std::move(on_ticket)),
        records_per_key_(records_per_key),
        key_updates_(kKeyUpdatesPerSecond, kKeyUpdateBurst, events->Now()) {}

  // ---- Reading ----
  absl::Status CheckHeader(std::span<const std::byte> header);
  absl::Status Carry(std::span<std::byte>* ciphertext);
  absl::Status OnRecord(std::span<std::byte> record);
  absl::Status OnContent(TlsContent type, std::span<std::byte> content);
  absl::Status OnAlert(std::span<const std::byte> content);
  absl::Status OnHandshake(std::span<const std::byte> content);
  absl::Status OnMessage(std::span<const uint8_t> message, bool last);
  absl::Status OnKeyUpdate(std::span<const uint8_t> body);
  absl::Status CountIdle();

  // ---- Writing ----
  absl::Status Fail(Alert alert, std::string_view what);
  bool SealSmall(TlsContent type, std::span<const std::byte> content);
  bool SealData(std::span<const std::byte> plaintext);
  void UpdateWriteKey();

  TlsSink* const sink_;
  TlsEvents* const events_;
  const OnTicket on_ticket_;
  const uint64_t records_per_key_;
  TokenBucket key_updates_;  // that the other side may still make
  TlsTrafficKey read_;
  TlsTrafficKey write_;
  // A record of which a part has come: its header at first, then a buffer of its length.
  std::array<std::byte, kTlsHeaderSize> header_;
  std::unique_ptr<std::byte[]> carry_;
  uint32_t carry_capacity_ = 0;
  uint32_t carried_ = 0;
  uint32_t idle_records_ = 0;     // without application data, since the last with some
  std::vector<uint8_t> message_;  // of the handshake protocol, of which a part has come
  bool closed_by_peer_ = false;
  bool write_closed_ = false;  // our close_notify has gone: nothing may follow it
  bool write_failed_ = false;
  bool owes_key_update_ = false;  // the other side asked for one
  bool key_updated_ = false;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_RECORDS_H_
