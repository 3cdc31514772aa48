#include "cat/events.h"

#include <sodium.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"

namespace ringsock::cat {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& event) {
  // Never throws: bytes that are no UTF-8 would be replaced.
  return event.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool IsUtf8(const std::string& text) {
  try {
    (void)Json(text).dump();
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

std::string Base64(std::span<const std::byte> bytes) {
  std::string text(sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), reinterpret_cast<const unsigned char*>(bytes.data()),
                    bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  text.pop_back();  // the terminating zero
  return text;
}

Json AnswerJson(stun::Answer answer) {
  if (answer == stun::Answer::kUnknown) return nullptr;
  return answer == stun::Answer::kYes;
}

Json RelayJson(const RelayStatus& relay) {
  return {{"region", relay.region},
          {"home", relay.home},
          {"up", relay.up},
          {"node", relay.node},
          {"remote", relay.remote.IsNone() ? Json(nullptr) : Json(relay.remote.ToString())},
          {"tls", relay.description},
          {"error", relay.up ? "" : relay.last_error},
          {"health", relay.health},
          {"tx_packets", relay.tx_packets},
          {"rx_packets", relay.rx_packets},
          {"rx_ignored", relay.rx_ignored},
          {"tx_dropped", relay.tx_dropped}};
}

}  // namespace

const char* SendResultName(SendResult result) {
  switch (result) {
    case SendResult::kOk:
      return "ok";
    case SendResult::kUnknownPeer:
      return "unknown_peer";
    case SendResult::kNoDestination:
      return "no_destination";
    case SendResult::kNoSocket:
      return "no_socket";
    case SendResult::kQueueFull:
      return "queue_full";
    case SendResult::kTooLarge:
      return "too_large";
    case SendResult::kNoRelay:
      return "no_relay";
    case SendResult::kRelayNotAllowed:
      return "relay_not_allowed";
    case SendResult::kClosed:
      return "closed";
  }
  return "?";
}

void Events::Self(const PublicKey& key, const EngineStatus& status) {
  if (json_) {
    return Line(out_, Dump({{"event", "self"},
                            {"public_key", key.ToBase64()},
                            {"port", status.port},
                            {"backend", status.backend}}));
  }
  Line(err_, absl::StrCat("self ", key.ToBase64(), " port ", status.port, " ", status.backend));
}

void Events::Packet(const PublicKey* peer, const Endpoint& from, PathKind path,
                    std::span<const std::byte> bytes) {
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!json_) return Line(out_, text);
  Json event = {{"event", "packet"},
                {"peer", peer == nullptr ? Json(nullptr) : Json(peer->ToBase64())},
                {"from", from.ToString()},
                {"path", PathKindName(path)},
                {"size", bytes.size()}};
  if (IsUtf8(text)) {
    event["text"] = text;
  } else {
    event["base64"] = Base64(bytes);
  }
  Line(out_, Dump(event));
}

void Events::Relay(const RelayStatus& relay) {
  if (json_) {
    Json event = {{"event", "relay"}};
    event.update(RelayJson(relay));
    return Line(out_, Dump(event));
  }
  Line(err_, absl::StrCat("relay of region ", relay.region, relay.home ? " (home) " : " ",
                          relay.up ? "up: " : "down: ", relay.node, " ",
                          relay.up ? relay.description : relay.last_error));
}

void Events::Endpoints(std::span<const OwnEndpoint> endpoints) {
  if (!json_) return;
  Json list = Json::array();
  for (const OwnEndpoint& one : endpoints) {
    list.push_back(
        {{"address", one.endpoint.ToString()}, {"source", EndpointSourceName(one.source)}});
  }
  Line(out_, Dump({{"event", "endpoints"}, {"endpoints", list}}));
}

void Events::Network(const NetInfo& info) {
  if (!json_) return;
  Json latency = Json::object();
  for (const auto& [name, time] : info.latency) {
    latency[name] = std::chrono::duration<double, std::milli>(time).count();
  }
  Line(out_, Dump({{"event", "network"},
                   {"udp", info.udp},
                   {"ipv6", info.ipv6},
                   {"mapping_varies", AnswerJson(info.mapping_varies)},
                   {"hairpin", AnswerJson(info.hairpin)},
                   {"home", info.home},
                   {"latency_ms", latency}}));
}

void Events::Sent(const PublicKey& peer, size_t size, SendResult result) {
  if (json_) {
    return Line(out_, Dump({{"event", "sent"},
                            {"peer", peer.ToBase64()},
                            {"size", size},
                            {"result", SendResultName(result)}}));
  }
  if (result != SendResult::kOk) {
    Line(err_, absl::StrCat("not sent to ", peer.ToShortString(), ": ", SendResultName(result)));
  }
}

void Events::Status(const EngineStatus& status, const CounterSnapshot& counters) {
  if (!json_) return Line(err_, absl::StrCat("counters: ", counters.ToString()));
  Json peers = Json::array();
  for (const PeerStatus& peer : status.peers) {
    Json addresses = Json::array();
    for (const Endpoint& address : peer.addresses) addresses.push_back(address.ToString());
    peers.push_back(
        {{"public_key", peer.key.ToBase64()},
         {"addresses", addresses},
         {"current", peer.current.IsNone() ? Json(nullptr) : Json(peer.current.ToString())},
         {"roaming", peer.roaming}});
  }
  Json paths = Json::object();
  for (size_t i = 0; i < kPathKinds; ++i) {
    const CounterSnapshot::Path& path = counters.paths[i];
    paths[PathKindName(static_cast<PathKind>(i))] = {{"rx_packets", path.rx_packets},
                                                     {"rx_bytes", path.rx_bytes},
                                                     {"tx_packets", path.tx_packets},
                                                     {"tx_bytes", path.tx_bytes}};
  }
  Json drops = Json::object();
  for (size_t i = 0; i < kDrops; ++i) {
    if (counters.drops[i] != 0) drops[DropName(static_cast<Drop>(i))] = counters.drops[i];
  }
  Json relays = Json::array();
  for (const RelayStatus& relay : status.relays) relays.push_back(RelayJson(relay));
  Line(out_, Dump({{"event", "status"},
                   {"backend", status.backend},
                   {"port", status.port},
                   {"home", status.home},
                   {"peers", peers},
                   {"relays", relays},
                   {"paths", paths},
                   {"rx_unknown_source", counters.rx_unknown_source},
                   {"drops", drops}}));
}

void Events::Warning(absl::string_view message) {
  if (json_) Line(out_, Dump({{"event", "warning"}, {"message", std::string(message)}}));
  Line(err_, absl::StrCat("ringsock-cat: warning: ", message));
}

void Events::Error(absl::string_view message) {
  if (json_) Line(out_, Dump({{"event", "error"}, {"message", std::string(message)}}));
  Line(err_, absl::StrCat("ringsock-cat: ", message));
}

void Events::Summary(const Totals& totals) {
  if (json_) {
    return Line(out_, Dump({{"event", "summary"},
                            {"sent", totals.sent},
                            {"not_sent", totals.not_sent},
                            {"dropped", totals.dropped},
                            {"received", totals.received},
                            {"received_bytes", totals.received_bytes}}));
  }
  Line(err_, absl::StrCat("sent ", totals.sent, ", not sent ", totals.not_sent, ", dropped ",
                          totals.dropped, ", received ", totals.received, " (",
                          totals.received_bytes, " bytes)"));
}

void Events::Line(FILE* file, const std::string& line) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), file);
  std::fputc('\n', file);
  std::fflush(file);
}

}  // namespace ringsock::cat
