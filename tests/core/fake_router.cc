// What routers answer (tests/core/fake_router.h): RFC 6886, and UPnP IGD 1 in its simplest form.
#include "tests/core/fake_router.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include <spdlog/fmt/fmt.h>

namespace ringsock {
namespace {

constexpr char kDevice[] =
    "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>"
    "<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList>"
    "<device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><serviceList><service>"
    "<serviceType>urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1</serviceType>"
    "<controlURL>/common</controlURL><eventSubURL>/event</eventSubURL><SCPDURL>/scpd</SCPDURL>"
    "</service></serviceList><deviceList><device>"
    "<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList>"
    "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
    "<controlURL>/control</controlURL><eventSubURL>/event</eventSubURL><SCPDURL>/scpd</SCPDURL>"
    "</service></serviceList></device></deviceList></device></deviceList></device></root>";

[[noreturn]] void Die(const char* what) {
  perror(what);
  abort();
}

int Bound(int type, const char* ip, uint16_t port) {
  const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  inet_pton(AF_INET, ip, &address.sin_addr);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Die("bind");
  return fd;
}

std::string Tag(const std::string& text, const std::string& name) {
  const size_t begin = text.find("<" + name + ">");
  if (begin == std::string::npos) return "";
  const size_t from = begin + name.size() + 2;
  return text.substr(from, text.find('<', from) - from);
}

std::string Envelope(const std::string& body) {
  return "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">"
         "<s:Body>" +
         body + "</s:Body></s:Envelope>";
}

std::string Fault(int code) {
  return Envelope(
      fmt::format("<s:Fault><detail><UPnPError><errorCode>{}</errorCode>"
                  "<errorDescription>no</errorDescription></UPnPError></detail>"
                  "</s:Fault>",
                  code));
}

}  // namespace

FakeRouter::FakeRouter(const Options& options) : options_(options) {
  stop_ = eventfd(0, EFD_CLOEXEC);
  if (options_.nat_pmp) natpmp_ = Bound(SOCK_DGRAM, options_.address.c_str(), 5351);
  if (options_.upnp) {
    ssdp_ = Bound(SOCK_DGRAM, "239.255.255.250", 1900);
    ip_mreq group{};
    inet_pton(AF_INET, "239.255.255.250", &group.imr_multiaddr);
    inet_pton(AF_INET, "10.0.0.1", &group.imr_interface);
    if (setsockopt(ssdp_, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)) != 0) Die("join");
    http_ = Bound(SOCK_STREAM, "10.0.0.1", 0);
    if (listen(http_, 8) != 0) Die("listen");
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    getsockname(http_, reinterpret_cast<sockaddr*>(&address), &size);
    http_port_ = ntohs(address.sin_port);
  }
  thread_ = std::thread([this] { Main(); });
}

FakeRouter::~FakeRouter() {
  const uint64_t one = 1;
  (void)!write(stop_, &one, sizeof(one));
  thread_.join();
  for (const int fd : {natpmp_, ssdp_, http_, stop_}) {
    if (fd >= 0) close(fd);
  }
}

std::map<uint16_t, uint16_t> FakeRouter::mappings() const {
  std::lock_guard lock(mutex_);
  return mappings_;
}

void FakeRouter::Main() {
  for (;;) {
    std::array<pollfd, 4> fds{pollfd{stop_, POLLIN, 0}, pollfd{natpmp_, POLLIN, 0},
                              pollfd{ssdp_, POLLIN, 0}, pollfd{http_, POLLIN, 0}};
    if (poll(fds.data(), fds.size(), -1) < 0) Die("poll");
    if (fds[0].revents != 0) return;
    if (fds[1].revents != 0) AnswerNatPmp();
    if (fds[2].revents != 0) AnswerSearch();
    if (fds[3].revents != 0) AnswerHttp();
  }
}

