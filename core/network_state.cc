// Reads links, addresses and routes by three netlink dumps (core/network_state.h).
#include "core/network_state.h"

#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <tuple>

#include <spdlog/fmt/fmt.h>

#include "absl/status/status.h"

namespace ringsock {
namespace {

// Reads of a state that changes meanwhile, before the caller is told.
constexpr int kMaxReads = 5;

// Attributes of one message by type. Those of unknown types or with the wrong size are skipped.
template <size_t kMaxType>
using Attributes = std::array<const nlattr*, kMaxType + 1>;

template <size_t kMaxType>
Attributes<kMaxType> ParseAttributes(const nlmsghdr* message, unsigned header) {
  Attributes<kMaxType> found{};
  mnl_attr_parse(
      message, header,
      [](const nlattr* attribute, void* out) {
        const uint16_t type = mnl_attr_get_type(attribute);
        if (type <= kMaxType) (*static_cast<Attributes<kMaxType>*>(out))[type] = attribute;
        return MNL_CB_OK;
      },
      &found);
  return found;
}

uint32_t U32(const nlattr* attribute) {
  if (attribute == nullptr || mnl_attr_get_payload_len(attribute) < sizeof(uint32_t)) return 0;
  return mnl_attr_get_u32(attribute);
}

// The unspecified IPv6 address if it is none.
IpAddress Ip(const nlattr* attribute) {
  if (attribute == nullptr) return IpAddress::AnyV6();
  const auto* const bytes = static_cast<const uint8_t*>(mnl_attr_get_payload(attribute));
  switch (mnl_attr_get_payload_len(attribute)) {
    case 4:
      return IpAddress::V4(bytes[0], bytes[1], bytes[2], bytes[3]);
    case 16: {
      std::array<uint8_t, 16> v6;
      std::memcpy(v6.data(), bytes, v6.size());
      return IpAddress::V6(v6);
    }
    default:
      return IpAddress::AnyV6();
  }
}

struct Reader {
  const std::vector<std::string>* ignored;
  std::map<uint32_t, std::string> working;  // interfaces by index
  std::map<uint32_t, std::string> loopbacks;
  NetworkState state;

  void OnLink(const nlmsghdr* message) {
    const auto* const link = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
    const auto attributes = ParseAttributes<IFLA_IFNAME>(message, sizeof(*link));
    const nlattr* const name = attributes[IFLA_IFNAME];
    if (name == nullptr || (link->ifi_flags & IFF_UP) == 0) return;
    const std::string text = mnl_attr_get_str(name);
    if (std::find(ignored->begin(), ignored->end(), text) != ignored->end()) return;
    const auto index = static_cast<uint32_t>(link->ifi_index);
    if ((link->ifi_flags & IFF_LOOPBACK) != 0) {
      loopbacks[index] = text;
    } else if ((link->ifi_flags & IFF_RUNNING) != 0) {
      working[index] = text;
    }
  }

