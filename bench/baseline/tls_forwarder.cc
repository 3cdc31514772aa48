// The floor for any relay in user space over TLS.
#include "bench/baseline/tls_forwarder.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "io/fd.h"

namespace ringsock::bench {
namespace {

constexpr size_t kReadSize = 256 << 10;
// Waiting for one receiver; over it, who sends to it is not read.
constexpr size_t kMaxQueued = 1 << 20;

struct Client {
  io::Fd fd;
  bssl::UniquePtr<SSL> ssl;
  std::span<const uint8_t> in;  // ciphertext that was read and not yet taken by `ssl`
  std::vector<uint8_t> out;     // ciphertext
  size_t out_sent = 0;
  std::vector<uint8_t> plain;  // gathered for it from one turn of a sender with many receivers
  bool greeted = false;
  bool paused = false;
  bool wants_out = false;
  bool queued = false;  // in Forwarder::dirty_
  ForwarderHello hello;
  uint64_t chunk_at = 0;         // bytes said so far
  std::vector<Client*> blocked;  // senders that wait for room here

  size_t waiting() const { return out.size() - out_sent; }
};

// ---- BoringSSL between memory and memory: its own reads of a socket are two for a record ----

int BioRead(BIO* bio, char* data, int size) {
  auto* client = static_cast<Client*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (client->in.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t n = std::min(client->in.size(), static_cast<size_t>(size));
  std::memcpy(data, client->in.data(), n);
  client->in = client->in.subspan(n);
  return static_cast<int>(n);
}

int BioWrite(BIO* bio, const char* data, int size) {
  auto* client = static_cast<Client*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  const auto* bytes = reinterpret_cast<const uint8_t*>(data);
  client->out.insert(client->out.end(), bytes, bytes + size);
  return size;
}

long BioControl(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

BIO_METHOD* MemoryMethod() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index(), "memory");
    BIO_meth_set_read(made, &BioRead);
    BIO_meth_set_write(made, &BioWrite);
    BIO_meth_set_ctrl(made, &BioControl);
    return made;
  }();
  return method;
}

bool UseSelfSignedCertificate(SSL_CTX* context) {
  const bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
  const bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  const bssl::UniquePtr<X509> certificate(X509_new());
  if (EC_KEY_generate_key(ec.get()) != 1 || EVP_PKEY_set1_EC_KEY(key.get(), ec.get()) != 1) {
    return false;
  }
  X509* const x = certificate.get();
  X509_NAME* const name = X509_get_subject_name(x);
  static constexpr char kName[] = "localhost";
  return X509_set_version(x, X509_VERSION_3) == 1 &&
         ASN1_INTEGER_set(X509_get_serialNumber(x), 1) == 1 &&
         X509_gmtime_adj(X509_get_notBefore(x), -3600) != nullptr &&
         X509_gmtime_adj(X509_get_notAfter(x), 30 * 86400) != nullptr &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                    reinterpret_cast<const uint8_t*>(kName), -1, -1, 0) == 1 &&
         X509_set_issuer_name(x, name) == 1 && X509_set_pubkey(x, key.get()) == 1 &&
         X509_sign(x, key.get(), EVP_sha256()) > 0 && SSL_CTX_use_certificate(context, x) == 1 &&
         SSL_CTX_use_PrivateKey(context, key.get()) == 1;
}

class Forwarder {
 public:
  Forwarder(int listener, int stop)
      : listener_(listener), stop_(stop), clients_(kMaxForwarderClients), buffer_(kReadSize) {}

  absl::Status Run();

 private:
  absl::Status Open();
  void Watch(int fd, uint32_t events, void* whose, int operation);
  void UpdateWatch(Client& client);
  void Accept();
  void Drop(Client& client);
  void OnReadable(Client& client);
  void Take(Client& client);
  bool Greet(Client& client, std::span<const uint8_t> plain);
  void Forward(Client& client, std::span<const uint8_t> plain);
  void Spread(Client& client, std::span<const uint8_t> plain);
  void Say(Client& to, std::span<const uint8_t> plain);
  void MarkDirty(Client& client);
  void FlushAll();
  void Flush(Client& client);
  void PauseIfFull(Client& sender, Client& receiver);
  void Resume(Client& receiver);

