#include "netcheck/findings.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "derp/json.h"

namespace ringsock::netcheck {
namespace {

// "3478" or "3478, 3479": the ports of the map's STUN servers.
std::string StunPorts(const derp::RelayMap& map) {
  std::set<uint16_t> ports;
  for (const auto& [id, region] : map.regions) {
    for (const derp::RelayNode& node : region.nodes) {
      if (const auto port = node.stun(); port.has_value()) ports.insert(*port);
    }
  }
  return absl::StrJoin(ports, ", ");
}

// Whether somebody in the region could be asked over this family.
bool HasStun(const derp::RelayRegion& region, bool v4) {
  return std::any_of(region.nodes.begin(), region.nodes.end(), [v4](const derp::RelayNode& node) {
    return node.stun().has_value() && (v4 ? node.v4() : node.v6()).enabled;
  });
}

std::string RegionNames(const derp::RelayMap& map, const std::vector<RegionId>& ids) {
  return absl::StrJoin(ids, ", ", [&](std::string* out, RegionId id) {
    const derp::RelayRegion* region = map.Find(id);
    absl::StrAppend(out, id);
    if (region != nullptr && !region->region_code.empty()) {
      absl::StrAppend(out, " (", derp::CleanText(region->region_code, 40), ")");
    }
  });
}

class Adviser {
 public:
  Adviser(const Findings& findings, const derp::RelayMap& map)
      : findings_(findings), report_(findings.report), map_(map) {}

  std::vector<Advice> Run() {
    if (!findings_.host.v4 && !findings_.host.v6) {
      Add(Level::kTrouble, "no_network",
          "This host has no IP address but its own loopback. Bring an interface up first.");
    }
    if (report_.udp) {
      OverUdp();
    } else {
      WithoutUdp();
    }
    Names();
    std::stable_sort(advice_.begin(), advice_.end(),
                     [](const Advice& a, const Advice& b) { return a.level > b.level; });
    return std::move(advice_);
  }

 private:
  void Add(Level level, const char* id, std::string text) {
    advice_.push_back({level, id, std::move(text)});
  }

  void WithoutUdp() {
    const std::string ports = StunPorts(map_);
    if (ports.empty()) {
      return Add(Level::kTrouble, "no_stun_servers",
                 "No node of the relay map has STUN (STUNPort is -1 everywhere), so nothing can be "
                 "said about UDP, and peers cannot be told our public address. Switch STUN on at a "
                 "relay.");
    }
    const int error =
        findings_.send_error_v4 != 0 ? findings_.send_error_v4 : findings_.send_error_v6;
    if (error == EPERM || error == EACCES) {
      Add(Level::kTrouble, "udp_refused_here",
          absl::StrCat("This host itself refuses to send UDP (", std::strerror(error),
                       "): a rule in its own firewall (nftables, iptables, a container's policy). "
                       "Let outgoing UDP pass there."));
    }
    if (report_.latency.empty()) {
      return Add(
          Level::kTrouble, "nothing_reachable",
          absl::StrCat("No server of the relay map answered, neither over UDP (port ", ports,
                       ") nor over HTTPS, so peers can be reached neither directly nor over a "
                       "relay. If other traffic works, look at the reasons above and at the "
                       "map; if not, this host is offline."));
    }
    Add(Level::kTrouble, "udp_blocked",
        absl::StrCat(
            "UDP is blocked: no STUN server answered, while relays answer over HTTPS. Relays "
            "carry all traffic, which is slower than direct paths. Open outgoing UDP to port ",
            ports,
            " (STUN) and to any port of peers, with the answers to it, in the firewall in "
            "front of this host."));
  }

