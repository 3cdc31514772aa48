// The smallest embedder: sends every packet of a peer back to it. Shown in docs/embedding.md.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "core/engine.h"

namespace {

class Echo final : public ringsock::Handler {
 public:
  // On the shard's thread; the bytes are gone when this returns, what was sent by then is safe.
  void OnReceive(ringsock::Shard& shard, std::span<const ringsock::ReceivedTrain> trains) override {
    for (const ringsock::ReceivedTrain& train : trains) {
      if (train.peer == ringsock::PeerId::kNone) continue;
      // A gateway calls this only for what WireGuard has authenticated.
      shard.ConfirmPath(train.peer, train.from);
      shard.Send(train.peer, train.packets);
    }
  }
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "echo: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: echo PORT PEER-PUBLIC-KEY PEER-IP:PORT\n");
    return 2;
  }
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);  // before the engine's threads, which inherit it

  Echo handler;
  ringsock::EngineOptions options;
  options.port = static_cast<uint16_t>(std::atoi(argv[1]));
  const auto key = ringsock::PublicKey::Parse(argv[2]);
  if (!key.ok()) return Fail(key.status());
  const auto engine = ringsock::Engine::Start(options, &handler);
  if (!engine.ok()) return Fail(engine.status());
  const auto peer = (*engine)->CreateEndpoint(*key, argv[3]);
  if (!peer.ok()) return Fail(peer.status());

  int signal = 0;
  sigwait(&stop, &signal);
  (*engine)->Close();
  std::fprintf(stderr, "%s\n", (*engine)->Counters().ToString().c_str());
}
