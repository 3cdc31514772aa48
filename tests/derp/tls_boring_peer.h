// The other side of a connection by BoringSSL alone, records and all, in either role.
#ifndef RINGSOCK_TESTS_DERP_TLS_BORING_PEER_H_
#define RINGSOCK_TESTS_DERP_TLS_BORING_PEER_H_

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {

// What servers with this certificate share, tickets too.
inline bssl::UniquePtr<SSL_CTX> NewBoringServer(const TestCertificate& certificate) {
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_method()));
  const auto bio = [](const std::string& pem) {
    return bssl::UniquePtr<BIO>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  };
  const bssl::UniquePtr<X509> x509(
      PEM_read_bio_X509(bio(certificate.pem).get(), nullptr, nullptr, nullptr));
  const bssl::UniquePtr<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(bio(certificate.key_pem).get(), nullptr, nullptr, nullptr));
  if (!SSL_CTX_use_certificate(ctx.get(), x509.get()) ||
      !SSL_CTX_use_PrivateKey(ctx.get(), key.get())) {
    std::abort();
  }
  return ctx;
}

class BoringPeer {
 public:
  // A server of this context, or without one a client that trusts everybody.
  explicit BoringPeer(SSL_CTX* server, uint16_t version = TLS1_3_VERSION,
                      SSL_SESSION* resume = nullptr)
      : ctx_(server != nullptr ? bssl::UpRef(server)
                               : bssl::UniquePtr<SSL_CTX>(SSL_CTX_new(TLS_method()))) {
    if (server == nullptr) {
      SSL_CTX_set_session_cache_mode(ctx_.get(), SSL_SESS_CACHE_CLIENT);
      SSL_CTX_sess_set_new_cb(ctx_.get(), [](SSL* ssl, SSL_SESSION* session) {
        static_cast<BoringPeer*>(SSL_get_app_data(ssl))->tickets_.emplace_back(session);
        return 1;
      });
    }
    ssl_.reset(SSL_new(ctx_.get()));
    SSL_set_min_proto_version(ssl_.get(), version);
    SSL_set_max_proto_version(ssl_.get(), version);
    SSL_set_app_data(ssl_.get(), this);
    SSL_set_bio(ssl_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    if (server != nullptr) {
      SSL_set_accept_state(ssl_.get());
      return;
    }
    SSL_set_connect_state(ssl_.get());
    SSL_set_tlsext_host_name(ssl_.get(), "relay.test");
    if (resume != nullptr) SSL_set_session(ssl_.get(), resume);
  }

  // Moves bytes both ways until nothing moves or one side fails, `chunk` at a time to `end`.
  void Pump(TlsEnd* end, size_t chunk = SIZE_MAX) {
    for (bool moved = true; moved && end->status.ok();) {
      Take(end);
      Run();
      moved = Give(end, chunk);
    }
    Take(end);
    Run();
  }
  void Send(const std::string& text) {
    for (size_t at = 0; at < text.size();) {
      const int size = SSL_write(ssl_.get(), text.data() + at, static_cast<int>(text.size() - at));
      Check(size > 0);
      at += static_cast<size_t>(size);
    }
  }

  SSL* ssl() { return ssl_.get(); }
  const std::string& received() const { return received_; }
  const std::vector<bssl::UniquePtr<SSL_SESSION>>& tickets() const { return tickets_; }
  // Why reading came to an end: SSL_ERROR_WANT_READ if it did not.
  int error() const { return error_; }
  std::string error_text() const { return error_text_; }

 private:
  static void Check(bool good) {
    if (!good) std::abort();
  }
  void Run() {
    ERR_clear_error();
    char buffer[20000];
    int size = 0;
    while ((size = SSL_read(ssl_.get(), buffer, sizeof(buffer))) > 0) {
      received_.append(buffer, static_cast<size_t>(size));
    }
    error_ = SSL_get_error(ssl_.get(), size);
    if (error_ == SSL_ERROR_SSL) error_text_ = ERR_reason_error_string(ERR_peek_error());
    ERR_clear_error();
  }
  void Take(TlsEnd* end) {
    if (end->written.empty()) return;
    Check(BIO_write(SSL_get_rbio(ssl_.get()), end->written.data(),
                    static_cast<int>(end->written.size())) > 0);
    end->written.clear();
  }
  bool Give(TlsEnd* end, size_t chunk) {
    const uint8_t* bytes = nullptr;
    size_t size = 0;
    BIO* out = SSL_get_wbio(ssl_.get());
    Check(BIO_mem_contents(out, &bytes, &size));
    TlsEnd source;
    source.Write(std::as_bytes(std::span(bytes, size)));
    BIO_reset(out);
    if (size > 0) end->TakeFrom(&source, chunk);
    return size > 0;
  }

  bssl::UniquePtr<SSL_CTX> ctx_;
  bssl::UniquePtr<SSL> ssl_;
  std::string received_;
  std::vector<bssl::UniquePtr<SSL_SESSION>> tickets_;
  int error_ = 0;
  std::string error_text_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_TLS_BORING_PEER_H_
