#include "derp/server_session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringsock::derp {
namespace {

constexpr size_t kMaxHealthText = 1024;
// "TS" and U+1F4AC, a speech balloon, in UTF-8.
constexpr uint8_t kDiscoMagic[] = {0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac};

absl::Status Refused(FrameType type) {
  if (type == FrameType::kClientInfo) {
    return absl::InvalidArgumentError("frame ClientInfo after the login");
  }
  return absl::PermissionDeniedError(
      absl::StrCat("frame ", FrameName(type), " without the mesh key"));
}

absl::Status TooShort(const Frame& frame) {
  return absl::InvalidArgumentError(
      absl::StrCat("frame ", FrameName(frame.type), " of ", frame.payload().size(), " bytes"));
}

}  // namespace

bool LooksLikeDisco(Bytes packet) {
  constexpr size_t kHeader = sizeof(kDiscoMagic) + kKeySize + kBoxNonceSize;
  return packet.size() >= kHeader &&
         std::memcmp(packet.data(), kDiscoMagic, sizeof(kDiscoMagic)) == 0;
}

ServerSession::ServerSession(const ServerSessionConfig* config, ServerEvents* events, Instant now)
    : config_(config),
      events_(events),
      output_(config->max_output),
      login_(config->identity, config->mesh_key, config->info, config->random),
      not_here_(kNotHerePerSecond, kNotHerePerSecond, now),
      deadline_(now + kLoginTimeout) {}

absl::Status ServerSession::Fail(absl::Status status) {
  status_ = std::move(status);
  output_.Clear();
  return status_;
}

absl::Status ServerSession::Receive(MutableBytes bytes, Instant now) {
  if (!status_.ok() || state_ == State::kClosing) return status_;
  if (state_ == State::kHttp) {
    if (auto status = ReadHttp(&bytes); !status.ok()) return Fail(status);
    if (state_ != State::kLogin) return absl::OkStatus();
  }
  if (auto status = ReadFrames(bytes, now); !status.ok()) return Fail(status);
  return absl::OkStatus();
}

absl::Status ServerSession::ReadHttp(MutableBytes* bytes) {
  const HttpHeadReader::Result result = http_.Read(bytes);
  if (result == HttpHeadReader::Result::kNeedMore) return absl::OkStatus();
  HttpAnswer answer = result == HttpHeadReader::Result::kTooLong
                          ? AnswerHeadTooLong()
                          : AnswerHttp(http_.head(), config_->identity->public_key());
  http_.Clear();
  http_status_ = answer.status;
  ideal_node_ = std::move(answer.ideal_node);
  if (!output_.Append(std::as_bytes(std::span(answer.reply)))) {
    return absl::ResourceExhaustedError("control output full");
  }
  if (answer.next == HttpAnswer::Next::kClose) {
    state_ = State::kClosing;
    return absl::OkStatus();
  }
  state_ = State::kLogin;
  return login_.Start(&output_);
}

absl::Status ServerSession::ReadFrames(MutableBytes bytes, Instant now) {
  Frame frame;
  while (true) {
    switch (decoder_.Next(&bytes, &frame)) {
      case FrameDecoder::Result::kNeedMore:
        return absl::OkStatus();
      case FrameDecoder::Result::kTooLong:
        return absl::InvalidArgumentError(
            absl::StrCat("frame over ", kMaxFramePayload, " bytes: not a DERP stream"));
      case FrameDecoder::Result::kOversized:
        return absl::InvalidArgumentError(
            absl::StrCat("frame ", FrameName(frame.type), " over its bound"));
      case FrameDecoder::Result::kRefused:
        return Refused(frame.type);
      case FrameDecoder::Result::kFrame: {
        auto status = state_ == State::kReady ? OnFrame(frame) : OnLoginFrame(frame, now);
        if (!status.ok()) return status;
        break;
      }
    }
  }
}

