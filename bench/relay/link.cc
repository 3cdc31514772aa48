// A connection of the load to what is measured.
#include "bench/relay/link.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/sha.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/clock.h"
#include "base/random.h"
#include "derp/client_session.h"

namespace ringsock::bench {
namespace {

constexpr int kPatienceSeconds = 60;
// Bytes that TCP takes before it may send them, as clients of this project have it. Else megabytes
// of each sender wait in the kernel, outside all caches, and as their windows open it is the
// relay's core that sends them, in the interrupt for its own acknowledgement.
constexpr int kNotSentLowWater = 128 << 10;

absl::Status ErrnoError(const char* what, const Endpoint& address) {
  return absl::UnavailableError(
      absl::StrCat(what, " ", address.ToString(), ": ", std::strerror(errno)));
}

// The application traffic secrets of both directions, as the handshake tells them.
struct Secrets {
  std::vector<uint8_t> client;
  std::vector<uint8_t> server;
};

void OnKeyLog(const SSL* ssl, const char* line) {
  const std::vector<std::string> words = absl::StrSplit(line, ' ');
  auto* secrets = static_cast<Secrets*>(SSL_get_ex_data(ssl, 0));
  if (secrets == nullptr || words.size() != 3) return;
  const std::string secret = absl::HexStringToBytes(words[2]);
  if (words[0] == "CLIENT_TRAFFIC_SECRET_0") secrets->client.assign(secret.begin(), secret.end());
  if (words[0] == "SERVER_TRAFFIC_SECRET_0") secrets->server.assign(secret.begin(), secret.end());
}

// Trust is decided after the handshake, by the pin.
ssl_verify_result_t AcceptAny(SSL*, uint8_t*) { return ssl_verify_ok; }

SSL_CTX* ClientContext() {
  static SSL_CTX* const context = [] {
    SSL_CTX* made = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(made, TLS1_3_VERSION);
    SSL_CTX_set_custom_verify(made, SSL_VERIFY_PEER, &AcceptAny);
    SSL_CTX_set_keylog_callback(made, &OnKeyLog);
    // Index 0 carries the secrets; others than this context's connections have none.
    SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
    return made;
  }();
  return context;
}

bool MatchesPin(const SSL* ssl, const std::array<uint8_t, 32>& pin) {
  const STACK_OF(CRYPTO_BUFFER)* chain = SSL_get0_peer_certificates(ssl);
  if (chain == nullptr || sk_CRYPTO_BUFFER_num(chain) == 0) return false;
  const CRYPTO_BUFFER* leaf = sk_CRYPTO_BUFFER_value(chain, 0);
  std::array<uint8_t, 32> digest;
  SHA256(CRYPTO_BUFFER_data(leaf), CRYPTO_BUFFER_len(leaf), digest.data());
  return digest == pin;
}

// Nothing of the login is of interest but that it is over.
class IgnoreEvents final : public derp::ClientEvents {
 public:
  void OnReady(const derp::ServerInfo&) override {}
  void OnPacket(const PublicKey&, derp::Bytes) override {}
  void OnPeerGone(const PublicKey&, derp::PeerGoneReason) override {}
  void OnHealth(absl::string_view) override {}
  void OnRestarting(const derp::RestartingFrame&) override {}
  void OnPong(const derp::PingData&) override {}
  void OnPeerPresent(const derp::PeerPresentFrame&) override {}
};

}  // namespace

absl::StatusOr<std::array<uint8_t, 32>> ParsePin(absl::string_view text) {
  absl::string_view hex = text;
  std::array<uint8_t, 32> pin;
  if (!absl::ConsumePrefix(&hex, "sha256-raw:") || hex.size() != 2 * pin.size() ||
      !std::all_of(hex.begin(), hex.end(), absl::ascii_isxdigit)) {
    return absl::InvalidArgumentError(
        absl::StrCat(text, ": must be sha256-raw: and 64 hex digits"));
  }
  const std::string bytes = absl::HexStringToBytes(hex);
  std::copy(bytes.begin(), bytes.end(), pin.begin());
  return pin;
}

absl::StatusOr<std::unique_ptr<Link>> Link::Open(const LinkTarget& target, int receive_buffer) {
  auto link = std::unique_ptr<Link>(new Link());
  absl::Status status = link->Connect(target, receive_buffer);
  if (status.ok() && target.tls) status = link->Handshake(target);
  if (!status.ok()) return status;
  return link;
}

absl::Status Link::Connect(const LinkTarget& target, int receive_buffer) {
  sockaddr_storage address = {};
  const socklen_t length = target.address.ToSockaddr(&address);
  fd_ = io::Fd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd_.get() < 0) return ErrnoError("socket for", target.address);
  const timeval patience = {.tv_sec = kPatienceSeconds, .tv_usec = 0};
  const int on = 1;
  setsockopt(fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kNotSentLowWater, sizeof(kNotSentLowWater));
  if (receive_buffer > 0) {
    setsockopt(fd(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  }
  // A call with a time limit is not restarted in a process that was stopped and goes on.
  int failed = 0;
  do {
    failed = connect(fd(), reinterpret_cast<const sockaddr*>(&address), length);
  } while (failed != 0 && errno == EINTR);
  if (failed != 0) return ErrnoError("connect to", target.address);
  return absl::OkStatus();
}

absl::Status Link::Handshake(const LinkTarget& target) {
  Secrets secrets;
  const bssl::UniquePtr<SSL> ssl(SSL_new(ClientContext()));
  SSL_set_ex_data(ssl.get(), 0, &secrets);
  SSL_set_tlsext_host_name(ssl.get(), target.host.c_str());
  SSL_set_fd(ssl.get(), fd());
  int result = 0;
  int error = SSL_ERROR_NONE;
  do {
    result = SSL_connect(ssl.get());
    error = SSL_get_error(ssl.get(), result);
  } while ((error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) && errno == EINTR);
  if (result != 1) {
    return absl::UnavailableError(absl::StrCat(
        "TLS with ", target.address.ToString(), ": ", SSL_error_description(error), " ",
        error == SSL_ERROR_SYSCALL ? std::strerror(errno)
                                   : ERR_reason_error_string(ERR_get_error())));
  }
  if (target.pin && !MatchesPin(ssl.get(), *target.pin)) {
    return absl::PermissionDeniedError(
        absl::StrCat("TLS with ", target.address.ToString(), ": not the pinned certificate"));
  }
  // The suite's number is the low half of its id.
  const auto suite = static_cast<uint16_t>(SSL_CIPHER_get_id(SSL_get_current_cipher(ssl.get())));
  auto sealer = RecordCipher::Create(suite, secrets.client);
  auto opener = RecordCipher::Create(suite, secrets.server);
  if (!sealer.ok()) return sealer.status();
  if (!opener.ok()) return opener.status();
  // BoringSSL reads a record at a time, so nothing of what follows is lost with `ssl`.
  if (SSL_has_pending(ssl.get()) != 0) return absl::InternalError("TLS: read too far");
  for (uint64_t i = 0; i < SSL_get_read_sequence(ssl.get()); ++i) opener->Skip();
  for (uint64_t i = 0; i < SSL_get_write_sequence(ssl.get()); ++i) sealer->Skip();
  sealer_ = *std::move(sealer);
  opener_ = *std::move(opener);
  // What closes the descriptor is the link.
  SSL_set_quiet_shutdown(ssl.get(), 1);
  return absl::OkStatus();
}

absl::Status Link::ReadAll(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n = recv(fd(), out.data(), out.size(), 0);
    if (n == 0) return absl::UnavailableError("the other side closed the connection");
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::UnavailableError(absl::StrCat("receive: ", std::strerror(errno)));
    out = out.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status Link::Send(std::span<const std::byte> plaintext) {
  std::vector<std::byte> out(plaintext.begin(), plaintext.end());
  if (sealer_) {
    out.resize(plaintext.size() + kRecordOverhead);
    out.resize(sealer_->Seal(plaintext, out.data()));
  }
  for (size_t at = 0; at < out.size();) {
    const ssize_t n = send(fd(), out.data() + at, out.size() - at, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return absl::UnavailableError(absl::StrCat("send: ", std::strerror(errno)));
    at += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::byte>> Link::Receive() {
  std::vector<std::byte> record(kRecordHeader);
  if (!opener_) {
    // A byte at a time would do; the login is short.
    record.resize(1);
    const absl::Status status = ReadAll(record);
    if (!status.ok()) return status;
    return record;
  }
  absl::Status status = ReadAll(record);
  if (!status.ok()) return status;
  const size_t body = RecordBody(record);
  record.resize(kRecordHeader + body);
  status = ReadAll(std::span(record).subspan(kRecordHeader));
  if (!status.ok()) return status;
  const RecordCipher::Opened opened = opener_->Open(record);
  if (!opened.ok) return absl::DataLossError("a TLS record that does not open");
  if (opened.type == kApplicationData) {
    return std::vector<std::byte>(opened.plaintext.begin(), opened.plaintext.end());
  }
  if (opened.type == 21) return absl::UnavailableError("TLS alert from the other side");
  return std::vector<std::byte>();
}

absl::Status Link::Login(const LinkTarget& target, const PrivateKey& key) {
  IgnoreEvents events;
  derp::ClientSessionOptions options;
  options.http.host = absl::StrCat(target.host, ":", target.address.port);
  derp::ClientSession session(std::move(options), &key, &SystemRandom(), &events);
  const Clock& clock = SystemClock();
  const Instant deadline = clock.Now() + std::chrono::seconds(kPatienceSeconds);
  absl::Status status = session.Start(clock.Now(), deadline, nullptr);
  while (status.ok()) {
    if (!session.output().empty()) {
      status = Send(session.output());
      if (!status.ok()) break;
      session.ConsumeOutput(session.output().size());
    }
    if (session.ready()) return absl::OkStatus();
    auto bytes = Receive();
    if (!bytes.ok()) return bytes.status();
    status = session.Receive(*bytes, clock.Now());
  }
  return status;
}

absl::Status Link::MakeNonBlocking() {
  const int flags = fcntl(fd(), F_GETFL);
  if (flags < 0 || fcntl(fd(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return absl::InternalError(absl::StrCat("O_NONBLOCK: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace ringsock::bench
