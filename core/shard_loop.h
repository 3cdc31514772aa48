// The loop as the embedder sees it through Shard::loop(): the shard's own, except that around each
// batch of the embedder's sockets the shard gets ready before and sends what it gathered after. So
// an embedder may call Shard::Send() from its own sockets' handlers as well.
#ifndef RINGSOCK_CORE_SHARD_LOOP_H_
#define RINGSOCK_CORE_SHARD_LOOP_H_

#include <memory>
#include <span>
#include <unordered_map>

#include "io/loop.h"

namespace ringsock {

// What has to happen around a batch. Implemented by the shard.
class BatchScope {
 public:
  virtual void BeginBatch() = 0;
  virtual void EndBatch() = 0;

 protected:
  ~BatchScope() = default;
};

// For the loop's thread, like the loop it stands for.
class ShardLoop final : public io::Loop {
 public:
  // Both outlive this.
  ShardLoop(io::Loop* loop, BatchScope* scope) : loop_(*loop), scope_(*scope) {}

  const char* name() const override { return loop_.name(); }
  const Clock& clock() const override { return loop_.clock(); }
  absl::StatusOr<io::SocketId> OpenUdp(const io::UdpConfig& config,
                                       io::UdpHandler* handler) override {
    auto guarded = std::make_unique<Guarded>(&scope_, handler);
    absl::StatusOr<io::SocketId> socket = loop_.OpenUdp(config, guarded.get());
    if (socket.ok()) handlers_[*socket] = std::move(guarded);
    return socket;
  }
  void CloseUdp(io::SocketId socket) override {
    loop_.CloseUdp(socket);
    handlers_.erase(socket);
  }
  absl::StatusOr<io::Reopened> ReopenUdp(io::SocketId socket, uint16_t port) override {
    return loop_.ReopenUdp(socket, port);
  }
  Endpoint LocalEndpoint(io::SocketId socket) const override { return loop_.LocalEndpoint(socket); }
  io::UdpStats Stats(io::SocketId socket) const override { return loop_.Stats(socket); }
  void Send(io::SocketId socket, const io::TxTrain& train) override { loop_.Send(socket, train); }
  void Flush() override { loop_.Flush(); }
  io::TxSlab* AcquireSlab() override { return loop_.AcquireSlab(); }
  void ReleaseSlab(io::TxSlab* slab) override { loop_.ReleaseSlab(slab); }
  size_t Poll(Instant deadline) override { return loop_.Poll(deadline); }
  void Wake() override { loop_.Wake(); }

  // Closes what the embedder left open.
  void CloseAll() {
    while (!handlers_.empty()) CloseUdp(handlers_.begin()->first);
  }

 private:
  class Guarded final : public io::UdpHandler {
   public:
    Guarded(BatchScope* scope, io::UdpHandler* handler) : scope_(*scope), handler_(*handler) {}
    void OnReceive(io::SocketId socket, std::span<const io::RxTrain> trains) override {
      scope_.BeginBatch();
      handler_.OnReceive(socket, trains);
      scope_.EndBatch();
    }
    void OnSendFailure(io::SocketId socket, const io::SendFailure& failure) override {
      handler_.OnSendFailure(socket, failure);
    }

   private:
    BatchScope& scope_;
    io::UdpHandler& handler_;
  };

  io::Loop& loop_;
  BatchScope& scope_;
  std::unordered_map<io::SocketId, std::unique_ptr<Guarded>> handlers_;
};

}  // namespace ringsock

#endif  // RINGSOCK_CORE_SHARD_LOOP_H_
