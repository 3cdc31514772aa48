// The part of the configuration that is about relays: the map, our private key, and which relay
// each peer is at.
#ifndef RINGSOCK_GATEWAY_RELAY_CONFIG_H_
#define RINGSOCK_GATEWAY_RELAY_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "gateway/config.h"
#include "gateway/json_object.h"

namespace ringsock::gateway {

// The keys of the document itself.
void ReadRelays(JsonObject& root, Config* config);
// Those of "engine".
void ReadRelayQueue(JsonObject& engine, Config* config);
// "derp_region" of a peer, which becomes its first endpoint.
void ReadRelayRegion(JsonObject& object, PeerConfig* peer);

// Reads the files that the configuration names; `file` is the one it came from. An error begins
// with the field.
absl::Status LoadRelayFiles(const std::string& file, Config* config);
// Adds warnings about relay endpoints that lead nowhere.
void CheckRelayRegions(Config* config);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_RELAY_CONFIG_H_
