#include "derp/tls_records.h"

#include <openssl/ssl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringsock::derp {

// Those that are sent (section 6).
enum class TlsRecords::Alert : uint8_t {
  kUnexpectedMessage = 10,
  kBadRecordMac = 20,
  kRecordOverflow = 22,
  kIllegalParameter = 47,
  kDecodeError = 50,
  kProtocolVersion = 70,
  kInternalError = 80,
};

namespace {

constexpr size_t kMaxBody = kMaxTlsPlaintext + 256;  // section 5.2
// Messages of the handshake protocol that may come after it (section 4).
constexpr uint8_t kNewSessionTicket = 4;
constexpr uint8_t kKeyUpdate = 24;
constexpr size_t kMessageHeader = 4;
// A ticket is a few hundred bytes.
constexpr size_t kMaxMessage = 16384;
// Records without application data in a row: each costs us more than the other side.
constexpr uint32_t kMaxIdleRecords = 32;
constexpr uint8_t kCloseNotify = 0;
constexpr uint8_t kUserCanceled = 90;
constexpr uint8_t kWarning = 1;
constexpr uint8_t kFatal = 2;

}  // namespace

std::unique_ptr<TlsRecords> TlsRecords::Create(const Start& start, TlsSink* sink, TlsEvents* events,
                                               OnTicket on_ticket, uint64_t records_per_key) {
  std::unique_ptr<TlsRecords> records(
      new TlsRecords(sink, events, std::move(on_ticket), records_per_key));
  if (!records->read_.Init(start.suite, start.read_secret, start.read_sequence) ||
      !records->write_.Init(start.suite, start.write_secret, start.write_sequence)) {
    return nullptr;
  }
  return records;
}

// ---- Reading ----

absl::Status TlsRecords::Receive(std::span<std::byte> ciphertext) {
  while (!ciphertext.empty() && !closed_by_peer_) {
    absl::Status status;
    if (carried_ == 0 && ciphertext.size() >= kTlsHeaderSize) {
      status = CheckHeader(ciphertext);
      if (!status.ok()) return status;
      const size_t size = kTlsHeaderSize + TlsBodySize(ciphertext);
      if (size <= ciphertext.size()) {
        status = OnRecord(ciphertext.first(size));
        if (!status.ok()) return status;
        ciphertext = ciphertext.subspan(size);
        continue;
      }
    }
    status = Carry(&ciphertext);
    if (!status.ok()) return status;
  }
  if (carried_ <= kTlsHeaderSize) {
    // An idle connection keeps no buffer, a busy one has the same for record after record.
    carry_.reset();
    carry_capacity_ = 0;
  }
  return absl::OkStatus();
}

// Takes what the record begun lacks, and opens it once it is whole.
absl::Status TlsRecords::Carry(std::span<std::byte>* ciphertext) {
  const auto take = [this, ciphertext](std::byte* to, size_t until) {
    const size_t part = std::min(until - carried_, ciphertext->size());
    std::memcpy(to + carried_, ciphertext->data(), part);
    carried_ += static_cast<uint32_t>(part);
    *ciphertext = ciphertext->subspan(part);
  };
  if (carried_ < kTlsHeaderSize) {
    take(header_.data(), kTlsHeaderSize);
    if (carried_ < kTlsHeaderSize) return absl::OkStatus();
    if (absl::Status status = CheckHeader(header_); !status.ok()) return status;
  }
  const size_t size = kTlsHeaderSize + TlsBodySize(header_);
  if (carried_ == kTlsHeaderSize) {
    // Another call may follow before there is more: the buffer is not needed until then.
    if (ciphertext->empty()) return absl::OkStatus();
    if (carry_capacity_ < size) {
      carry_.reset(new std::byte[size]);
      carry_capacity_ = static_cast<uint32_t>(size);
    }
    std::memcpy(carry_.get(), header_.data(), kTlsHeaderSize);
  }
  take(carry_.get(), size);
  if (carried_ < size) return absl::OkStatus();
  carried_ = 0;
  return OnRecord(std::span(carry_.get(), size));
}