absl::Status ServerSession::OnLoginFrame(const Frame& frame, Instant now) {
  if (auto status = login_.OnFrame(frame); !status.ok()) return status;
  if (auto status = events_->OnLogin(*this); !status.ok()) return status;
  if (auto status = login_.Accept(&output_); !status.ok()) return status;
  state_ = State::kReady;
  // At their headers: who sent all but the last byte would have us keep the others for ever.
  decoder_.Refuse(FrameType::kClientInfo);
  if (!is_mesh()) decoder_.Refuse(FrameType::kForwardPacket);
  ScheduleKeepAlive(now);
  events_->OnReady(*this);
  return absl::OkStatus();
}

absl::Status ServerSession::OnFrame(const Frame& frame) {
  const Bytes payload = frame.payload();
  switch (frame.type) {
    case FrameType::kSendPacket: {
      SendPacketFrame packet;
      if (!Parse(payload, &packet)) return TooShort(frame);
      ++counters_.packets_in;
      counters_.bytes_in += packet.packet.size();
      events_->OnSendPacket(*this, packet.destination, packet.packet, frame);
      return absl::OkStatus();
    }
    case FrameType::kNotePreferred: {
      NotePreferredFrame note;
      if (!Parse(payload, &note)) return TooShort(frame);
      events_->OnNotePreferred(*this, note.preferred);
      return absl::OkStatus();
    }
    case FrameType::kPing: {
      PingFrame ping;
      if (!Parse(payload, &ping)) return TooShort(frame);
      ++counters_.pings;
      if (!SendControl(PongFrame{ping.data})) ++counters_.dropped_pongs;
      return absl::OkStatus();
    }
    case FrameType::kPong: {
      PongFrame pong;
      if (!Parse(payload, &pong)) return TooShort(frame);
      events_->OnPong(*this, pong.data);
      return absl::OkStatus();
    }
    case FrameType::kForwardPacket:
    case FrameType::kWatchConns:
    case FrameType::kClosePeer:
      return OnMeshFrame(frame);
    default:  // the decoder keeps no others from us
      return Refused(frame.type);
  }
}

absl::Status ServerSession::OnMeshFrame(const Frame& frame) {
  if (!is_mesh()) return Refused(frame.type);
  if (frame.type == FrameType::kForwardPacket) {
    ForwardPacketFrame forward;
    if (!Parse(frame.payload(), &forward)) return TooShort(frame);
    ++counters_.packets_in;
    counters_.bytes_in += forward.packet.size();
    events_->OnForwardPacket(*this, forward);
  } else if (frame.type == FrameType::kClosePeer) {
    ClosePeerFrame close;
    if (!Parse(frame.payload(), &close)) return TooShort(frame);
    events_->OnClosePeer(*this, close.peer);
  } else {
    events_->OnWatchConns(*this);
  }
  return absl::OkStatus();
}

void ServerSession::ScheduleKeepAlive(Instant now) {
  deadline_ = now + kKeepAliveInterval + config_->random->Between(Duration(0), kKeepAliveJitter);
}

Instant ServerSession::deadline() const { return status_.ok() ? deadline_ : Instant::max(); }

absl::Status ServerSession::OnDeadline(Instant now) {
  if (!status_.ok() || now < deadline_) return status_;
  if (state_ != State::kReady) {
    return Fail(absl::DeadlineExceededError("the client did not log in within 10 s"));
  }
  if (!SendControl(KeepAliveFrame{})) ++counters_.delayed_keep_alives;
  ScheduleKeepAlive(now);
  return absl::OkStatus();
}

bool ServerSession::SendNotHere(const PublicKey& peer, Instant now) {
  if (!not_here_.TryTake(1, now)) {
    ++counters_.dropped_not_here;
    return false;
  }
  return SendPeerGone(peer, PeerGoneReason::kNotHere);
}

bool ServerSession::SendHealth(absl::string_view problem) {
  if (!ready()) return false;
  return output_.AppendFrame(HealthFrame{problem.substr(0, kMaxHealthText)},
                             kFrameHeaderSize + kMaxHealthText);
}

}  // namespace ringsock::derp
