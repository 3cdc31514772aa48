// A STUN server (RFC 8489): tells whoever asks the address it asked from. The logic only; sockets
// and time are an io::Loop's.
#ifndef RINGSOCK_STUN_SERVER_H_
#define RINGSOCK_STUN_SERVER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "io/loop.h"
#include "stun/message.h"

namespace ringsock::stun {

// An answer is never larger than this many times its request, so that forged source addresses gain
// an attacker next to nothing. The smallest request has 20 bytes, the largest answer 44.
inline constexpr size_t kMaxAmplification = 3;
static_assert(kResponseSizeV6 <= kMaxAmplification * kHeaderSize);

// Totals since the start, in datagrams. `requests` is the sum of answered, refused,
// unanswerable and overflow.
struct ServerStats {
  uint64_t requests = 0;                          // received, whatever they were
  uint64_t answered = 0;                          // handed to the loop
  std::array<uint64_t, kParseResults> refused{};  // by reason; kOk is never counted here
  uint64_t unanswerable = 0;                      // from port 0
  uint64_t overflow = 0;     // answers given up because one batch asked for more than kAnswerMemory
  uint64_t send_failed = 0;  // answers that the kernel did not take, of those in `answered`

  uint64_t refused_total() const;
};

// Belongs to the loop's thread. Malformed datagrams get no answer and are counted. Allocates
// nothing once it is open.
class Server final : public io::UdpHandler {
 public:
  // Answers of one OnReceive(). 64 KiB are some 2,000 answers, more than a GRO buffer of real
  // requests holds.
  static constexpr size_t kAnswerMemory = 64 << 10;

  // The loop must outlive the server.
  Server(io::Loop* loop, Dialect dialect);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() override;

  // Serves one more address: [::]:3478 and 0.0.0.0:3478 for a host with both families. A socket
  // bound to the unspecified address answers from the address that was asked. Not from inside a
  // handler; the error is the loop's, with its cure.
  absl::Status Open(const Endpoint& bind);
  // The addresses served, in the order they were opened.
  std::vector<Endpoint> endpoints() const;
  const ServerStats& stats() const { return stats_; }

  void OnReceive(io::SocketId socket, std::span<const io::RxTrain> trains) override;
  void OnSendFailure(io::SocketId socket, const io::SendFailure& failure) override;

 private:
  void Answer(io::SocketId socket, const io::RxTrain& train);

  io::Loop* const loop_;
  const Dialect dialect_;
  std::vector<io::SocketId> sockets_;
  ServerStats stats_;
  // Answers wait here for the flush that follows OnReceive().
  std::unique_ptr<std::byte[]> memory_;
  size_t used_ = 0;
};

}  // namespace ringsock::stun

#endif  // RINGSOCK_STUN_SERVER_H_
