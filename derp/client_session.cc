#include "derp/client_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "derp/json.h"

namespace ringsock::derp {
namespace {

// The HTTP request (its longest parts are names), ClientInfo with an AppName, and pongs to come.
constexpr size_t kMaxOutput = 16384;
constexpr size_t kMaxHealthText = 512;

}  // namespace

ClientSession::ClientSession(ClientSessionOptions options, const PrivateKey* key, Random* random,
                             ClientEvents* events)
    : http_options_(std::move(options.http)),
      events_(events),
      output_(kMaxOutput),
      login_(key, std::move(options.info), random) {}

absl::Status ClientSession::Fail(absl::Status status) {
  status_ = std::move(status);
  output_.Clear();
  return status_;
}

absl::Status ClientSession::Start(Instant now, Instant deadline, const PublicKey* meta_cert_key) {
  if (started_) return absl::FailedPreconditionError("the session has begun");
  started_ = true;
  last_heard_ = now;
  login_deadline_ = deadline;
  UpgradeOptions http = http_options_;
  http.fast_start = meta_cert_key != nullptr;
  const auto request = UpgradeRequest(http);
  if (!request.ok()) return Fail(request.status());
  if (!output_.Append(std::as_bytes(std::span(*request)))) {
    return Fail(absl::InvalidArgumentError("HTTP request too long"));
  }
  if (meta_cert_key == nullptr) {
    http_.emplace();
    return absl::OkStatus();
  }
  if (auto status = login_.StartFast(*meta_cert_key, &output_); !status.ok()) return Fail(status);
  return absl::OkStatus();
}

absl::Status ClientSession::Receive(MutableBytes bytes, Instant now) {
  if (!status_.ok()) return status_;
  if (!started_) return absl::FailedPreconditionError("the session has not begun");
  if (!bytes.empty()) last_heard_ = now;
  if (http_.has_value()) {
    if (auto status = ReadHttp(&bytes); !status.ok()) return Fail(status);
    if (http_.has_value()) return absl::OkStatus();
  }
  if (auto status = ReadFrames(bytes, now); !status.ok()) return Fail(status);
  return absl::OkStatus();
}

absl::Status ClientSession::ReadHttp(MutableBytes* bytes) {
  const auto done = http_->Read(bytes);
  if (!done.ok()) return done.status();
  if (*done) http_.reset();
  return absl::OkStatus();
}

absl::Status ClientSession::ReadFrames(MutableBytes bytes, Instant now) {
  Frame frame;
  while (true) {
    switch (decoder_.Next(&bytes, &frame)) {
      case FrameDecoder::Result::kNeedMore:
        return absl::OkStatus();
      case FrameDecoder::Result::kTooLong:
        return absl::InvalidArgumentError(
            absl::StrCat("frame over ", kMaxFramePayload, " bytes: not a DERP stream"));
      case FrameDecoder::Result::kOversized:
      case FrameDecoder::Result::kRefused:  // none is
        // Counted by the decoder. A login frame that is left out will be missed.
        break;
      case FrameDecoder::Result::kFrame:
        if (auto status = OnFrame(frame, now); !status.ok()) return status;
        break;
    }
  }
}

absl::Status ClientSession::OnFrame(const Frame& frame, Instant now) {
  // In front, because it is what a connection carries.
  if (frame.type == FrameType::kRecvPacket && login_.done()) {
    RecvPacketFrame packet;
    if (!ParseOrCount(frame, &packet)) return absl::OkStatus();
    ++counters_.packets_in;
    counters_.bytes_in += packet.packet.size();
    events_->OnPacket(packet.source, packet.packet);
    return absl::OkStatus();
  }
  if (!login_.done()) {
    if (auto status = login_.OnFrame(frame, &output_); !status.ok()) return status;
    if (login_.done()) {
      const ServerInfo& info = login_.server_info();
      bucket_ = TokenBucket(info.token_bucket_bytes_per_second, info.token_bucket_bytes_burst, now);
      login_deadline_ = Instant::max();
      events_->OnReady(info);
    }
    return absl::OkStatus();
  }
  OnControlFrame(frame);
  return absl::OkStatus();
}

void ClientSession::OnControlFrame(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kKeepAlive:
      ++counters_.keep_alives;
      break;
    case FrameType::kPing:
      if (PingFrame ping; ParseOrCount(frame, &ping) && !SendControl(PongFrame{ping.data})) {
        ++counters_.dropped_pongs;
      }
      break;
    case FrameType::kPong:
      if (PongFrame pong; ParseOrCount(frame, &pong)) events_->OnPong(pong.data);
      break;
    case FrameType::kPeerGone:
      if (PeerGoneFrame gone; ParseOrCount(frame, &gone)) {
        events_->OnPeerGone(gone.peer, gone.reason);
      }
      break;
    case FrameType::kPeerPresent:
      if (PeerPresentFrame present; ParseOrCount(frame, &present)) events_->OnPeerPresent(present);
      break;
    case FrameType::kHealth:
      if (HealthFrame health; ParseOrCount(frame, &health)) {
        events_->OnHealth(CleanText(health.problem, kMaxHealthText));
      }
      break;
    case FrameType::kRestarting:
      if (RestartingFrame restarting; ParseOrCount(frame, &restarting)) {
        events_->OnRestarting(restarting);
      }
      break;
    default:  // ServerKey or ServerInfo; the decoder keeps no others from us
      ++counters_.dropped_out_of_order;
      break;
  }
}

absl::Status ClientSession::OnStreamEnd() {
  if (!status_.ok()) return status_;
  if (http_.has_value()) return Fail(http_->OnEnd());
  return Fail(absl::UnavailableError(login_.done() ? "relay closed the connection"
                                                   : "relay closed the connection during login"));
}

Instant ClientSession::deadline() const {
  if (!status_.ok() || !started_) return Instant::max();
  return std::min(login_deadline_, last_heard_ + kSilenceTimeout);
}

absl::Status ClientSession::OnDeadline(Instant now) {
  if (!status_.ok() || now < deadline()) return status_;
  if (now >= login_deadline_) {
    return Fail(absl::DeadlineExceededError(http_.has_value() ? "no HTTP reply from the relay"
                                                              : "the relay does not finish login"));
  }
  return Fail(absl::DeadlineExceededError("no sign of life from the relay for 120 s"));
}

ClientSession::SendResult ClientSession::SendPacket(const PublicKey& destination, Bytes packet,
                                                    Instant now, MutableBytes out,
                                                    size_t* written) {
  if (!can_send()) return SendResult::kNotReady;
  if (packet.size() > kMaxPacket) return SendResult::kTooLarge;
  const size_t size = kPacketHeaderSize + packet.size();
  if (out.size() < size) return SendResult::kNoRoom;
  if (!bucket_.TryTake(size, now)) {
    ++counters_.dropped_rate_limit;
    return SendResult::kRateLimited;
  }
  *written = Encode(SendPacketFrame{destination, packet}, out);
  ++counters_.packets_out;
  counters_.bytes_out += packet.size();
  return SendResult::kOk;
}

ClientSession::SendResult ClientSession::ForwardPacket(const PublicKey& source,
                                                       const PublicKey& destination, Bytes packet,
                                                       MutableBytes out, size_t* written) {
  if (!can_send()) return SendResult::kNotReady;
  if (packet.size() > kMaxPacket) return SendResult::kTooLarge;
  *written = Encode(ForwardPacketFrame{source, destination, packet}, out);
  if (*written == 0) return SendResult::kNoRoom;
  ++counters_.packets_out;
  counters_.bytes_out += packet.size();
  return SendResult::kOk;
}

}  // namespace ringsock::derp