  const int listener_;
  const int stop_;
  io::Fd epoll_;
  bssl::UniquePtr<SSL_CTX> context_;
  std::vector<Client*> clients_;  // by index
  std::vector<std::unique_ptr<Client>> all_;
  std::vector<uint8_t> buffer_;
  std::vector<Client*> dirty_;
  std::array<uint8_t, SSL3_RT_MAX_PLAIN_LENGTH> plain_{};
};

absl::Status Forwarder::Open() {
  context_.reset(SSL_CTX_new(TLS_server_method()));
  SSL_CTX_set_min_proto_version(context_.get(), TLS1_3_VERSION);
  SSL_CTX_set_mode(context_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE);
  if (!UseSelfSignedCertificate(context_.get())) {
    return absl::InternalError("cannot make a certificate");
  }
  epoll_ = io::Fd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return absl::ResourceExhaustedError("epoll_create1");
  fcntl(listener_, F_SETFL, fcntl(listener_, F_GETFL) | O_NONBLOCK);
  Watch(listener_, EPOLLIN, &all_, EPOLL_CTL_ADD);
  Watch(stop_, EPOLLIN, nullptr, EPOLL_CTL_ADD);
  return absl::OkStatus();
}

void Forwarder::Watch(int fd, uint32_t events, void* whose, int operation) {
  epoll_event event = {.events = events, .data = {.ptr = whose}};
  epoll_ctl(epoll_.get(), operation, fd, &event);
}

void Forwarder::UpdateWatch(Client& client) {
  const uint32_t events =
      (client.paused ? 0u : uint32_t{EPOLLIN}) | (client.wants_out ? uint32_t{EPOLLOUT} : 0u);
  Watch(client.fd.get(), events, &client, EPOLL_CTL_MOD);
}

absl::Status Forwarder::Run() {
  const absl::Status status = Open();
  if (!status.ok()) return status;
  std::array<epoll_event, 64> events;
  while (true) {
    const int n = epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int i = 0; i < n; ++i) {
      void* const whose = events[i].data.ptr;
      if (whose == nullptr) return absl::OkStatus();
      if (whose == &all_) {
        Accept();
        continue;
      }
      auto& client = *static_cast<Client*>(whose);
      if ((events[i].events & EPOLLOUT) != 0) Flush(client);
      if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) OnReadable(client);
    }
    FlushAll();
  }
}

void Forwarder::Accept() {
  while (true) {
    io::Fd fd(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) return;
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    auto client = std::make_unique<Client>();
    client->fd = std::move(fd);
    client->ssl.reset(SSL_new(context_.get()));
    BIO* const bio = BIO_new(MemoryMethod());
    BIO_set_data(bio, client.get());
    BIO_set_init(bio, 1);
    SSL_set_bio(client->ssl.get(), bio, bio);
    SSL_set_accept_state(client->ssl.get());
    Watch(client->fd.get(), EPOLLIN, client.get(), EPOLL_CTL_ADD);
    all_.push_back(std::move(client));
  }
}

// Others may still point to it, so its memory stays to the end.
void Forwarder::Drop(Client& client) {
  if (client.greeted) clients_[client.hello.index] = nullptr;
  client.fd.Close();
  Resume(client);
}

