// The one HTTP/1.1 exchange in front of DERP, both roles, and the small pages a relay serves beside
// it. No I/O: bytes in, bytes out (RFC 9110, RFC 9112; spec: derp.md, Transport).
//
// The parser is our own: Debian's only packaged C parser has had no maintainer since 2020, and what
// DERP needs of HTTP is a head of bounded size and no body. It is strict: lines end in CRLF, no
// folding, no body on a request. Time limits are those of the sessions.
#ifndef RINGSOCK_DERP_HTTP_UPGRADE_H_
#define RINGSOCK_DERP_HTTP_UPGRADE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/key.h"
#include "derp/frame.h"

namespace ringsock::derp {

// Start line and headers together. Browsers send about 1 KiB, the reference server takes 1 MiB.
inline constexpr size_t kMaxHttpHead = 8192;
inline constexpr size_t kMaxHttpHeaders = 64;
// Of the body of a refusal, for its error message.
inline constexpr size_t kMaxHttpReason = 512;

// Collects a head from chunks of any size. Not thread safe.
class HttpHeadReader {
 public:
  enum class Result : uint8_t { kNeedMore, kDone, kTooLong };

  // Takes bytes from the front of *input up to and including the empty line; what follows it, the
  // first frames, stays in *input.
  Result Read(MutableBytes* input);
  // The head without its empty line; every line ends in CRLF. Valid until Clear().
  absl::string_view head() const { return head_; }
  void Clear() { head_ = {}; }

 private:
  std::string head_;
};

// Header fields in order, names as they came.
class HttpHeaders {
 public:
  // Parses lines that each end in CRLF. Views into `lines` are kept.
  static absl::StatusOr<HttpHeaders> Parse(absl::string_view lines);

  // The first field of that name in whatever case; empty if there is none.
  absl::string_view Get(absl::string_view name) const;
  bool Has(absl::string_view name) const;
  // How many fields have that name.
  size_t Count(absl::string_view name) const;
  // Whether a comma-separated list, over all fields of that name, has this token in whatever case.
  bool HasToken(absl::string_view name, absl::string_view token) const;

 private:
  std::vector<std::pair<absl::string_view, absl::string_view>> fields_;
};

// ---- Client ----

struct UpgradeOptions {
  std::string host{};        // of the Host header: name, or name:port where the port is not 443
  std::string user_agent{};  // none if empty
  bool fast_start = false;
  std::string ideal_node{};  // name of the region's first node, if it is not the one we talk to
};

// The request in bytes. An error if a value has characters that no header may have.
absl::StatusOr<std::string> UpgradeRequest(const UpgradeOptions& options);

// `GET /derp/latency-check`, in bytes; the relay closes the connection after its answer. `host` as
// above.
absl::StatusOr<std::string> LatencyRequest(absl::string_view host);

// Reads the reply. Not thread safe.
class UpgradeReplyReader {
 public:
  // True once the reply is 101 and DERP follows in what is left of *input; false: more is needed.
  // An error if it is another reply: it names the status and the reason in the body, which is
  // waited for as far as Content-Length promises one.
  absl::StatusOr<bool> Read(MutableBytes* input);
  // The stream ended: the error there is by then.
  absl::Status OnEnd() const;

 private:
  absl::Status ParseHead();
  absl::Status Refused() const;

  HttpHeadReader reader_;
  bool refused_ = false;
  std::string status_line_;
  size_t body_left_ = 0;
  std::string body_;
};

// ---- Server ----

struct HttpRequest {
  absl::string_view method;
  absl::string_view path;  // without query
  int minor_version = 1;   // of HTTP/1.x
  HttpHeaders headers;
};

// What to do with a request: send `reply` (which may be empty: fast start), then go on as it says.
struct HttpAnswer {
  enum class Next : uint8_t { kDerp, kClose };

  Next next = Next::kClose;
  int status = 0;  // for counters; 101 for fast start too
  std::string reply;
  bool fast_start = false;
  std::string ideal_node;  // printable; empty if the client is where it wants to be
};

// Parses a head as HttpHeadReader gives it. Views into it are kept.
absl::StatusOr<HttpRequest> ParseHttpRequest(absl::string_view head);

// The whole of a relay's HTTP: upgrade, latency checks, captive-portal challenge; 404 for others,
// 400 and 431 for what is no request. `server` goes into the reply's Derp-Public-Key.
HttpAnswer AnswerHttp(absl::string_view head, const PublicKey& server);
// For a head that was too long.
HttpAnswer AnswerHeadTooLong();

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_HTTP_UPGRADE_H_
