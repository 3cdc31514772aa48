#include "derp/dns_client.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace ringsock::derp {
namespace {

// Answers that wait for the next turn, per socket. A flood beyond it is lost, as it would be in a
// kernel's buffer.
constexpr size_t kMaxReceived = 32;
constexpr int kSocketBuffer = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<DnsClient>> DnsClient::Create(io::Loop* loop, TimerQueue* timers,
                                                             const ResolverOptions& options) {
  auto client = std::unique_ptr<DnsClient>(new DnsClient(loop, timers, options));
  auto channel = client->OpenChannel();
  if (!channel.ok()) return channel.status();
  client->channel_ = *channel;
  return client;
}

DnsClient::DnsClient(io::Loop* loop, TimerQueue* timers, const ResolverOptions& options)
    : loop_(loop), options_(options), work_(timers, [this] { Work(); }) {
  ares_library_init(ARES_LIB_INIT_ALL);  // counts its callers
}

DnsClient::~DnsClient() {
  ending_ = true;
  if (channel_ != nullptr) ares_destroy(channel_);
  ares_library_cleanup();
}

absl::StatusOr<ares_channel> DnsClient::OpenChannel() {
  static constexpr ares_socket_functions kFunctions = {&DnsClient::Open, &DnsClient::Close,
                                                       &DnsClient::Connect, &DnsClient::Receive,
                                                       &DnsClient::Send};
  ares_options options{};
  options.flags = ARES_FLAG_IGNTC;
  options.timeout = static_cast<int>(options_.timeout / std::chrono::milliseconds(1));
  options.tries = options_.tries;
  ares_channel channel = nullptr;
  int status =
      ares_init_options(&channel, &options, ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
  if (status != ARES_SUCCESS) {
    return absl::InternalError(absl::StrCat("c-ares: ", ares_strerror(status)));
  }
  if (!options_.servers.empty()) {
    status = ares_set_servers_ports_csv(channel, options_.servers.c_str());
    if (status != ARES_SUCCESS) {
      ares_destroy(channel);
      return absl::InvalidArgumentError(
          absl::StrCat("DNS servers \"", options_.servers, "\": ", ares_strerror(status)));
    }
  }
  ares_set_socket_functions(channel, &kFunctions, this);
  return channel;
}

void DnsClient::Query(const std::string& name, AddressFamily family, Done done) {
  waiting_.push_back(std::unique_ptr<Request>(new Request{this, name, family, std::move(done)}));
  work_.Schedule(loop_->clock().Now());
}

void DnsClient::Restart() {
  restart_ = true;
  work_.Schedule(loop_->clock().Now());
}

// ---- The one place that calls c-ares ----

void DnsClient::Work() {
  if (std::exchange(restart_, false) || (renew_ && running_ == 0 && !waiting_.empty())) Renew();
  std::vector<ares_socket_t> readable;
  for (const auto& [fd, socket] : sockets_) {
    if (!socket.received.empty() || socket.error != 0) readable.push_back(fd);
  }
  for (const ares_socket_t fd : readable) ares_process_fd(channel_, fd, ARES_SOCKET_BAD);
  ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // timeouts
  // What the answers ask for comes in the next turn.
  for (auto& request : std::exchange(waiting_, {})) Start(std::move(request));
  const Instant now = loop_->clock().Now();
  timeval left{};
  const timeval* next = ares_timeout(channel_, nullptr, &left);
  Instant wake = Instant::max();
  if (next != nullptr) {
    wake = now + std::chrono::seconds(next->tv_sec) + std::chrono::microseconds(next->tv_usec) +
           std::chrono::milliseconds(1);
  }
  const bool more = restart_ || !waiting_.empty() ||
                    std::any_of(sockets_.begin(), sockets_.end(), [](const auto& entry) {
                      return !entry.second.received.empty() || entry.second.error != 0;
                    });
  work_.Schedule(more ? now : wake);
}

// With the servers that /etc/resolv.conf names now.
void DnsClient::Renew() {
  renew_ = false;
  const auto channel = OpenChannel();
  if (!channel.ok()) {
    Log().warn("DNS: goes on with the servers it had: {}", Fmt(channel.status().message()));
    return;
  }
  ares_destroy(std::exchange(channel_, *channel));  // requests come back to waiting_
}

void DnsClient::Start(std::unique_ptr<Request> request) {
  ares_addrinfo_hints hints{};
  hints.ai_family = request->family == AddressFamily::kV4 ? AF_INET : AF_INET6;
  hints.ai_flags = ARES_AI_NOSORT;  // sorting would open sockets that are none of the loop's
  ++running_;
  const std::string name = request->name;
  ares_getaddrinfo(channel_, name.c_str(), nullptr, &hints, &DnsClient::OnAnswer,
                   request.release());
}

void DnsClient::OnAnswer(void* argument, int status, int /*timeouts*/, ares_addrinfo* result) {
  std::unique_ptr<Request> request(static_cast<Request*>(argument));
  const std::unique_ptr<ares_addrinfo, decltype(&ares_freeaddrinfo)> owned(result,
                                                                           &ares_freeaddrinfo);
  DnsClient* const self = request->client;
  --self->running_;
  if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) {
    if (!self->ending_) self->waiting_.push_back(std::move(request));
    return;
  }
  if (status != ARES_SUCCESS) return request->done(self->Error(*request, status));
  const int family = request->family == AddressFamily::kV4 ? AF_INET : AF_INET6;
  Answer answer{.addresses = {}, .ttl = std::chrono::hours(24)};
  for (const ares_addrinfo_node* node = result->nodes; node != nullptr; node = node->ai_next) {
    if (node->ai_family != family) continue;
    answer.addresses.push_back(Endpoint::FromSockaddr(node->ai_addr).ip);
    answer.ttl = std::min<Duration>(answer.ttl, std::chrono::seconds(std::max(0, node->ai_ttl)));
  }
  if (answer.addresses.empty()) return request->done(self->Error(*request, ARES_ENODATA));
  request->done(answer);
}

absl::Status DnsClient::Error(const Request& request, int status) {
  const char* kind = request.family == AddressFamily::kV4 ? "IPv4" : "IPv6";
  switch (status) {
    case ARES_ENOTFOUND:
      return absl::NotFoundError(absl::StrCat("DNS: no such name: ", request.name));
    case ARES_ENODATA:
      return absl::NotFoundError(absl::StrCat("DNS: ", request.name, " has no ", kind, " address"));
    case ARES_EBADNAME:
      return absl::InvalidArgumentError(absl::StrCat("DNS: not a name: ", request.name));
    default:
      renew_ = true;  // perhaps there are other servers by now
      return absl::UnavailableError(
          absl::StrCat("DNS: ", request.name, ": ", ares_strerror(status)));
  }
}

// ---- Its sockets ----

DnsClient::Socket* DnsClient::Find(ares_socket_t fd) {
  const auto found = sockets_.find(fd);
  return found == sockets_.end() ? nullptr : &found->second;
}

DnsClient::Socket* DnsClient::FindUdp(io::SocketId udp) {
  for (auto& [fd, socket] : sockets_) {
    if (socket.udp == udp) return &socket;
  }
  return nullptr;
}

ares_socket_t DnsClient::Open(int domain, int type, int /*protocol*/, void* self) {
  auto* const client = static_cast<DnsClient*>(self);
  errno = EAFNOSUPPORT;
  if (type != SOCK_DGRAM || (domain != AF_INET && domain != AF_INET6)) return ARES_SOCKET_BAD;
  const IpAddress any = domain == AF_INET ? IpAddress::AnyV4() : IpAddress::AnyV6();
  // A port of the kernel's choice each time: what is not guessed cannot be forged.
  const auto udp = client->loop_->OpenUdp(
      {.bind = {any, 0, 0}, .receive_buffer = kSocketBuffer, .send_buffer = kSocketBuffer}, client);
  if (!udp.ok()) {
    Log().warn("DNS: {}", Fmt(udp.status().message()));
    errno = EMFILE;
    return ARES_SOCKET_BAD;
  }
  const ares_socket_t fd = client->next_socket_++;
  client->sockets_[fd].udp = *udp;
  return fd;
}

int DnsClient::Close(ares_socket_t fd, void* self) {
  auto* const client = static_cast<DnsClient*>(self);
  if (const Socket* socket = client->Find(fd)) {
    client->loop_->CloseUdp(socket->udp);
    client->sockets_.erase(fd);
  }
  return 0;
}

int DnsClient::Connect(ares_socket_t fd, const sockaddr* address, ares_socklen_t, void* self) {
  Socket* const socket = static_cast<DnsClient*>(self)->Find(fd);
  if (socket == nullptr) return -1;
  socket->server = Endpoint::FromSockaddr(address);
  return 0;
}

ares_ssize_t DnsClient::Receive(ares_socket_t fd, void* buffer, size_t size, int, sockaddr* from,
                                ares_socklen_t* length, void* self) {
  Socket* const socket = static_cast<DnsClient*>(self)->Find(fd);
  errno = EBADF;
  if (socket == nullptr) return -1;
  if (socket->error != 0) {
    errno = std::exchange(socket->error, 0);
    return -1;
  }
  errno = EAGAIN;
  if (socket->received.empty()) return -1;
  const std::vector<std::byte> bytes = std::move(socket->received.front());
  socket->received.pop_front();
  const size_t taken = std::min(size, bytes.size());
  std::memcpy(buffer, bytes.data(), taken);
  if (from != nullptr && length != nullptr) {
    sockaddr_storage storage{};
    const socklen_t full = socket->server.ToSockaddr(&storage);
    std::memcpy(from, &storage, std::min<size_t>(full, *length));
    *length = full;
  }
  return static_cast<ares_ssize_t>(taken);
}

ares_ssize_t DnsClient::Send(ares_socket_t fd, const iovec* pieces, int count, void* self) {
  auto* const client = static_cast<DnsClient*>(self);
  Socket* const socket = client->Find(fd);
  errno = EBADF;
  if (socket == nullptr) return -1;
  std::vector<std::byte> bytes;
  for (int i = 0; i < count; ++i) {
    const auto* data = static_cast<const std::byte*>(pieces[i].iov_base);
    bytes.insert(bytes.end(), data, data + pieces[i].iov_len);
  }
  client->loop_->Send(
      socket->udp,
      {.data = bytes.data(), .size = static_cast<uint32_t>(bytes.size()), .to = socket->server});
  client->loop_->Flush();
  return static_cast<ares_ssize_t>(bytes.size());
}

void DnsClient::OnReceive(io::SocketId id, std::span<const io::RxTrain> trains) {
  Socket* const socket = FindUdp(id);
  if (socket == nullptr) return;
  for (const io::RxTrain& train : trains) {
    // Anybody can send here; only the server that was asked is heard.
    if (train.from != socket->server) continue;
    for (uint32_t offset = 0; offset < train.size; offset += train.segment_size) {
      if (socket->received.size() >= kMaxReceived) break;
      const uint32_t size = std::min(train.segment_size, train.size - offset);
      socket->received.emplace_back(train.data + offset, train.data + offset + size);
    }
  }
  work_.Schedule(loop_->clock().Now());
}

void DnsClient::OnSendFailure(io::SocketId id, const io::SendFailure& failure) {
  Socket* const socket = FindUdp(id);
  if (socket == nullptr) return;
  socket->error = failure.error;  // c-ares goes on to the next server
  work_.Schedule(loop_->clock().Now());
}

}  // namespace ringsock::derp