  void OnAddress(const nlmsghdr* message) {
    const auto* const address = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
    const auto attributes = ParseAttributes<IFA_FLAGS>(message, sizeof(*address));
    const uint32_t flags = address->ifa_flags | U32(attributes[IFA_FLAGS]);
    if ((flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0) return;
    // On a point-to-point link IFA_ADDRESS is the other side's.
    const nlattr* const local = attributes[IFA_LOCAL];
    const IpAddress ip = Ip(local != nullptr ? local : attributes[IFA_ADDRESS]);
    if (ip.IsUnspecified() || ip.IsLinkLocal()) return;
    if (loopbacks.contains(address->ifa_index)) {
      (ip.IsLoopback() ? state.loopback : state.addresses[loopbacks[address->ifa_index]])
          .push_back(ip);
    } else if (const auto it = working.find(address->ifa_index); it != working.end()) {
      state.addresses[it->second].push_back(ip);
    }
  }

  void OnRoute(const nlmsghdr* message) {
    const auto* const route = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
    const auto attributes = ParseAttributes<RTA_TABLE>(message, sizeof(*route));
    const uint32_t table = attributes[RTA_TABLE] ? U32(attributes[RTA_TABLE]) : route->rtm_table;
    if (route->rtm_dst_len != 0 || route->rtm_type != RTN_UNICAST || table != RT_TABLE_MAIN) return;
    DefaultRoute found;
    found.v4 = route->rtm_family == AF_INET;
    found.gateway = Ip(attributes[RTA_GATEWAY]);
    found.metric = U32(attributes[RTA_PRIORITY]);
    uint32_t interface = U32(attributes[RTA_OIF]);
    if (const nlattr* const hops = attributes[RTA_MULTIPATH]; hops != nullptr && interface == 0) {
      // Of a route with several next hops the first stands for all.
      if (mnl_attr_get_payload_len(hops) < sizeof(rtnexthop)) return;
      interface = static_cast<uint32_t>(
          static_cast<const rtnexthop*>(mnl_attr_get_payload(hops))->rtnh_ifindex);
    }
    const auto it = working.find(interface);
    if (it == working.end()) return;
    found.interface = it->second;
    state.default_routes.push_back(std::move(found));
  }
};

class Netlink {
 public:
  Netlink() : socket_(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)) {}
  ~Netlink() {
    if (socket_ != nullptr) mnl_socket_close(socket_);
  }
  Netlink(const Netlink&) = delete;
  Netlink& operator=(const Netlink&) = delete;

  // Asks for everything of one kind, and hands each message to `handler`.
  absl::Status Dump(uint16_t type, mnl_cb_t handler, Reader* reader);

 private:
  static absl::Status Error(const char* what) {
    return absl::ErrnoToStatus(errno, fmt::format("netlink: {}", what));
  }

