#include "derp/login.h"

#include <sodium.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "derp/json.h"

namespace ringsock::derp {
namespace {

// Far over what any client says, far under what a bomb needs.
constexpr JsonLimits kJsonLimits = {.bytes = 64u << 10, .depth = 8, .values = 256};
constexpr size_t kMaxAppName = 256;
constexpr size_t kMeshKeyDigits = 2 * kKeySize;
constexpr int64_t kMaxVersion = 1 << 20;
// The first version whose packets say where they come from.
constexpr int64_t kMinVersion = 2;

Bytes AsBytes(absl::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

absl::string_view AsText(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

absl::Status ReadVersion(const nlohmann::json& json, int* version) {
  int64_t number = 0;
  if (auto status = ReadField(json, "", "version", 0, kMaxVersion, &number); !status.ok()) {
    return status;
  }
  if (number < kMinVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("version: DERP protocol ", number, ", need ", kMinVersion, " or later"));
  }
  *version = static_cast<int>(number);
  return absl::OkStatus();
}

absl::Status ReadMeshKey(const nlohmann::json& json, MeshKey* key) {
  std::string hex;
  if (auto status = ReadField(json, "", "meshKey", &hex); !status.ok()) return status;
  if (hex.empty()) return absl::OkStatus();
  auto parsed = hex.size() == kMeshKeyDigits
                    ? MeshKey::Parse(hex)
                    : absl::StatusOr<MeshKey>(absl::InvalidArgumentError(""));
  sodium_memzero(hex.data(), hex.size());
  if (!parsed.ok()) return absl::InvalidArgumentError("meshKey: not 64 hex digits");
  *key = std::move(*parsed);
  return absl::OkStatus();
}

// Of what was parsed or is to be printed. What the parser itself has read it into is out of reach.
template <typename Json>
void WipeMeshKey(Json* json) {
  const auto found = json->find("meshKey");
  if (found == json->end() || !found->is_string()) return;
  auto& hex = found->template get_ref<std::string&>();
  sodium_memzero(hex.data(), hex.size());
}

absl::Status ReadClientInfo(const nlohmann::json& json, ClientInfo* info) {
  if (auto s = ReadVersion(json, &info->version); !s.ok()) return s;
  if (auto s = ReadMeshKey(json, &info->mesh_key); !s.ok()) return s;
  if (auto s = ReadField(json, "", "CanAckPings", &info->can_ack_pings); !s.ok()) return s;
  if (auto s = ReadField(json, "", "IsProber", &info->is_prober); !s.ok()) return s;
  return ReadField(json, "", "AppName", &info->app_name);
}

std::string ToHex(const MeshKey& key) {
  char hex[kMeshKeyDigits + 1];
  sodium_bin2hex(hex, sizeof(hex), key.bytes().data(), key.bytes().size());
  std::string text(hex, kMeshKeyDigits);
  sodium_memzero(hex, sizeof(hex));
  return text;
}

std::string Dump(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

absl::Status OutOfOrder(const Frame& frame, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("frame ", FrameName(frame.type), " in place of ", wanted));
}

absl::Status OutputFull() { return absl::ResourceExhaustedError("control output full"); }

absl::Status Annotate(absl::string_view what, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

// Room for a login frame around `sealed`.
size_t LoginFrameSize(const std::vector<std::byte>& sealed) {
  return kPacketHeaderSize + sealed.size();
}

}  // namespace

std::string ToJson(const ClientInfo& info) {
  nlohmann::ordered_json json;
  if (!info.mesh_key.IsZero()) json["meshKey"] = ToHex(info.mesh_key);
  json["version"] = info.version;
  json["CanAckPings"] = info.can_ack_pings;
  if (info.is_prober) json["IsProber"] = true;
  if (!info.app_name.empty()) json["AppName"] = info.app_name;
  std::string text = Dump(json);
  WipeMeshKey(&json);
  return text;
}

std::string ToJson(const ServerInfo& info) {
  nlohmann::ordered_json json;
  json["version"] = info.version;
  if (info.token_bucket_bytes_per_second != 0) {
    json["TokenBucketBytesPerSecond"] = info.token_bucket_bytes_per_second;
  }
  if (info.token_bucket_bytes_burst != 0) {
    json["TokenBucketBytesBurst"] = info.token_bucket_bytes_burst;
  }
  return Dump(json);
}

absl::StatusOr<ClientInfo> ParseClientInfo(absl::string_view text) {
  auto json = ParseJsonObject(text, kJsonLimits);
  if (!json.ok()) return json.status();
  ClientInfo info;
  info.can_ack_pings = false;
  const absl::Status status = ReadClientInfo(*json, &info);
  WipeMeshKey(&*json);
  if (!status.ok()) return status;
  info.app_name = CleanText(info.app_name, kMaxAppName);
  return info;
}

absl::StatusOr<ServerInfo> ParseServerInfo(absl::string_view text) {
  auto json = ParseJsonObject(text, kJsonLimits);
  if (!json.ok()) return json.status();
  ServerInfo info;
  int64_t rate = 0;
  int64_t burst = 0;
  if (auto s = ReadVersion(*json, &info.version); !s.ok()) return s;
  if (auto s = ReadField(*json, "", "TokenBucketBytesPerSecond", 0, INT64_MAX, &rate); !s.ok()) {
    return s;
  }
  if (auto s = ReadField(*json, "", "TokenBucketBytesBurst", 0, INT64_MAX, &burst); !s.ok()) {
    return s;
  }
  info.token_bucket_bytes_per_second = static_cast<uint64_t>(rate);
  info.token_bucket_bytes_burst = static_cast<uint64_t>(burst);
  return info;
}

ClientLogin::ClientLogin(const PrivateKey* key, ClientInfo info, Random* random)
    : key_(key), info_(std::move(info)), random_(random) {}

absl::Status ClientLogin::StartFast(const PublicKey& server, OutputBuffer* out) {
  if (state_ != State::kWantServerKey) return absl::FailedPreconditionError("login has begun");
  ignore_server_key_ = true;
  return SendInfo(server, out);
}

absl::Status ClientLogin::SendInfo(const PublicKey& server, OutputBuffer* out) {
  auto box = BoxKey::Agree(*key_, server);
  if (!box.ok()) return Annotate("server key", box.status());
  std::string json = ToJson(info_);
  const std::vector<std::byte> sealed = box->SealWithNonce(AsBytes(json), *random_);
  sodium_memzero(json.data(), json.size());
  if (!out->AppendFrame(ClientInfoFrame{key_->Public(), sealed}, LoginFrameSize(sealed))) {
    return OutputFull();
  }
  server_key_ = server;
  box_ = std::move(*box);
  state_ = State::kSentInfo;
  return absl::OkStatus();
}

absl::Status ClientLogin::OnFrame(const Frame& frame, OutputBuffer* out) {
  if (state_ == State::kWantServerKey) {
    if (frame.type != FrameType::kServerKey) return OutOfOrder(frame, "ServerKey");
    ServerKeyFrame server;
    if (!Parse(frame.payload(), &server)) {
      return absl::InvalidArgumentError("ServerKey: too short, or not DERP's magic");
    }
    return SendInfo(server.key, out);
  }
  if (state_ == State::kDone) return absl::FailedPreconditionError("login is over");
  if (ignore_server_key_ && frame.type == FrameType::kServerKey) {
    ignore_server_key_ = false;
    return absl::OkStatus();
  }
  if (frame.type != FrameType::kServerInfo) return OutOfOrder(frame, "ServerInfo");
  auto plain = box_->OpenWithNonce(frame.payload());
  if (!plain.ok()) return Annotate("ServerInfo", plain.status());
  auto info = ParseServerInfo(AsText(*plain));
  if (!info.ok()) return Annotate("ServerInfo", info.status());
  server_info_ = *info;
  box_.reset();
  state_ = State::kDone;
  return absl::OkStatus();
}

ServerLogin::ServerLogin(const ServerIdentity* identity, const MeshKey* mesh_key,
                         const ServerInfo& info, Random* random)
    : identity_(identity), mesh_key_(mesh_key), info_(info), random_(random) {}

absl::Status ServerLogin::Start(OutputBuffer* out) {
  return out->AppendFrame(ServerKeyFrame{identity_->public_key()}) ? absl::OkStatus()
                                                                   : OutputFull();
}

absl::Status ServerLogin::OnFrame(const Frame& frame) {
  if (seen_client_) return absl::FailedPreconditionError("login is over");
  if (frame.type != FrameType::kClientInfo) return OutOfOrder(frame, "ClientInfo");
  ClientInfoFrame client;
  if (!Parse(frame.payload(), &client)) return absl::InvalidArgumentError("ClientInfo: too short");
  auto box = identity_->Agree(client.key);
  if (!box.ok()) return Annotate("client key", box.status());
  auto plain = box->OpenWithNonce(client.sealed);
  if (!plain.ok()) return Annotate("ClientInfo", plain.status());
  auto info = ParseClientInfo(AsText(*plain));
  sodium_memzero(plain->data(), plain->size());
  if (!info.ok()) return Annotate("ClientInfo", info.status());
  client_ = client.key;
  client_info_ = std::move(*info);
  // A server without a mesh key has no mesh, whatever the client shows.
  is_mesh_ = mesh_key_ != nullptr && !mesh_key_->IsZero() && client_info_.mesh_key == *mesh_key_;
  client_info_.mesh_key = MeshKey();
  box_ = std::move(*box);
  seen_client_ = true;
  return absl::OkStatus();
}

absl::Status ServerLogin::Accept(OutputBuffer* out) {
  if (!box_.has_value()) return absl::FailedPreconditionError("no client has logged in");
  const std::vector<std::byte> sealed = box_->SealWithNonce(AsBytes(ToJson(info_)), *random_);
  box_.reset();
  return out->AppendFrame(ServerInfoFrame{sealed}, LoginFrameSize(sealed)) ? absl::OkStatus()
                                                                           : OutputFull();
}

}  // namespace ringsock::derp
