// Fuzzes the relay behind its logins: clients, one of them a server of the mesh, that send what the
// input says, come, go and stop reading, on two workers. Whatever they do, every packet is
// accounted for, a client that behaves loses nothing, and all ends when the relay is stopped.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "tests/relay/relay_world.h"

namespace ringsock::relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

void Check(bool good) {
  if (!good) std::abort();
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  bool empty() const { return left_ == 0; }
  uint8_t Byte() { return left_ == 0 ? 0 : (--left_, *data_++); }
  std::string Bytes(size_t count) {
    count = std::min(count, left_);
    std::string bytes(reinterpret_cast<const char*>(data_), count);
    data_ += count;
    left_ -= count;
    return bytes;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

class World final : public RelayTest {
 public:
  static constexpr size_t kClients = 4;
  static constexpr int kSteps = 64;

  World() {
    options_.mesh_key = KeyOf(77);
    options_.limits.max_connections_per_key = 2;
    options_.limits.max_peers_remembered = 4;
    options_.queues.max_bytes = 64 << 10;
    Start(2);
    for (size_t i = 0; i < kClients; ++i) Enter(i);
  }

  void Run(Input input) {
    for (int step = 0; step < kSteps && !input.empty(); ++step) Step(&input);
    for (TestClient* client : who_) client->SetReceiving(true);
    RunFor(seconds(1));
    TestClient& good = Join(50, 0);
    TestClient& other = Join(51, 1);
    Check(good.Send(other.key(), "still here"));
    RunFor(milliseconds(200));
    Check(other.Text() == "still here|");
    RunFor(seconds(5));  // the age of queues
    CheckSums();
    server_->Stop(seconds(1));
    RunFor(seconds(2));
    Check(stats().connections == 0 && stats().clients == 0 && stats().queued_bytes == 0);
  }

 private:
  void TestBody() override {}

  // The last of them is a server of the mesh.
  void Enter(size_t i) {
    TestClient::Config config;
    if (i == kClients - 1) config.mesh_key = KeyOf(77);
    who_[i] = &Join(static_cast<uint8_t>(1 + i / 2), static_cast<int>(i % 2), std::move(config),
                    /*wait=*/false);
    RunFor(milliseconds(20));
  }

  void Step(Input* input) {
    const uint8_t what = input->Byte();
    const size_t i = what % kClients;
    TestClient& client = *who_[i];
    switch (what / kClients % 8) {
      case 0:  // any bytes
        return client.SendRaw(input->Bytes(input->Byte())), void();
      case 1: {  // a frame of any type, maybe for somebody who is there
        std::string payload = input->Bytes(input->Byte());
        if (const uint8_t to = input->Byte(); to < kClients && payload.size() >= kKeySize) {
          payload.replace(0, kKeySize, reinterpret_cast<const char*>(who_[to]->key().bytes.data()),
                          kKeySize);
        }
        std::string frame{static_cast<char>(input->Byte() % 0x16), 0, 0, 0,
                          static_cast<char>(payload.size())};
        return client.SendRaw(frame + payload), void();
      }
      case 2:  // a burst
        for (int n = input->Byte(); n > 0 && client.ready(); --n) {
          client.Send(who_[input->Byte() % kClients]->key(), std::string(1200, 'x'));
        }
        return;
      case 3:
        return RunFor(milliseconds(input->Byte()));
      case 4:
        return client.SetReceiving(input->Byte() % 2 == 0);
      case 5:
        return client.Close();
      case 6:
        return client.Abort();
      default:
        client.Abort();
        if (next_host_ < 200) Enter(i);
    }
  }

  void CheckSums() {
    const Stats s = stats();
    const uint64_t in = s.packets_in + s.forwarded_in;
    const uint64_t out = s.packets_out + s.forwarded_out;
    const uint64_t dropped = s.dropped_unknown + s.dropped_queue_full + s.dropped_queue_age +
                             s.dropped_memory + s.dropped_gone + s.dropped_between_workers +
                             s.dropped_mesh_loop;
    Check(in == out + dropped);
    Check(s.logins == s.closed_by_client + s.closed_broken + s.closed_protocol +
                          s.closed_write_timeout + s.closed_denied + s.closed_duplicate +
                          s.closed_by_mesh + s.closed_stopping + s.clients);
  }

  TestClient* who_[kClients] = {};
};

}  // namespace
}  // namespace ringsock::relay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ringsock::relay::World().Run({data, size});
  return 0;
}
