// What the connections of a client share: BoringSSL's settings, roots of trust, and sessions to
// resume.
#ifndef RINGSOCK_DERP_TLS_CLIENT_CONTEXT_H_
#define RINGSOCK_DERP_TLS_CLIENT_CONTEXT_H_

#include <openssl/ssl.h>

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/key.h"
#include "derp/tls.h"
#include "derp/tls_verify.h"

namespace ringsock::derp {

// A session that may be resumed, and what was found when its certificate was verified: a resumed
// handshake shows none.
struct TlsResumption {
  bssl::UniquePtr<SSL_SESSION> session;
  int64_t valid_until = 0;  // Unix time: when the certificate's time is over, so is the session's
  std::optional<PublicKey> meta_key;
};

// Sessions by what they were verified for; the one not used for longest goes first.
class TlsSessionCache {
 public:
  explicit TlsSessionCache(size_t capacity) : capacity_(capacity) {}

  void Put(const std::string& key, TlsResumption resumption);
  // Takes it out: a ticket is used once (RFC 8446, C.4), and one that a server chokes on is not
  // offered again.
  std::optional<TlsResumption> Take(const std::string& key, int64_t unix_time);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::string key;
    TlsResumption resumption;
  };
  using Entries = std::list<Entry>;

  const size_t capacity_;
  Entries entries_;  // newest first
  std::unordered_map<std::string_view, Entries::iterator> by_key_;
};

class TlsClientContextImpl final : public TlsClientContext {
 public:
  TlsClientContextImpl(const Options& options, TlsRoots roots);
  absl::Status Init();

  SSL_CTX* ssl_ctx() const { return ssl_ctx_.get(); }
  const TlsRoots& roots() const { return roots_; }
  TlsSessionCache* cache() { return &cache_; }
  int64_t UnixTime() const;

 private:
  const Options options_;
  const TlsRoots roots_;
  TlsSessionCache cache_;
  bssl::UniquePtr<SSL_CTX> ssl_ctx_;
};

// What a client's connection shows the callbacks of its SSL, which know it as their app data.
struct TlsClientPeer {
  TlsClientContextImpl* context = nullptr;
  TlsTarget target;
  std::string cache_key;  // everything of the target that trust depends on
  TlsVerdict verdict;     // on the certificate; of a resumed session, what was found back then
  bool ticket_stored = false;

  void Store(bssl::UniquePtr<SSL_SESSION> session);
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_DERP_TLS_CLIENT_CONTEXT_H_