  mnl_socket* const socket_;
  uint32_t sequence_ = 0;
};

absl::Status Netlink::Dump(uint16_t type, mnl_cb_t handler, Reader* reader) {
  if (socket_ == nullptr) return Error("socket");
  if (sequence_ == 0 && mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) return Error("bind");
  // Large enough for any message of a dump; libmnl's own bound follows the page size.
  alignas(nlmsghdr) std::array<char, 32768> buffer;
  nlmsghdr* const request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = type;
  request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request->nlmsg_seq = ++sequence_;
  auto* const general =
      static_cast<rtgenmsg*>(mnl_nlmsg_put_extra_header(request, sizeof(ifinfomsg)));
  general->rtgen_family = AF_UNSPEC;
  if (mnl_socket_sendto(socket_, request, request->nlmsg_len) < 0) return Error("request");
  for (;;) {
    const ssize_t size = mnl_socket_recvfrom(socket_, buffer.data(), buffer.size());
    if (size < 0) return Error("dump");
    const int result = mnl_cb_run(buffer.data(), static_cast<size_t>(size), sequence_,
                                  mnl_socket_get_portid(socket_), handler, reader);
    // EINTR: something changed meanwhile, and what has come may not fit together.
    if (result < 0 && errno == EINTR) return absl::AbortedError("netlink: interrupted dump");
    if (result < 0) return Error("dump");
    if (result <= MNL_CB_STOP) return absl::OkStatus();
  }
}

template <void (Reader::*kMember)(const nlmsghdr*)>
int Call(const nlmsghdr* message, void* reader) {
  (static_cast<Reader*>(reader)->*kMember)(message);
  return MNL_CB_OK;
}

std::string RouteText(const DefaultRoute& route) {
  std::string text = route.v4 ? "default route 0.0.0.0/0" : "default route ::/0";
  if (!route.gateway.IsUnspecified()) text += " via " + route.gateway.ToString();
  return text + " on " + route.interface;
}

class ChangeText {
 public:
  void Add(const std::string& what) { text_ += (text_.empty() ? "" : "; ") + what; }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

// What of `a` is not in `b`.
template <typename T>
std::vector<T> Missing(const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<T> missing;
  for (const T& element : a) {
    if (std::find(b.begin(), b.end(), element) == b.end()) missing.push_back(element);
  }
  return missing;
}

void DescribeAddresses(const NetworkState& before, const NetworkState& after, ChangeText* text) {
  static const std::vector<IpAddress> kNone;
  const auto of = [](const NetworkState& state, const std::string& name) -> const auto& {
    const auto it = state.addresses.find(name);
    return it == state.addresses.end() ? kNone : it->second;
  };
  for (const auto& [name, addresses] : before.addresses) {
    for (const IpAddress& ip : Missing(addresses, of(after, name))) {
      text->Add(fmt::format("{}: lost {}", name, ip.ToString()));
    }
  }
  for (const auto& [name, addresses] : after.addresses) {
    for (const IpAddress& ip : Missing(addresses, of(before, name))) {
      text->Add(fmt::format("{}: got {}", name, ip.ToString()));
    }
  }
}

absl::StatusOr<NetworkState> ReadOnce(const std::vector<std::string>& ignored, bool routes) {
  Netlink netlink;  // a fresh one: the rest of an interrupted dump may lie in an old one
  Reader reader{&ignored, {}, {}, {}};
  absl::Status status = netlink.Dump(RTM_GETLINK, Call<&Reader::OnLink>, &reader);
  if (status.ok()) status = netlink.Dump(RTM_GETADDR, Call<&Reader::OnAddress>, &reader);
  if (status.ok() && routes) {
    status = netlink.Dump(RTM_GETROUTE, Call<&Reader::OnRoute>, &reader);
  }
  if (!status.ok()) return status;
  for (auto& [name, list] : reader.state.addresses) {
    std::sort(list.begin(), list.end(),
              [](const IpAddress& a, const IpAddress& b) { return a.bytes < b.bytes; });
  }
  std::sort(reader.state.default_routes.begin(), reader.state.default_routes.end(),
            [](const DefaultRoute& a, const DefaultRoute& b) {
              return std::tie(b.v4, a.metric, a.interface, a.gateway.bytes) <
                     std::tie(a.v4, b.metric, b.interface, b.gateway.bytes);
            });
  return std::move(reader.state);
}

absl::StatusOr<NetworkState> Read(const std::vector<std::string>& ignored, bool routes) {
  absl::StatusOr<NetworkState> state = ReadOnce(ignored, routes);
  for (int i = 1; i < kMaxReads && absl::IsAborted(state.status()); ++i) {
    state = ReadOnce(ignored, routes);
  }
  return state;
}

}  // namespace

LocalAddresses NetworkState::Local() const {
  LocalAddresses local;
  for (const auto& [name, list] : addresses) {
    local.regular.insert(local.regular.end(), list.begin(), list.end());
  }
  local.loopback = loopback;
  return local;
}

bool NetworkState::HasGlobalV6() const {
  // Global unicast is 2000::/3 (RFC 4291 section 2.4); a unique local address (fc00::/7) leads
  // nowhere beyond the site by itself, but one with a default route may be behind a translator.
  const bool routed = std::any_of(default_routes.begin(), default_routes.end(),
                                  [](const DefaultRoute& route) { return !route.v4; });
  for (const auto& [name, list] : addresses) {
    for (const IpAddress& ip : list) {
      if (!ip.IsV4() && (routed || (ip.bytes[0] & 0xe0) == 0x20)) return true;
    }
  }
  return false;
}

std::string DescribeChange(const NetworkState& before, const NetworkState& after) {
  ChangeText text;
  DescribeAddresses(before, after, &text);
  for (const DefaultRoute& route : Missing(before.default_routes, after.default_routes)) {
    text.Add(RouteText(route) + " gone");
  }
  for (const DefaultRoute& route : Missing(after.default_routes, before.default_routes)) {
    text.Add(RouteText(route) + " added");
  }
  std::string what = text.Take();
  return what.empty() && !(before == after) ? "order of routes" : what;
}

absl::StatusOr<NetworkState> ReadNetworkState(const std::vector<std::string>& ignored) {
  return Read(ignored, /*routes=*/true);
}

absl::StatusOr<NetworkState> ReadAddresses(const std::vector<std::string>& ignored) {
  return Read(ignored, /*routes=*/false);
}

}  // namespace ringsock
