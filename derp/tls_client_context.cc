#include "derp/tls_client_context.h"

#include <ctime>
#include <utility>

#include "derp/tls_ssl.h"

namespace ringsock::derp {
namespace {

ssl_verify_result_t Verify(SSL* ssl, uint8_t* alert) {
  auto* peer = static_cast<TlsClientPeer*>(SSL_get_app_data(ssl));
  peer->verdict = VerifyTlsChain(SSL_get0_peer_certificates(ssl), peer->target,
                                 peer->context->roots(), peer->context->UnixTime());
  if (peer->verdict.status.ok()) return ssl_verify_ok;
  *alert = peer->verdict.alert;
  return ssl_verify_invalid;
}

// Takes the session over by returning 1.
int OnNewSession(SSL* ssl, SSL_SESSION* session) {
  static_cast<TlsClientPeer*>(SSL_get_app_data(ssl))->Store(bssl::UniquePtr<SSL_SESSION>(session));
  return 1;
}

}  // namespace

void TlsSessionCache::Put(const std::string& key, TlsResumption resumption) {
  if (capacity_ == 0) return;
  if (const auto found = by_key_.find(key); found != by_key_.end()) {
    const auto old = found->second;
    by_key_.erase(found);
    entries_.erase(old);
  }
  if (entries_.size() >= capacity_) {
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({key, std::move(resumption)});
  by_key_.emplace(entries_.front().key, entries_.begin());
}

std::optional<TlsResumption> TlsSessionCache::Take(const std::string& key, int64_t unix_time) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return std::nullopt;
  const auto entry = found->second;
  TlsResumption resumption = std::move(entry->resumption);
  by_key_.erase(found);
  entries_.erase(entry);
  if (unix_time >= resumption.valid_until) return std::nullopt;
  return resumption;
}

void TlsClientPeer::Store(bssl::UniquePtr<SSL_SESSION> session) {
  if (!SSL_SESSION_is_resumable(session.get())) return;
  ticket_stored = true;
  context->cache()->Put(cache_key, {std::move(session), verdict.valid_until, verdict.meta_key});
}

TlsClientContextImpl::TlsClientContextImpl(const Options& options, TlsRoots roots)
    : options_(options), roots_(std::move(roots)), cache_(options.max_sessions) {}

int64_t TlsClientContextImpl::UnixTime() const {
  return options_.unix_time != nullptr ? options_.unix_time() : std::time(nullptr);
}

absl::Status TlsClientContextImpl::Init() {
  ssl_ctx_.reset(SSL_CTX_new(TLS_with_buffers_method()));
  if (ssl_ctx_ == nullptr) return absl::ResourceExhaustedError("out of memory");
  if (absl::Status status = ConfigureTls(ssl_ctx_.get()); !status.ok()) return status;
  if (!options_.allow_tls13 && !SSL_CTX_set_max_proto_version(ssl_ctx_.get(), TLS1_2_VERSION)) {
    return absl::InternalError("TLS 1.3 cannot be switched off");
  }
  SSL_CTX_set_custom_verify(ssl_ctx_.get(), SSL_VERIFY_PEER, &Verify);
  SSL_CTX_set_session_cache_mode(ssl_ctx_.get(),
                                 SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(ssl_ctx_.get(), &OnNewSession);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TlsClientContext>> TlsClientContext::Create(const Options& options) {
  absl::StatusOr<TlsRoots> roots = TlsRoots::Load(options.roots_file, options.roots_directory);
  if (!roots.ok()) return roots.status();
  auto context = std::make_unique<TlsClientContextImpl>(options, *std::move(roots));
  if (absl::Status status = context->Init(); !status.ok()) return status;
  return context;
}

TlsTarget TlsTarget::Of(const RelayNode& node) {
  return {node.host_name, node.certificate_name(), node.certificate_pin(), node.insecure()};
}

}  // namespace ringsock::derp
