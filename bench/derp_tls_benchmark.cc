// What TLS costs beside its cryptography: records of 16 KiB and of one packet, written and read
// apart, against the bare AEAD on as many bytes; and whole handshakes, full and resumed. CPU time
// of this thread; one item is one record or one handshake.
#include <benchmark/benchmark.h>
#include <openssl/aead.h>
#include <time.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "derp/tls.h"
#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

// Records in a batch: enough that reading the clock does not count.
constexpr size_t kBatch = 64;

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Keeps what is written in memory that is there already, as a relay's queue does.
class Buffer final : public TlsSink {
 public:
  Buffer() : bytes_(kBatch * (kMaxTlsPlaintext + kMaxTlsOverhead)) {}
  size_t Room() const override { return bytes_.size() - size_; }
  void Write(std::span<const std::byte> ciphertext) override {
    if (ciphertext.size() > Room()) size_ = 0;
    std::memcpy(bytes_.data() + size_, ciphertext.data(), ciphertext.size());
    size_ += ciphertext.size();
  }
  std::span<std::byte> contents() { return std::span(bytes_).first(size_); }
  void Clear() { size_ = 0; }

 private:
  std::vector<std::byte> bytes_;
  size_t size_ = 0;
};

class Counter final : public TlsEvents {
 public:
  void OnHandshakeDone() override {}
  absl::Status OnPlaintext(std::span<std::byte> bytes) override {
    benchmark::DoNotOptimize(bytes.data());
    count_ += bytes.size();
    return absl::OkStatus();
  }
  size_t count() const { return count_; }

 private:
  size_t count_ = 0;
};

struct Contexts {
  explicit Contexts(bool tls13, bool resume) {
    const auto certificate =
        *MakeSelfSignedCertificate("relay.test", kTestTime - kDay, kTestTime + kDay);
    server = *TlsServerContext::Create({});
    if (!server->Load(certificate.chain_pem, certificate.key_pem).ok()) std::abort();
    TlsClientContext::Options options;
    options.roots_file = WriteTestFile("bench_roots.pem", certificate.chain_pem);
    options.allow_tls13 = tls13;
    options.max_sessions = resume ? 16 : 0;
    options.unix_time = [] { return kTestTime; };
    client = *TlsClientContext::Create(options);
    target.host_name = target.certificate_name = "relay.test";
  }
  std::unique_ptr<TlsServerContext> server;
  std::unique_ptr<TlsClientContext> client;
  TlsTarget target;
};

struct Connection {
  explicit Connection(bool tls13) : contexts(tls13, false) {
    server = *TlsSession::NewServer(contexts.server.get(), &to_client, &heard_by_server);
    client = *TlsSession::NewClient(contexts.client.get(), contexts.target, &to_server,
                                    &heard_by_client);
    bool good = client->Start().ok();
    while (good && to_server.contents().size() + to_client.contents().size() > 0) {
      good = server->Receive(to_server.contents()).ok();
      to_server.Clear();
      good = good && client->Receive(to_client.contents()).ok();
      to_client.Clear();
    }
    if (!good || !client->handshake_done() || !server->handshake_done()) std::abort();
  }
  Contexts contexts;
  Buffer to_client, to_server;
  Counter heard_by_client, heard_by_server;
  std::unique_ptr<TlsSession> client, server;
};

void SetPerRecord(benchmark::State& state) {
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBatch));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBatch) * state.range(0));
}

// Arguments: plaintext of a record, whether TLS 1.3.
void BM_Write(benchmark::State& state) {
  Connection connection(state.range(1) == 1);
  const std::vector<std::byte> plaintext(static_cast<size_t>(state.range(0)), std::byte{0x55});
  for (auto _ : state) {
    connection.to_client.Clear();
    for (size_t i = 0; i < kBatch; ++i) {
      if (connection.server->Send(plaintext) != plaintext.size()) state.SkipWithError("not sent");
    }
  }
  SetPerRecord(state);
}
BENCHMARK(BM_Write)->ArgNames({"bytes", "tls13"})->ArgsProduct({{64, 1441, 16384}, {0, 1}});