  void OverUdp() {
    if (report_.preferred == 0) {
      Add(Level::kTrouble, "no_relay",
          "No region that answered has a relay that may be a home (all are STUN only, or marked to "
          "be avoided): peers without a direct path cannot be reached. Add a relay to the map.");
    }
    Nat();
    if (findings_.host.v6 && !report_.ipv6 && Asks(map_, false)) {
      Add(Level::kNote, "ipv6_broken",
          "This host has an IPv6 address, but no STUN server answered over IPv6. Paths over IPv6 "
          "will not work; direct paths over IPv4 are not affected. Look at the IPv6 default route "
          "and at firewalls.");
    }
    if (findings_.host.v4 && report_.global_v4.IsNone() && Asks(map_, true)) {
      Add(Level::kNote, "ipv4_broken",
          "This host has an IPv4 address, but no STUN server answered over IPv4. Peers without "
          "IPv6 "
          "are reached over relays only.");
    }
    std::vector<RegionId> silent;
    for (const auto& [id, region] : map_.regions) {
      const bool asked = (findings_.host.v4 && HasStun(region, true)) ||
                         (findings_.host.v6 && HasStun(region, false));
      if (report_.full && asked && !report_.latency.contains(id)) silent.push_back(id);
    }
    if (!silent.empty()) {
      Add(Level::kNote, "regions_silent",
          absl::StrCat(
              "No answer from region ", RegionNames(map_, silent),
              " while others answered: its servers are down, do not answer STUN, or are not "
              "reachable from here."));
    }
    const stun::NetcheckStats& stats = findings_.stats;
    const uint64_t strange =
        stats.malformed + stats.unknown_id + stats.wrong_source + stats.wrong_family;
    if (strange > 0) {
      Add(Level::kNote, "strange_answers",
          absl::StrCat(
              strange, " datagrams that came were no answers to what was asked (malformed ",
              stats.malformed, ", unknown id ", stats.unknown_id, ", from another address ",
              stats.wrong_source, ", of another family ", stats.wrong_family,
              "). They were ignored. Something on the way changes or forges STUN."));
    }
  }

  void Nat() {
    const bool mapped = MappingReaches(findings_);
    if (report_.mapping_varies == stun::Answer::kYes && !mapped) {
      const char* const kWhat =
          "The NAT gives this host another address or port for each destination (a symmetric, or "
          "\"hard\", NAT): the address that STUN servers see is not the one that peers see. ";
      if (report_.ipv6) {
        Add(Level::kNote, "hard_nat",
            absl::StrCat(kWhat,
                         "Peers with IPv6 are reached directly all the same; others only if "
                         "they have a public address."));
      } else {
        Add(Level::kTrouble, "hard_nat",
            absl::StrCat(
                kWhat,
                "Only peers with a public address are reached directly, all others over "
                "relays. Let the router keep the port (in nftables: masquerade without "
                "random), switch on NAT-PMP or UPnP there, forward a UDP port to this host, "
                "or give it IPv6."));
      }
    }
    if (!findings_.port_mapping.external.IsNone() && !mapped && !report_.global_v4.IsNone()) {
      Add(Level::kNote, "double_nat",
          absl::StrCat(
              "The router gave the address ", findings_.port_mapping.external.ToString(),
              ", but STUN servers see ", report_.global_v4.ip.ToString(),
              ": there is another NAT in front of the router (the provider's, say), and the "
              "mapping is reachable from behind that one only."));
    }
    if (report_.mapping_varies == stun::Answer::kUnknown &&
        BehindNat(findings_) == stun::Answer::kYes) {
      Add(Level::kNote, "mapping_unknown",
          "Whether the NAT maps each destination alike is not known: it takes answers of two STUN "
          "servers over IPv4, in two regions of the map.");
    }
  }

  void Names() {
    if (findings_.unresolved.empty()) return;
    Add(Level::kNote, "names_unresolved",
        absl::StrCat("Names without an address were not asked: ",
                     absl::StrJoin(findings_.unresolved, ", ", absl::PairFormatter(": ")),
                     ". Look at the relay map, and at /etc/resolv.conf; an "
                     "address in the map (fields IPv4, IPv6) needs no DNS."));
  }

  const Findings& findings_;
  const stun::Report& report_;
  const derp::RelayMap& map_;
  std::vector<Advice> advice_;
};

}  // namespace

bool Asks(const derp::RelayMap& map, bool v4) {
  return std::any_of(map.regions.begin(), map.regions.end(),
                     [v4](const auto& region) { return HasStun(region.second, v4); });
}

stun::Answer BehindNat(const Findings& findings) {
  const Endpoint& seen = findings.report.global_v4;
  if (seen.IsNone()) return stun::Answer::kUnknown;
  const bool ours =
      std::find(findings.local.begin(), findings.local.end(), seen.ip) != findings.local.end();
  return ours && seen.port == findings.port ? stun::Answer::kNo : stun::Answer::kYes;
}

bool MappingReaches(const Findings& findings) {
  const Endpoint& external = findings.port_mapping.external;
  return !external.IsNone() && external.ip == findings.report.global_v4.ip;
}

std::vector<Advice> Advise(const Findings& findings, const derp::RelayMap& map) {
  return Adviser(findings, map).Run();
}

bool IsTrouble(const std::vector<Advice>& advice) {
  return std::any_of(advice.begin(), advice.end(),
                     [](const Advice& a) { return a.level == Level::kTrouble; });
}

}  // namespace ringsock::netcheck
