// What the loop suites run on: a world is a network with loops on it, made by one of several
// factories (recvmmsg/sendmmsg, io_uring, simulated). A new backend plugs in by adding itself to
// AllWorlds() in loop_world.cc.
#ifndef RINGSOCK_TESTS_IO_LOOP_WORLD_H_
#define RINGSOCK_TESTS_IO_LOOP_WORLD_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/endpoint.h"
#include "io/loop.h"

namespace ringsock::io {

class World {
 public:
  virtual ~World() = default;
  // A further loop on this network, owned by the world. Every loop is driven by the test's thread.
  virtual Loop& Add(const LoopOptions& options) = 0;
  // An address that the `index`-th loop can bind and all others can reach.
  virtual IpAddress Address(size_t index, bool v4) = 0;
  // A place to connect to that never answers, for as long as the object lives.
  struct Silent {
    virtual ~Silent() = default;
    Endpoint at;
  };
  virtual std::unique_ptr<Silent> Silence(bool v4) = 0;
  // Something happens: every loop polls once and time goes on, really or in simulation.
  virtual void Turn() = 0;
};

struct WorldFactory {
  std::string name;  // letters and digits
  bool real;         // sockets of this host: a kernel, threads, waiting
  std::function<std::unique_ptr<World>()> make;
  std::string forbidden = {};  // why this host does not let it work; "" if it does
};
// All there are, also those that do not work on this host: their tests are skipped with the reason.
const std::vector<WorldFactory>& AllWorlds();

// What one suite instance runs with.
struct WorldParam {
  WorldFactory factory;
  bool v4 = true;
  bool gso = true;
  bool gro = true;
};
// Why a test cannot run with it on this host; "" if it can.
std::string WhyNotHere(const WorldParam& param);
// Worlds x families, with GSO and GRO on.
std::vector<WorldParam> WorldsAndFamilies();
// The real ones among them.
std::vector<WorldParam> RealWorldsAndFamilies();
// Worlds x families x GSO on/off x GRO on/off.
std::vector<WorldParam> WorldsAndOffloads();
std::string ParamName(const testing::TestParamInfo<WorldParam>& info);

// A datagram as the receiver saw it.
struct Received {
  std::vector<std::byte> bytes;
  Endpoint from;
  IpAddress to;
};
// A lost run, with the first byte it points at instead of the train, which is gone by then.
struct Failed {
  const std::byte* first_byte;
  uint32_t packets;
  int error;
};

// Keeps everything, and lets a test act on arrival.
class Recorder : public UdpHandler {
 public:
  void OnReceive(SocketId socket, std::span<const RxTrain> trains) override;
  void OnSendFailure(SocketId socket, const SendFailure& failure) override;

  bool keep = true;  // off: count only
  std::vector<Received> packets;
  size_t count = 0;
  size_t trains = 0;
  size_t largest_batch = 0;
  std::vector<Failed> failures;
  size_t failed_packets = 0;
  std::function<void(SocketId, std::span<const RxTrain>)> on_receive;
};

// Bytes that tell one datagram from every other.
std::vector<std::byte> Pattern(size_t size, uint32_t seed);

// Two loops, a socket on each, and helpers that work in every world.
class LoopTest : public testing::TestWithParam<WorldParam> {
 protected:
  struct Peer {
    Loop* loop = nullptr;
    SocketId socket = 0;
    Endpoint address;
    Recorder recorder;
  };

  // Skips what this host cannot run.
  void SetUp() override;
  LoopOptions Options() const;
  // A loop with one open socket. `config.bind` is filled in when it is unset.
  Peer& AddPeer(LoopOptions options, UdpConfig config = {});
  Peer& AddPeer() { return AddPeer(Options()); }
  // For a test that gives its port up for a moment: to one that the kernel gives to nobody who asks
  // for any.
  void MoveToAPortOfItsOwn(Peer& peer);
  Endpoint Bind(size_t index, uint16_t port = 0) {
    return {world_->Address(index, GetParam().v4), port, 0};
  }
  // Turns the world until it holds; false, and a test failure, if it does not within some seconds
  // (a guard against hanging, not a measurement).
  bool Until(const std::function<bool()>& predicate, const char* what);
  // Some turns in which nothing is expected.
  void Settle();
  // Sends and flushes. `bytes` are copied and live as long as the test.
  void SendNow(Peer& from, const Endpoint& to, std::vector<std::byte> bytes, uint32_t segment = 0);

  const std::unique_ptr<World> world_ = GetParam().factory.make();
  std::deque<std::vector<std::byte>> sent_;
  std::deque<Peer> peers_;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_TESTS_IO_LOOP_WORLD_H_
