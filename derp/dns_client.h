// c-ares on the loop: its sockets are datagram sockets of the loop, its timeouts a timer, so that
// it needs neither a thread nor a descriptor to poll. Part of the resolver.
//
// c-ares opens, sends, receives and closes through functions that it is given
// (ares_set_socket_functions). Every call into it is made from one timer's callback: there sockets
// may be closed, and nothing of it is on the stack when the loop calls.
#ifndef RINGSOCK_DERP_DNS_CLIENT_H_
#define RINGSOCK_DERP_DNS_CLIENT_H_

#include <ares.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/timer_queue.h"
#include "derp/resolver.h"
#include "io/loop.h"

namespace ringsock::derp {

// Not thread safe. No cache. UDP only: of an answer too long for a datagram the part that came
// counts, and one address is enough.
class DnsClient final : io::UdpHandler {
 public:
  struct Answer {
    std::vector<IpAddress> addresses;  // at least one
    Duration ttl{};                    // the shortest of theirs
  };
  // NotFound, or Unavailable: the DNS did not say.
  using Done = std::function<void(const absl::StatusOr<Answer>&)>;

  static absl::StatusOr<std::unique_ptr<DnsClient>> Create(io::Loop* loop, TimerQueue* timers,
                                                           const ResolverOptions& options);
  ~DnsClient() override;

  // `done` is called once, from a timer. It may call everything here, but must not destroy this.
  void Query(const std::string& name, AddressFamily family, Done done);
  // Reads /etc/resolv.conf again; what is under way begins anew.
  void Restart();

 private:
  struct Request {
    DnsClient* client;
    std::string name;
    AddressFamily family;
    Done done;
  };
  // What c-ares takes for a descriptor is the key in sockets_.
  struct Socket {
    io::SocketId udp = 0;
    Endpoint server;
    std::deque<std::vector<std::byte>> received;
    int error = 0;  // of a send, to tell c-ares
  };

  DnsClient(io::Loop* loop, TimerQueue* timers, const ResolverOptions& options);
  absl::StatusOr<ares_channel> OpenChannel();
  void Work();
  void Renew();
  void Start(std::unique_ptr<Request> request);
  static void OnAnswer(void* request, int status, int timeouts, ares_addrinfo* result);
  absl::Status Error(const Request& request, int status);

  // For c-ares; as the system calls of these names.
  static ares_socket_t Open(int domain, int type, int protocol, void* self);
  static int Close(ares_socket_t fd, void* self);
  static int Connect(ares_socket_t fd, const sockaddr* address, ares_socklen_t length, void* self);
  static ares_ssize_t Receive(ares_socket_t fd, void* buffer, size_t size, int flags,
                              sockaddr* from, ares_socklen_t* length, void* self);
  static ares_ssize_t Send(ares_socket_t fd, const iovec* pieces, int count, void* self);
  Socket* Find(ares_socket_t fd);
  Socket* FindUdp(io::SocketId udp);

  void OnReceive(io::SocketId socket, std::span<const io::RxTrain> trains) override;
  void OnSendFailure(io::SocketId socket, const io::SendFailure& failure) override;

  io::Loop* const loop_;
  const ResolverOptions options_;
  ares_channel channel_ = nullptr;
  std::map<ares_socket_t, Socket> sockets_;
  ares_socket_t next_socket_ = 1 << 20;            // like no descriptor of this process
  std::vector<std::unique_ptr<Request>> waiting_;  // to be started by Work()
  size_t running_ = 0;
  bool renew_ = false;    // with a new channel, when nothing is running
  bool restart_ = false;  // now
  bool ending_ = false;
  Timer work_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_DNS_CLIENT_H_
