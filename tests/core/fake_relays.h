// Standing connections to relays without a network: they keep what is sent, and the test says what
// happens to them.
#ifndef RINGSOCK_TESTS_CORE_FAKE_RELAYS_H_
#define RINGSOCK_TESTS_CORE_FAKE_RELAYS_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/relay_hub.h"
#include "derp/region_connection.h"
#include "derp/relay_map.h"

namespace ringsock {

class FakeRelays;

class FakeConnection final : public derp::RegionConnection {
 public:
  FakeConnection(FakeRelays* relays, const derp::RelayRegion& region, const PrivateKey& key,
                 derp::RegionEvents* events);
  ~FakeConnection() override;

  RegionId region() const override { return region_.region_id; }
  bool up() const override { return status.up; }
  bool Send(const PublicKey& peer, std::span<const std::byte> packet) override {
    ++calls;
    if (packet.size() > largest) return false;
    sent.emplace_back(peer,
                      std::string(reinterpret_cast<const char*>(packet.data()), packet.size()));
    ++status.counters.tx_packets;
    return true;
  }
  void Flush() override { ++flushes; }
  void SetPreferred(bool is) override { preferred = is; }
  void Reconnect(absl::string_view reason) override { reconnects.push_back(std::string(reason)); }
  derp::RegionConnectionStatus Status() const override { return status; }
  const derp::RegionCounters& counters() const override { return status.counters; }

  void Up() {
    status.up = true;
    events->OnUp(*this);
  }
  void Down(const std::string& why = "reset by peer") {
    status.up = false;
    status.last_error = why;
    events->OnDown(*this, absl::UnavailableError(why));
  }
  void Bring(const PublicKey& source, const std::string& packet, bool end = true) {
    ++status.counters.rx_packets;
    events->OnPacket(*this, source,
                     {reinterpret_cast<const std::byte*>(packet.data()), packet.size()});
    if (end) events->OnPacketsEnd(*this);
  }
  void Gone(const PublicKey& peer) { events->OnPeerGone(*this, peer); }
  std::vector<std::string> TakeSent() {
    std::vector<std::string> all;
    for (auto& [peer, packet] : sent) all.push_back(packet);
    sent.clear();
    return all;
  }

  derp::RegionEvents* const events;
  const PublicKey key;
  derp::RegionConnectionStatus status;
  std::vector<std::pair<PublicKey, std::string>> sent;
  std::vector<std::string> reconnects;
  size_t largest = 65536;
  int calls = 0;
  int flushes = 0;
  bool preferred = false;

 private:
  FakeRelays& relays_;
  const derp::RelayRegion region_;
};

class FakeRelays final : public RelayConnector {
 public:
  absl::Status Prepare() override { return prepare; }
  std::unique_ptr<derp::RegionConnection> Connect(const derp::RelayRegion& region,
                                                  const PrivateKey& key,
                                                  derp::RegionEvents* events) override {
    ++made;
    if (refuse) return nullptr;
    return std::make_unique<FakeConnection>(this, region, key, events);
  }
  // The open connection of a region, or null.
  FakeConnection* at(RegionId region) const {
    const auto found = open.find(region);
    return found == open.end() ? nullptr : found->second;
  }
  std::vector<RegionId> regions() const {
    std::vector<RegionId> all;
    for (const auto& [region, connection] : open) all.push_back(region);
    return all;
  }

  absl::Status prepare;
  bool refuse = false;
  int made = 0;
  std::map<RegionId, FakeConnection*> open;
};

inline FakeConnection::FakeConnection(FakeRelays* relays, const derp::RelayRegion& region,
                                      const PrivateKey& private_key,
                                      derp::RegionEvents* region_events)
    : events(region_events), key(private_key.Public()), relays_(*relays), region_(region) {
  status.node = region.nodes[0].name;
  relays_.open[region.region_id] = this;
}

inline FakeConnection::~FakeConnection() { relays_.open.erase(region_.region_id); }

// A map of regions with one node each.
inline derp::RelayMap RelayMapOf(const std::vector<RegionId>& regions) {
  derp::RelayMap map;
  for (const RegionId id : regions) {
    derp::RelayRegion& region = map.regions[id];
    region.region_id = id;
    region.region_code = absl::StrCat("r", id);
    derp::RelayNode node;
    node.name = absl::StrCat(id, "a");
    node.region_id = id;
    node.host_name = absl::StrCat("derp", id, ".example");
    region.nodes.push_back(node);
  }
  return map;
}

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_FAKE_RELAYS_H_