void Forwarder::OnReadable(Client& client) {
  if (!client.fd.valid() || client.paused) return;
  const ssize_t n = recv(client.fd.get(), buffer_.data(), buffer_.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return Drop(client);
  client.in = std::span(buffer_).first(static_cast<size_t>(n));
  Take(client);
}

void Forwarder::Take(Client& client) {
  while (true) {
    const int n = SSL_read(client.ssl.get(), plain_.data(), static_cast<int>(plain_.size()));
    if (client.waiting() > 0) MarkDirty(client);  // handshake
    if (n <= 0) {
      if (SSL_get_error(client.ssl.get(), n) != SSL_ERROR_WANT_READ) Drop(client);
      break;
    }
    const auto plain = std::span<const uint8_t>(plain_).first(static_cast<size_t>(n));
    if (client.greeted) {
      Forward(client, plain);
    } else if (!Greet(client, plain)) {
      return Drop(client);
    }
  }
  if (client.hello.destinations < 2) return;
  for (uint32_t i = 0; i < client.hello.destinations; ++i) {
    Client* const to = clients_[client.hello.first + i];
    if (to == nullptr || to->plain.empty()) continue;
    Say(*to, to->plain);
    to->plain.clear();
    PauseIfFull(client, *to);
  }
}

bool Forwarder::Greet(Client& client, std::span<const uint8_t> plain) {
  if (plain.size() != sizeof(ForwarderHello)) return false;
  ForwarderHello hello;
  std::memcpy(&hello, plain.data(), sizeof(hello));
  if (hello.index >= clients_.size() || clients_[hello.index] != nullptr ||
      hello.first >= clients_.size() || hello.destinations > clients_.size() - hello.first ||
      (hello.destinations > 1 && hello.chunk == 0)) {
    return false;
  }
  client.hello = hello;
  client.greeted = true;
  clients_[hello.index] = &client;
  Say(client, plain);
  return true;
}

void Forwarder::Forward(Client& client, std::span<const uint8_t> plain) {
  if (client.hello.destinations > 1) return Spread(client, plain);
  if (client.hello.destinations == 0 || clients_[client.hello.first] == nullptr) return;
  Client& to = *clients_[client.hello.first];
  Say(to, plain);
  PauseIfFull(client, to);
}

// Chunk after chunk to the next receiver; what one gets of a turn is put together.
void Forwarder::Spread(Client& client, std::span<const uint8_t> plain) {
  const ForwarderHello& hello = client.hello;
  while (!plain.empty()) {
    const size_t left = hello.chunk - client.chunk_at % hello.chunk;
    const size_t n = std::min(left, plain.size());
    Client* const to = clients_[hello.first + client.chunk_at / hello.chunk % hello.destinations];
    if (to != nullptr) {
      to->plain.insert(to->plain.end(), plain.begin(), plain.begin() + static_cast<ptrdiff_t>(n));
    }
    client.chunk_at += n;
    plain = plain.subspan(n);
  }
}

void Forwarder::Say(Client& to, std::span<const uint8_t> plain) {
  while (!plain.empty()) {
    const int n = SSL_write(to.ssl.get(), plain.data(), static_cast<int>(plain.size()));
    if (n <= 0) return Drop(to);
    plain = plain.subspan(static_cast<size_t>(n));
  }
  MarkDirty(to);
}

void Forwarder::MarkDirty(Client& client) {
  if (!std::exchange(client.queued, true)) dirty_.push_back(&client);
}

void Forwarder::PauseIfFull(Client& sender, Client& receiver) {
  if (receiver.waiting() < kMaxQueued || std::exchange(sender.paused, true)) return;
  receiver.blocked.push_back(&sender);
  UpdateWatch(sender);
}

void Forwarder::FlushAll() {
  for (Client* client : dirty_) {
    client->queued = false;
    Flush(*client);
  }
  dirty_.clear();
}

void Forwarder::Flush(Client& client) {
  if (!client.fd.valid()) return;
  while (client.waiting() > 0) {
    const ssize_t n =
        send(client.fd.get(), client.out.data() + client.out_sent, client.waiting(), MSG_NOSIGNAL);
    if (n < 0) break;
    client.out_sent += static_cast<size_t>(n);
  }
  if (client.waiting() == 0) {
    client.out.clear();
    client.out_sent = 0;
  } else if (client.out_sent > client.out.size() / 2) {
    client.out.erase(client.out.begin(),
                     client.out.begin() + static_cast<ptrdiff_t>(client.out_sent));
    client.out_sent = 0;
  }
  const bool wants_out = client.waiting() > 0;
  if (std::exchange(client.wants_out, wants_out) != wants_out) UpdateWatch(client);
  if (client.waiting() > kMaxQueued / 2) return;
  Resume(client);
}

void Forwarder::Resume(Client& receiver) {
  for (Client* sender : std::exchange(receiver.blocked, {})) {
    sender->paused = false;
    if (sender->fd.valid()) UpdateWatch(*sender);
  }
}

}  // namespace

absl::Status RunTlsForwarder(int listener, int stop) { return Forwarder(listener, stop).Run(); }

}  // namespace ringsock::bench
