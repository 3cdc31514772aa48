// UPnP Internet Gateway Device, WANIPConnection service, by libminiupnpc.
#include <miniupnpc/miniupnpc.h>
#include <miniupnpc/upnpcommands.h>
#include <miniupnpc/upnperrors.h>

#include <array>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "core/port_mapper.h"

namespace ringsock {
namespace {

// How long devices may take to answer a search, in milliseconds: what is asked for in its MX.
constexpr int kSearchMs = 1000;
// Searched for one after the other until there is an answer. Not the library's own list of half a
// dozen, some of which every device answers: where there is no router it takes 10 s.
constexpr const char* kSearchedTypes[] = {
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    nullptr,
};
// UPnP IGD 1, AddPortMapping: the router keeps mappings for ever or not at all.
constexpr int kOnlyPermanentLeases = 725;
// Likewise: another host has that port.
constexpr int kConflict = 718;
constexpr int kMaxRetries = 8;

absl::Status Error(const std::string& what) {
  return absl::UnavailableError(absl::StrCat("UPnP: ", what));
}

absl::Status CommandError(const char* command, int error) {
  const char* const text = strupnperror(error);
  return Error(absl::StrCat(command, ": ", text != nullptr ? text : absl::StrCat("error ", error)));
}

// The gateway that answered a search.
class Gateway {
 public:
  Gateway() = default;
  ~Gateway() {
    if (found_) FreeUPNPUrls(&urls_);
  }
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  absl::Status Find() {
    int error = UPNPDISCOVER_SUCCESS;
    UPNPDev* const devices =
        upnpDiscoverDevices(kSearchedTypes, kSearchMs, nullptr, nullptr, 0, 0, 2, &error, 0);
    if (devices == nullptr) {
      return Error(error == UPNPDISCOVER_SUCCESS ? "no router answered" : "the search failed");
    }
    const int kind = UPNP_GetValidIGD(devices, &urls_, &data_, lan_.data(), lan_.size());
    freeUPNPDevlist(devices);
    found_ = kind != 0;
    switch (kind) {
      case 1:
        return absl::OkStatus();
      case 2:
        return Error("the router is not connected to the Internet, or is itself behind NAT");
      default:
        return Error("no device that answered is a router");
    }
  }

  const char* url() const { return urls_.controlURL; }
  const char* service() const { return data_.first.servicetype; }
  // Our address as the router sees it.
  const char* lan() const { return lan_.data(); }

 private:
  UPNPUrls urls_{};
  IGDdatas data_{};
  std::array<char, 64> lan_{};
  bool found_ = false;
};

class Upnp final : public PortMappingProtocol {
 public:
  absl::StatusOr<PortMapping> Map(const PortMappingRequest& request) override {
    Gateway gateway;
    if (absl::Status status = gateway.Find(); !status.ok()) return status;
    std::array<char, 64> external{};
    if (const int error =
            UPNP_GetExternalIPAddress(gateway.url(), gateway.service(), external.data());
        error != UPNPCOMMAND_SUCCESS) {
      return CommandError("GetExternalIPAddress", error);
    }
    const absl::StatusOr<IpAddress> ip = IpAddress::Parse(external.data());
    if (!ip.ok() || !ip->IsV4() || ip->IsUnspecified()) {
      return Error("the router has no address itself");
    }
    PortMapping mapping;
    mapping.protocol = "UPnP";
    mapping.external = {*ip, request.external};
    mapping.lifetime = request.lifetime;
    int64_t lease = std::chrono::duration_cast<std::chrono::seconds>(request.lifetime).count();
    int error = Add(gateway, request, mapping.external.port, lease);
    for (int i = 0; i < kMaxRetries; ++i) {
      if (error == kOnlyPermanentLeases) {
        lease = 0;
      } else if (error == kConflict) {
        // Of the ports that IANA leaves to everybody (RFC 6335 section 6).
        mapping.external.port = static_cast<uint16_t>(49152 + SystemRandom().Below(16384));
      } else {
        break;
      }
      error = Add(gateway, request, mapping.external.port, lease);
    }
    if (error != UPNPCOMMAND_SUCCESS) return CommandError("AddPortMapping", error);
    return mapping;
  }

  void Unmap(const PortMappingRequest& request) override {
    Gateway gateway;
    if (!gateway.Find().ok()) return;
    (void)UPNP_DeletePortMapping(gateway.url(), gateway.service(),
                                 std::to_string(request.external).c_str(), "UDP", nullptr);
  }

 private:
  static int Add(const Gateway& gateway, const PortMappingRequest& request, uint16_t external,
                 int64_t lease) {
    return UPNP_AddPortMapping(gateway.url(), gateway.service(), std::to_string(external).c_str(),
                               std::to_string(request.port).c_str(), gateway.lan(), "ringsock",
                               "UDP", nullptr, std::to_string(lease).c_str());
  }
};

}  // namespace

std::unique_ptr<PortMappingProtocol> NewUpnp() { return std::make_unique<Upnp>(); }

}  // namespace ringsock
