// NAT-PMP (RFC 6886) by libnatpmp.
#include <arpa/inet.h>
#include <natpmp.h>
#include <poll.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/port_mapper.h"

namespace ringsock {
namespace {

// RFC 6886 section 3.1 would have nine tries in 128 s. A router that speaks it answers the first;
// three (250 ms, 500 ms, 1 s) cover a lost packet or two.
constexpr Duration kPatience = std::chrono::milliseconds(1750);

const char* ErrorText(int error) {
  switch (error) {
    case NATPMP_ERR_NOGATEWAYSUPPORT:
      return "the router does not speak it";
    case NATPMP_ERR_CONNECTERR:
      return "the router cannot be reached";
    case NATPMP_ERR_SENDERR:
      return "sending failed";
    case NATPMP_ERR_RECVFROM:
      return "the router refused the datagram: it does not speak it";
    case NATPMP_ERR_WRONGPACKETSOURCE:
      return "an answer came from another address";
    case NATPMP_ERR_UNSUPPORTEDVERSION:
      return "the router speaks another version";
    case NATPMP_ERR_UNSUPPORTEDOPCODE:
      return "the router does not map ports";
    case NATPMP_ERR_NOTAUTHORIZED:
      return "the router refused: it is switched off there";
    case NATPMP_ERR_NETWORKFAILURE:
      return "the router has no address itself";
    case NATPMP_ERR_OUTOFRESOURCES:
      return "the router has no port left";
    case NATPMP_TRYAGAIN:
      return "no answer";
    default:
      return "unknown error";
  }
}

absl::Status Error(int error) {
  return absl::UnavailableError(absl::StrCat("NAT-PMP: ", ErrorText(error)));
}

// One conversation with the router.
class Session {
 public:
  explicit Session(const PortMappingRequest& request)
      : interrupt_(request.interrupt), deadline_(SystemClock().Now() + kPatience) {
    status_ = initnatpmp(&natpmp_, 1, htonl(request.gateway.V4HostOrder()));
  }
  ~Session() {
    // One that could not be connected is left open by the library.
    if (status_ == 0 || status_ == NATPMP_ERR_CONNECTERR) closenatpmp(&natpmp_);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int status() const { return status_; }
  natpmp_t* natpmp() { return &natpmp_; }

  // The answer to the request under way, which is one that `fits`; 0, or an error.
  template <typename Fits>
  int Read(natpmpresp_t* response, Fits fits) {
    for (;;) {
      timeval wait{};
      if (const int error = getnatpmprequesttimeout(&natpmp_, &wait); error < 0) return error;
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline_ - SystemClock().Now());
      if (left.count() <= 0) return NATPMP_TRYAGAIN;
      const int64_t retry = std::max<int64_t>(0, wait.tv_sec * 1000 + wait.tv_usec / 1000 + 1);
      pollfd fds[] = {{natpmp_.s, POLLIN, 0}, {interrupt_, POLLIN, 0}};
      (void)poll(fds, 2, static_cast<int>(std::min<int64_t>(left.count(), retry)));
      if (fds[1].revents != 0) return NATPMP_TRYAGAIN;
      const int result = readnatpmpresponseorretry(&natpmp_, response);
      if (result == 0 && !fits(*response)) {
        // An answer to an earlier request, which came late or twice. The library takes it for ours.
        natpmp_.has_pending_request = 1;
        continue;
      }
      // Forged answers are not the end: the router's own may follow.
      if (result != NATPMP_TRYAGAIN && result != NATPMP_ERR_WRONGPACKETSOURCE) return result;
    }
  }

 private:
  natpmp_t natpmp_{};
  int status_;
  const int interrupt_;
  const Instant deadline_;
};

class NatPmp final : public PortMappingProtocol {
 public:
  absl::StatusOr<PortMapping> Map(const PortMappingRequest& request) override {
    Session session(request);
    if (session.status() != 0) return Error(session.status());
    natpmpresp_t response{};
    if (const int sent = sendpublicaddressrequest(session.natpmp()); sent < 0) return Error(sent);
    int error = session.Read(&response, [](const natpmpresp_t& answer) {
      return answer.type == NATPMP_RESPTYPE_PUBLICADDRESS;
    });
    if (error != 0) return Error(error);
    PortMapping mapping;
    mapping.protocol = "NAT-PMP";
    mapping.external.ip = IpAddress::V4(ntohl(response.pnu.publicaddress.addr.s_addr));
    if (mapping.external.ip.IsUnspecified()) return Error(NATPMP_ERR_NETWORKFAILURE);

    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(request.lifetime);
    const int sent =
        sendnewportmappingrequest(session.natpmp(), NATPMP_PROTOCOL_UDP, request.port,
                                  request.external, static_cast<uint32_t>(seconds.count()));
    if (sent < 0) return Error(sent);
    error = session.Read(&response, [&request](const natpmpresp_t& answer) {
      return answer.type == NATPMP_RESPTYPE_UDPPORTMAPPING &&
             answer.pnu.newportmapping.privateport == request.port;
    });
    if (error != 0) return Error(error);
    const auto& granted = response.pnu.newportmapping;
    if (granted.mappedpublicport == 0 || granted.lifetime == 0) {
      return absl::UnavailableError("NAT-PMP: the router's answer is not for what was asked");
    }
    mapping.external.port = granted.mappedpublicport;
    mapping.lifetime = std::chrono::seconds(granted.lifetime);
    return mapping;
  }

  void Unmap(const PortMappingRequest& request) override {
    Session session(request);
    if (session.status() != 0) return;
    // RFC 6886 section 3.4: lifetime and external port zero. Nothing waits for the answer.
    (void)sendnewportmappingrequest(session.natpmp(), NATPMP_PROTOCOL_UDP, request.port, 0, 0);
  }
};

}  // namespace

std::unique_ptr<PortMappingProtocol> NewNatPmp() { return std::make_unique<NatPmp>(); }

}  // namespace ringsock