absl::Status TlsRecords::CheckHeader(std::span<const std::byte> header) {
  // Whatever is inside, from outside it is application data of TLS 1.2; also a change_cipher_spec
  // has no place any more (sections 5 and 5.2).
  if (header[0] != static_cast<std::byte>(TlsContent::kApplicationData)) {
    return Fail(Alert::kUnexpectedMessage, "a record that is not encrypted");
  }
  if (header[1] != std::byte{3} || header[2] != std::byte{3}) {
    return Fail(Alert::kProtocolVersion, "a record of another version");
  }
  const size_t size = TlsBodySize(header);
  if (size > kMaxBody) return Fail(Alert::kRecordOverflow, "a record over its limit");
  if (size <= kTlsTagSize) return Fail(Alert::kBadRecordMac, "a record too short for its tag");
  return absl::OkStatus();
}

absl::Status TlsRecords::OnRecord(std::span<std::byte> record) {
  const auto opened = read_.Open(record);
  if (!opened.has_value()) {
    return Fail(Alert::kBadRecordMac, "a record does not decrypt: it was changed on its way");
  }
  // The content type is the last byte that is not zero; the zeros behind it are padding. Both count
  // for the limit of what a record may hold (section 5.4).
  size_t size = opened->size();
  if (size > kMaxTlsPlaintext + 1) return Fail(Alert::kRecordOverflow, "a record over its limit");
  while (size > 0 && (*opened)[size - 1] == std::byte{0}) --size;
  if (size == 0) return Fail(Alert::kUnexpectedMessage, "a record without a content type");
  return OnContent(static_cast<TlsContent>((*opened)[size - 1]), opened->first(size - 1));
}

absl::Status TlsRecords::OnContent(TlsContent type, std::span<std::byte> content) {
  // A message is not interrupted (section 5.1).
  if (!message_.empty() && type != TlsContent::kHandshake) {
    return Fail(Alert::kUnexpectedMessage, "a record within a handshake message");
  }
  switch (type) {
    case TlsContent::kApplicationData:
      if (content.empty()) return CountIdle();
      idle_records_ = 0;
      return events_->OnPlaintext(content);
    case TlsContent::kHandshake:
      return OnHandshake(content);
    case TlsContent::kAlert:
      return OnAlert(content);
    default:
      return Fail(Alert::kUnexpectedMessage, "a record of an unknown kind");
  }
}

absl::Status TlsRecords::CountIdle() {
  if (++idle_records_ <= kMaxIdleRecords) return absl::OkStatus();
  return Fail(Alert::kUnexpectedMessage, "too many records without data");
}

absl::Status TlsRecords::OnAlert(std::span<const std::byte> content) {
  if (content.size() != 2) return Fail(Alert::kDecodeError, "an alert of a wrong length");
  // The level says nothing in this version (section 6).
  const int alert = std::to_integer<int>(content[1]);
  if (alert == kCloseNotify) {
    closed_by_peer_ = true;
    return absl::OkStatus();
  }
  if (alert == kUserCanceled) return CountIdle();
  write_closed_ = true;  // nobody reads it
  return absl::AbortedError(absl::StrCat(
      "TLS: the other side refused: ", SSL_alert_desc_string_long(alert), " (alert ", alert, ")"));
}

absl::Status TlsRecords::OnHandshake(std::span<const std::byte> content) {
  if (content.empty()) return Fail(Alert::kUnexpectedMessage, "an empty handshake record");
  const auto* bytes = reinterpret_cast<const uint8_t*>(content.data());
  message_.insert(message_.end(), bytes, bytes + content.size());
  std::span<const uint8_t> rest(message_);
  while (rest.size() >= kMessageHeader) {
    const size_t size = kMessageHeader + (size_t{rest[1]} << 16 | size_t{rest[2]} << 8 | rest[3]);
    if (size > kMaxMessage || (on_ticket_ == nullptr && size > kMessageHeader + 1)) {
      return Fail(Alert::kUnexpectedMessage, "a handshake message over its limit");
    }
    if (rest.size() < size) break;
    const absl::Status status = OnMessage(rest.first(size), rest.size() == size);
    if (!status.ok()) return status;
    rest = rest.subspan(size);
  }
  if (rest.empty()) {
    message_ = {};
    return absl::OkStatus();
  }
  message_.erase(message_.begin(), message_.end() - static_cast<ptrdiff_t>(rest.size()));
  return CountIdle();
}

