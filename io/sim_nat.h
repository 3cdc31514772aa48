// A simulated NAT box: which outside port stands for which inside one, and who may answer to it.
// Words and behaviour are those of RFC 4787 (mapping, filtering, refresh, hairpinning).
#ifndef RINGSOCK_IO_SIM_NAT_H_
#define RINGSOCK_IO_SIM_NAT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/random.h"

namespace ringsock::io {

enum class NatKind {
  kFullCone,           // endpoint-independent mapping, endpoint-independent filtering
  kAddressRestricted,  // endpoint-independent mapping, address-dependent filtering
  kPortRestricted,     // endpoint-independent mapping, address and port-dependent filtering
  kSymmetric,          // address and port-dependent mapping and filtering
};

struct NatOptions {
  NatKind kind = NatKind::kPortRestricted;
  // An unused mapping, or permission of a remote address, ends after this. Linux: 30 s before an
  // answer came; RFC 4787 asks for 2 minutes or more.
  Duration timeout = std::chrono::seconds(30);
  bool inbound_refresh = false;  // whether received datagrams, too, keep a mapping alive
  bool hairpin = false;          // whether an inside host reaches another by its outside address
  bool preserve_port = true;     // try the inside port first (never done by kSymmetric)
  size_t max_mappings = 16384;
};

class SimNat {
 public:
  // One outside address per family; a family without one does not pass.
  SimNat(const NatOptions& options, const std::vector<IpAddress>& outside, Random* random)
      : options(options), outside_(outside), random_(random) {}

  // Translates the source of a datagram from `inside` to `remote`, making or refreshing the
  // mapping. None: no address of that family, or no port left.
  std::optional<Endpoint> Outbound(const Endpoint& inside, const Endpoint& remote, Instant now);
  // Translates the destination `outside` of a datagram from `remote`. None: filtered.
  std::optional<Endpoint> Inbound(const Endpoint& outside, const Endpoint& remote, Instant now);

  bool Owns(const IpAddress& address) const;
  const std::vector<IpAddress>& outside() const { return outside_; }
  // The provider gives the box other addresses; mappings keep their ports.
  void set_outside(std::vector<IpAddress> addresses) { outside_ = std::move(addresses); }
  // Forgets all mappings, as a box that restarts.
  void Restart() { mappings_.clear(), by_port_.clear(); }
  size_t mappings() const { return mappings_.size(); }

  NatOptions options;

 private:
  using Words = std::array<uint64_t, 3>;
  using Key = std::pair<Words, Words>;     // inside, and remote where the mapping depends on it
  using Port = std::pair<bool, uint16_t>;  // of which family
  struct Mapping {
    Port port;
    Instant expires;
    std::map<Words, Instant> permitted;  // remotes (without port if that is all that counts)
  };

  Words PermissionOf(const Endpoint& remote) const;
  const IpAddress* OutsideFor(bool v4) const;
  std::optional<Port> FreePort(const Endpoint& inside, Instant now);
  void DropExpired(Instant now);

  std::vector<IpAddress> outside_;
  Random* const random_;
  std::map<Key, Mapping> mappings_;
  std::map<Port, Key> by_port_;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SIM_NAT_H_