// RFC 6886 sections 3.2 and 3.3.
void FakeRouter::AnswerNatPmp() {
  std::array<uint8_t, 64> in{};
  std::array<uint8_t, 16> out{};
  sockaddr_in from{};
  socklen_t size = sizeof(from);
  const ssize_t got =
      recvfrom(natpmp_, in.data(), in.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
  ++requests_;
  if (got < 2 || ignored_++ < options_.ignore) return;
  const auto send = [&](const void* data, size_t length) {
    sendto(natpmp_, data, length, 0, reinterpret_cast<sockaddr*>(&from), size);
  };
  if (options_.forge) send("\xff\xff\xff", 3);
  if (options_.late) {
    // To a question for the address, to a mapping for TCP, and to one for port 1.
    constexpr std::array<uint8_t, 16> kAddress = {0, 128, 0, 0, 0, 0, 0, 9, 192, 0, 2, 77};
    constexpr std::array<uint8_t, 16> kTcp = {0, 130, 0, 0, 0, 0, 0, 9, 0, 1, 0, 1, 0, 0, 9, 9};
    constexpr std::array<uint8_t, 16> kUdp = {0, 129, 0, 0, 0, 0, 0, 9, 0, 1, 0, 1, 0, 0, 9, 9};
    if (in[1] != 0) send(kAddress.data(), 12);
    send(kTcp.data(), 16);
    send(kUdp.data(), 16);
  }
  const auto put16 = [&](size_t at, uint16_t value) {
    const uint16_t wire = htons(value);
    std::memcpy(&out[at], &wire, 2);
  };
  out[1] = static_cast<uint8_t>(128 + in[1]);
  put16(2, options_.result);
  if (in[1] == 0) {
    inet_pton(AF_INET, "198.51.100.9", &out[8]);
    return send(out.data(), 12);
  }
  if (got < 12) return;
  const uint16_t internal = static_cast<uint16_t>(in[4] << 8 | in[5]);
  const uint16_t external = static_cast<uint16_t>(in[6] << 8 | in[7]);
  uint32_t lifetime;
  std::memcpy(&lifetime, &in[8], 4);
  {
    std::lock_guard lock(mutex_);
    if (lifetime == 0) {
      std::erase_if(mappings_, [&](const auto& entry) { return entry.second == internal; });
    } else if (options_.result == 0) {
      mappings_[external] = internal;
    }
  }
  put16(8, internal);
  put16(10, lifetime == 0 ? 0 : external);
  const uint32_t granted = lifetime == 0 ? 0 : htonl(options_.lifetime);
  std::memcpy(&out[12], &granted, 4);
  send(out.data(), 16);
}

void FakeRouter::AnswerSearch() {
  std::array<char, 1024> in{};
  sockaddr_in from{};
  socklen_t size = sizeof(from);
  const ssize_t got =
      recvfrom(ssdp_, in.data(), in.size() - 1, 0, reinterpret_cast<sockaddr*>(&from), &size);
  ++requests_;
  if (got <= 0 || std::strstr(in.data(), "InternetGatewayDevice:1") == nullptr) return;
  const std::string answer = fmt::format(
      "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
      "USN: uuid:1::urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
      "LOCATION: http://10.0.0.1:{}/device.xml\r\n\r\n",
      http_port_);
  sendto(ssdp_, answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
}

void FakeRouter::AnswerHttp() {
  const int client = accept4(http_, nullptr, nullptr, SOCK_CLOEXEC);
  ++requests_;
  std::string request;
  std::array<char, 4096> in{};
  // A request has come when its head, and the body that it announces, are there.
  for (;;) {
    const ssize_t got = recv(client, in.data(), in.size(), 0);
    if (got <= 0) break;
    request.append(in.data(), static_cast<size_t>(got));
    const size_t head = request.find("\r\n\r\n");
    if (head == std::string::npos) continue;
    const size_t length = request.find("Content-Length: ");
    const size_t body = length == std::string::npos ? 0 : std::stoul(request.substr(length + 16));
    if (request.size() >= head + 4 + body) break;
  }
  const bool get = request.rfind("GET", 0) == 0;
  std::string body = get ? kDevice : Soap(request);
  // libminiupnpc reads numbers out of a buffer that nothing ends, which is harmless behind a line's
  // end; the strict checks of the address sanitizer want to see a zero somewhere.
  body.push_back('\0');
  const bool fault = body.find("Fault") != std::string::npos;
  const std::string answer = fmt::format(
      "HTTP/1.1 {}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n"
      "Connection: close\r\n\r\n{}",
      fault ? "500 Internal Server Error" : "200 OK", body.size(), body);
  (void)!send(client, answer.data(), answer.size(), MSG_NOSIGNAL);
  close(client);
}

std::string FakeRouter::Soap(const std::string& request) {
  const auto response = [](const std::string& action, const std::string& values) {
    return Envelope(
        fmt::format("<u:{0}Response xmlns:u=\"urn:schemas-upnp-org:service:"
                    "WANIPConnection:1\">{1}</u:{0}Response>",
                    action, values));
  };
  const auto asks = [&](const char* action) {
    return request.find(std::string("#") + action + "\"") != std::string::npos;
  };
  if (asks("GetStatusInfo")) {
    return response("GetStatusInfo",
                    "<NewConnectionStatus>Connected</NewConnectionStatus>"
                    "<NewLastConnectionError>ERROR_NONE</NewLastConnectionError>"
                    "<NewUptime>1</NewUptime>");
  }
  if (asks("GetExternalIPAddress")) {
    // Clients take an address that is for documentation for a second NAT.
    return response("GetExternalIPAddress",
                    "<NewExternalIPAddress>8.9.10.11</NewExternalIPAddress>");
  }
  const auto external = static_cast<uint16_t>(atoi(Tag(request, "NewExternalPort").c_str()));
  if (Tag(request, "NewProtocol") != "UDP") return Fault(402);
  std::lock_guard lock(mutex_);
  if (asks("AddPortMapping")) {
    if (external == options_.taken) return Fault(718);
    if (options_.permanent_only && Tag(request, "NewLeaseDuration") != "0") return Fault(725);
    mappings_[external] = static_cast<uint16_t>(atoi(Tag(request, "NewInternalPort").c_str()));
    return response("AddPortMapping", "");
  }
  if (asks("DeletePortMapping")) {
    mappings_.erase(external);
    return response("DeletePortMapping", "");
  }
  return Fault(401);
}

}  // namespace ringsock