// Arguments: plaintext of a record, whether TLS 1.3, and bytes given to a Receive().
void BM_Read(benchmark::State& state) {
  Connection connection(state.range(1) == 1);
  const std::vector<std::byte> plaintext(static_cast<size_t>(state.range(0)), std::byte{0x55});
  const auto chunk = static_cast<size_t>(state.range(2));
  for (auto _ : state) {
    connection.to_client.Clear();
    for (size_t i = 0; i < kBatch; ++i) connection.server->Send(plaintext);
    const size_t before = connection.heard_by_client.count();
    const double start = CpuSeconds();
    for (auto rest = connection.to_client.contents(); !rest.empty();) {
      const auto now = rest.first(std::min(chunk, rest.size()));
      rest = rest.subspan(now.size());
      if (!connection.client->Receive(now).ok()) state.SkipWithError("does not open");
    }
    state.SetIterationTime(CpuSeconds() - start);
    if (connection.heard_by_client.count() - before != kBatch * plaintext.size()) {
      state.SkipWithError("lost bytes");
    }
  }
  SetPerRecord(state);
}
BENCHMARK(BM_Read)
    ->ArgNames({"bytes", "tls13", "chunk"})
    ->ArgsProduct({{64, 1441, 16384}, {0, 1}, {16384}})
    ->UseManualTime();

// The limit: AES-128-GCM on the same bytes, read from one place and written to another.
struct BareAead {
  BareAead() {
    static constexpr uint8_t kKey[16] = {1};
    if (!EVP_AEAD_CTX_init(&context, EVP_aead_aes_128_gcm(), kKey, sizeof(kKey), 16, nullptr)) {
      std::abort();
    }
  }
  ~BareAead() { EVP_AEAD_CTX_cleanup(&context); }
  void NextNonce() {
    ++counter;
    for (int i = 0; i < 8; ++i) nonce[11 - i] = static_cast<uint8_t>(counter >> (8 * i));
  }
  EVP_AEAD_CTX context;
  uint64_t counter = 0;
  uint8_t nonce[12] = {};
};

void BM_BareSeal(benchmark::State& state) {
  BareAead aead;
  const std::vector<uint8_t> in(static_cast<size_t>(state.range(0)), 0x55);
  std::vector<uint8_t> out(kBatch * (in.size() + 16));
  static constexpr uint8_t kHeader[5] = {23, 3, 3, 0, 0};
  for (auto _ : state) {
    for (size_t i = 0; i < kBatch; ++i) {
      aead.NextNonce();
      size_t size = 0;
      if (!EVP_AEAD_CTX_seal(&aead.context, out.data() + i * (in.size() + 16), &size,
                             in.size() + 16, aead.nonce, 12, in.data(), in.size(), kHeader,
                             sizeof(kHeader))) {
        state.SkipWithError("not sealed");
      }
    }
    benchmark::ClobberMemory();
  }
  SetPerRecord(state);
}
BENCHMARK(BM_BareSeal)->ArgName("bytes")->Arg(64)->Arg(1441)->Arg(16384);

void BM_BareOpen(benchmark::State& state) {
  BareAead sealer, opener;
  const std::vector<uint8_t> in(static_cast<size_t>(state.range(0)), 0x55);
  const size_t sealed_size = in.size() + 16;
  std::vector<uint8_t> sealed(kBatch * sealed_size), out(in.size() + 16);
  for (auto _ : state) {
    size_t size = 0;
    for (size_t i = 0; i < kBatch; ++i) {
      sealer.NextNonce();
      EVP_AEAD_CTX_seal(&sealer.context, sealed.data() + i * sealed_size, &size, sealed_size,
                        sealer.nonce, 12, in.data(), in.size(), nullptr, 0);
    }
    const double start = CpuSeconds();
    for (size_t i = 0; i < kBatch; ++i) {
      opener.NextNonce();
      if (!EVP_AEAD_CTX_open(&opener.context, out.data(), &size, out.size(), opener.nonce, 12,
                             sealed.data() + i * sealed_size, sealed_size, nullptr, 0)) {
        state.SkipWithError("not opened");
      }
    }
    state.SetIterationTime(CpuSeconds() - start);
  }
  SetPerRecord(state);
}
BENCHMARK(BM_BareOpen)->ArgName("bytes")->Arg(64)->Arg(1441)->Arg(16384)->UseManualTime();

// Both sides of a handshake. Arguments: whether TLS 1.3, whether resumed.
void BM_Handshake(benchmark::State& state) {
  const bool resume = state.range(1) == 1;
  Contexts contexts(state.range(0) == 1, resume);
  const auto connect = [&contexts] {
    TlsPair pair(contexts.client.get(), contexts.server.get(), contexts.target);
    pair.Handshake();
    pair.server.Send("tickets of TLS 1.3 go with the first bytes");
    pair.Pump();
    return pair.done() && pair.client.session->resumed();
  };
  connect();
  for (auto _ : state) {
    if (connect() != resume) state.SkipWithError("resumed or not");
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Handshake)
    ->ArgNames({"tls13", "resumed"})
    ->ArgsProduct({{0, 1}, {0, 1}})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ringsock::derp