absl::Status TlsRecords::OnMessage(std::span<const uint8_t> message, bool last) {
  if (message[0] == kNewSessionTicket && on_ticket_ != nullptr) {
    const absl::Status status = on_ticket_(message);
    if (status.ok()) return CountIdle();
    Fail(Alert::kDecodeError, "").IgnoreError();
    return status;
  }
  if (message[0] != kKeyUpdate) {
    return Fail(Alert::kUnexpectedMessage, "a handshake message that was not due");
  }
  // What follows in the same record would be under the key that is over (section 5.1).
  if (!last) return Fail(Alert::kUnexpectedMessage, "a handshake message behind a KeyUpdate");
  return OnKeyUpdate(message.subspan(kMessageHeader));
}

absl::Status TlsRecords::OnKeyUpdate(std::span<const uint8_t> body) {
  if (body.size() != 1) return Fail(Alert::kDecodeError, "a KeyUpdate of a wrong length");
  if (body[0] > 1) return Fail(Alert::kIllegalParameter, "a KeyUpdate that asks for nonsense");
  if (!key_updates_.TryTake(1, events_->Now())) {
    return Fail(Alert::kUnexpectedMessage, "too many KeyUpdates");
  }
  key_updated_ = true;
  if (!read_.Update()) return Fail(Alert::kInternalError, "no key for what comes");
  // One answer does for several requests (section 4.6.3). Without room it goes before the next
  // data, so that nobody makes us queue without bound.
  if (body[0] == 1) owes_key_update_ = true;
  if (owes_key_update_ && !write_closed_ && sink_->Room() >= kMaxTlsOverhead) UpdateWriteKey();
  return CountIdle();
}

// ---- Writing ----

size_t TlsRecords::Send(std::span<const std::byte> plaintext) {
  size_t taken = 0;
  while (taken < plaintext.size()) {
    const auto part =
        plaintext.subspan(taken, std::min(plaintext.size() - taken, kMaxTlsPlaintext));
    if (sink_->Room() < part.size() + kMaxTlsOverhead) break;
    if (owes_key_update_ || write_.sequence() >= records_per_key_) UpdateWriteKey();
    if (!SealData(part)) break;
    taken += part.size();
  }
  return taken;
}

bool TlsRecords::SealData(std::span<const std::byte> plaintext) {
  if (write_failed_ || write_closed_) return false;
  const size_t wanted = plaintext.size() + kTlsRecordOverhead;
  const std::span<std::byte> place = sink_->Reserve(wanted);
  if (place.size() >= wanted) {
    const size_t size = write_.Seal(TlsContent::kApplicationData, plaintext, place);
    sink_->Commit(size);
    write_failed_ = size == 0;
  } else {
    std::byte record[kMaxTlsPlaintext + kTlsRecordOverhead];
    const size_t size = write_.Seal(TlsContent::kApplicationData, plaintext, record);
    write_failed_ = size == 0;
    sink_->Write(std::span(record).first(size));
  }
  return !write_failed_;
}

bool TlsRecords::SealSmall(TlsContent type, std::span<const std::byte> content) {
  std::byte record[64];
  if (write_closed_) return false;
  const size_t size = write_failed_ ? 0 : write_.Seal(type, content, record);
  if (size == 0) write_failed_ = true;
  if (size > 0) sink_->Write(std::span(record).first(size));
  return size > 0;
}

// The other side updates its key when it sees fit: our answers and our own never ask.
void TlsRecords::UpdateWriteKey() {
  static constexpr std::byte kMessage[] = {std::byte{kKeyUpdate}, std::byte{0}, std::byte{0},
                                           std::byte{1}, std::byte{0}};
  owes_key_update_ = false;
  key_updated_ = true;
  if (SealSmall(TlsContent::kHandshake, kMessage) && !write_.Update()) write_failed_ = true;
}

void TlsRecords::Shutdown() {
  static constexpr std::byte kAlert[] = {std::byte{kWarning}, std::byte{kCloseNotify}};
  SealSmall(TlsContent::kAlert, kAlert);
  write_closed_ = true;
}

absl::Status TlsRecords::Fail(Alert alert, std::string_view what) {
  const std::byte content[] = {std::byte{kFatal}, static_cast<std::byte>(alert)};
  SealSmall(TlsContent::kAlert, content);
  write_closed_ = true;  // nothing may follow it (section 6.2)
  return absl::InvalidArgumentError(absl::StrCat("TLS: ", std::string(what)));
}

}  // namespace ringsock::derp
