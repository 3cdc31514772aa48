// A small bounded web server on a loop's streams, for machines that ask how the relay is: one
// request a connection, GET and HEAD, pages made when they are asked for.
#ifndef RINGSOCK_RELAY_LOCAL_HTTP_H_
#define RINGSOCK_RELAY_LOCAL_HTTP_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "io/loop.h"
#include "io/stream.h"

namespace ringsock::relay {

struct LocalPage {
  int status = 404;  // 200, 404 or 503
  std::string content_type = "text/plain; charset=utf-8";
  std::string body = "not found\n";
};

// For the loop's thread. The loop outlives it.
class LocalHttp final : public io::ListenHandler {
 public:
  // A scraper or two, and somebody with curl. One more is reset.
  static constexpr uint32_t kMaxConnections = 16;
  // From the accepted connection to the last byte of the answer.
  static constexpr Duration kTimeout = std::chrono::seconds(5);

  using Pages = std::function<LocalPage(absl::string_view path)>;

  LocalHttp(io::Loop* loop, Pages pages);
  LocalHttp(const LocalHttp&) = delete;
  LocalHttp& operator=(const LocalHttp&) = delete;
  ~LocalHttp() override;

  // The error is the loop's, with its cure.
  absl::Status Listen(const Endpoint& address);
  // Where it listens, with the port that the kernel chose.
  Endpoint endpoint() const;

  // To be called between two turns of the loop: ends connections that take too long. Returns when
  // it wants to be called at the latest.
  Instant Tick(Instant now);

  io::StreamHandler* OnAccept(io::StreamId listener, io::StreamId stream,
                              const Endpoint& from) override;

 private:
  class Connection;

  void Forget(io::StreamId stream);
  std::string Answer(absl::string_view head) const;

  io::Loop* const loop_;
  const Pages pages_;
  io::StreamId listener_ = io::kNoStream;
  std::unordered_map<io::StreamId, std::unique_ptr<Connection>> connections_;
  // Handlers whose last call may not have returned yet; freed by Tick().
  std::vector<std::unique_ptr<Connection>> gone_;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_RELAY_LOCAL_HTTP_H_
