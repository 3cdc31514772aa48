// A simulated host: its addresses, which come and go, and its UDP ports. Plays the part of the
// kernel's socket layer: what can be bound, where a datagram goes, which source address it gets.
#ifndef RINGSOCK_IO_SIM_HOST_H_
#define RINGSOCK_IO_SIM_HOST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/endpoint.h"
#include "io/sim_link.h"
#include "io/sim_loop.h"
#include "io/sim_types.h"

namespace ringsock::io {

struct SimAddress {
  IpAddress ip;
  RealmId realm{};
  std::string device;
};

class SimHost {
 public:
  explicit SimHost(std::string name) : name(std::move(name)) {}

  std::string name;
  SimLink uplink;    // from the host to its realm
  SimLink downlink;  // from the realm to the host
  bool udp_blocked = false;
  std::vector<SimAddress> addresses;  // the first of a family is the default source

  // The address; its realm and device. Null: not (or no longer) here. 127.0.0.0/8 and ::1 are here
  // always, on device "lo".
  const SimAddress* Find(const IpAddress& ip) const;

  // Binds as the kernel would; fills socket->local. Errors as OpenUdpSocket (io/udp_socket.h).
  absl::Status Bind(SimSocket* socket);
  void Release(SimSocket* socket);
  // Binds it to `port` (0: any) instead; it keeps its place in a group. An error changes nothing.
  absl::Status Rebind(SimSocket* socket, uint16_t port);
  // The socket that gets a datagram: one bound to the address before one bound to all; within a
  // reuse_port group by UdpConfig::steering, else by the hash of the sender. Null: nobody.
  SimSocket* FindSocket(const Datagram& datagram) const;
  // Source address for a datagram, or in *error why there is none.
  const SimAddress* SelectSource(const SimSocket& socket, const IpAddress& to,
                                 const IpAddress& wanted, int* error) const;

 private:
  absl::Status ChoosePort(SimSocket* socket);
  bool Conflicts(const SimSocket& socket, const Endpoint& local) const;

  std::vector<SimSocket*> sockets_;  // in order of opening
  uint16_t next_port_ = 32768;       // first of Linux's ip_local_port_range
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_SIM_HOST_H_
