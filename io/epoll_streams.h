// Streams for the loop without io_uring: non-blocking sockets under one epoll descriptor, which the
// loop waits on beside its datagram sockets.
#ifndef RINGSOCK_IO_EPOLL_STREAMS_H_
#define RINGSOCK_IO_EPOLL_STREAMS_H_

#include <memory>
#include <vector>

#include "io/fd.h"
#include "io/stream_core.h"

namespace ringsock::io {

class EpollStreams final : public StreamCore {
 public:
  EpollStreams(const Clock* clock, uint32_t max_streams) : StreamCore(clock, max_streams) {}

  // Readable when Deliver() has something to do; -1 as long as there has been no stream.
  int fd() const { return epoll_.get(); }
  // Asks epoll without waiting and gives every stream that has something its turn. Returns the
  // number of events; 0: nothing is left.
  size_t Deliver();

 private:
  struct EpollStream final : Stream {
    Fd fd;
    uint32_t interest = 0;
    bool known = false;  // to epoll
  };

  absl::StatusOr<std::unique_ptr<Stream>> OpenConnector(const ConnectConfig& config) override;
  absl::StatusOr<std::unique_ptr<Stream>> OpenListener(const ListenConfig& config) override;
  void StartConnect(Stream& stream) override;
  void StartAccepting(Stream& listener) override;
  void UpdateReceiving(Stream& stream) override { Watch(Get(stream)); }
  void Write(Stream& stream) override;
  void SendFin(Stream& stream) override;
  uint64_t Acked(const Stream& stream) const override;
  void Release(Stream& stream, bool reset) override;
  void Refuse(Stream& unborn) override;
  void OnTimer(Stream& stream) override { Watch(Get(stream)); }

  static EpollStream& Get(Stream& stream) { return static_cast<EpollStream&>(stream); }
  absl::Status OpenEpoll();
  void Watch(EpollStream& stream);
  void SetInterest(EpollStream& stream, uint32_t interest);
  void Dispatch(EpollStream& stream, uint32_t events);
  void Accept(EpollStream& listener);
  void Read(EpollStream& stream);

  Fd epoll_;
  std::vector<std::byte> buffer_;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_EPOLL_STREAMS_H_
