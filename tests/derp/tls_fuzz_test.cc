// Fuzzes both sides of the TLS handshake and the reading of certificates. The first byte chooses
// what is done with the rest and how it is cut. Whatever comes: nobody ends a handshake with a
// stranger, no plaintext appears, and an error stays.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "derp/tls_certificate.h"
#include "derp/tls_verify.h"
#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

void Check(bool good) {
  if (!good) std::abort();
}

struct Contexts {
  Contexts() {
    const TestCertificate certificate = MakeTestCertificate({}, nullptr);
    server = NewTestServer(certificate.pem, certificate.key_pem);
    TlsClientContext::Options options;
    options.max_sessions = 0;
    client = NewTestClient(certificate.pem, options);
    options.allow_tls13 = false;
    client12 = NewTestClient(certificate.pem, options);
    roots = *TlsRoots::Load(WriteTestFile("roots.pem", certificate.pem), "");
  }
  std::unique_ptr<TlsServerContext> server;
  std::unique_ptr<TlsClientContext> client, client12;
  absl::StatusOr<TlsRoots> roots = absl::UnknownError("");
};

const Contexts& Shared() {
  static const Contexts& contexts = *new Contexts;
  return contexts;
}

void CheckUntouched(const TlsEnd& end) {
  Check(!end.session->handshake_done() && end.received.empty() && end.handshakes == 0);
  if (!end.status.ok()) Check(end.session->Receive({}) == end.status);
}

// The bytes instead of the other side.
void Feed(std::span<const uint8_t> bytes, bool to_client, bool tls12, size_t chunk) {
  TlsPair pair((tls12 ? Shared().client12 : Shared().client).get(), Shared().server.get(),
               TargetNamed("relay.test"));
  TlsEnd source;
  source.Write(std::as_bytes(bytes));
  if (to_client) {
    Check(pair.client.session->Start().ok());
    pair.client.TakeFrom(&source, chunk);
    CheckUntouched(pair.client);
  } else {
    pair.server.TakeFrom(&source, chunk);
    CheckUntouched(pair.server);
  }
}

// A true handshake, some bytes of which are changed: pairs of a place and what is added there.
void Spoil(std::span<const uint8_t> bytes, bool in_client_hello, bool tls12) {
  TlsPair pair((tls12 ? Shared().client12 : Shared().client).get(), Shared().server.get(),
               TargetNamed("relay.test"));
  Check(pair.client.session->Start().ok());
  if (!in_client_hello) pair.server.TakeFrom(&pair.client);
  std::vector<std::byte>& flight = in_client_hello ? pair.client.written : pair.server.written;
  const std::vector<std::byte> before = flight;
  for (size_t i = 0; i + 2 < bytes.size(); i += 3) {
    const size_t at = (size_t{bytes[i]} << 8 | bytes[i + 1]) % flight.size();
    flight[at] ^= static_cast<std::byte>(bytes[i + 2]);
  }
  // The version in the head of a record counts for nothing.
  const bool changed = !std::equal(flight.begin() + 3, flight.end(), before.begin() + 3);
  pair.Pump();
  Check(pair.client.received.empty() && pair.server.received.empty());
  if (changed && in_client_hello) Check(!pair.done());
}

// The bytes as the leaf, or as what follows one.
void Verify(std::span<const uint8_t> bytes, bool insecure, bool as_second) {
  const bssl::UniquePtr<STACK_OF(CRYPTO_BUFFER)> chain(sk_CRYPTO_BUFFER_new_null());
  static const std::string& leaf = *new std::string(MakeTestCertificate({}, nullptr).pem);
  if (as_second) bssl::PushToStack(chain.get(), std::move(ReadPemChain(leaf)->front()));
  bssl::PushToStack(chain.get(),
                    TlsCertificate(CRYPTO_BUFFER_new(bytes.data(), bytes.size(), nullptr)));
  TlsTarget target = TargetNamed("relay.test");
  target.insecure = insecure;
  const TlsVerdict verdict = VerifyTlsChain(chain.get(), target, *Shared().roots, kTestTime);
  Check(verdict.status.ok() == insecure);
  target.pin.emplace().fill(7);
  Check(VerifyTlsChain(chain.get(), target, *Shared().roots, kTestTime).status.ok() == insecure);
  if (const auto x509 = ParseCertificate(sk_CRYPTO_BUFFER_value(chain.get(), 0))) {
    Check(SubjectText(x509.get()).size() < 2000 && NamesText(x509.get()).size() < 20000);
    UnixTimeText(NotAfter(x509.get()));
  }
}

}  // namespace
}  // namespace ringsock::derp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringsock::derp;
  if (size == 0) return 0;
  const std::span<const uint8_t> rest(data + 1, size - 1);
  const bool a = (data[0] & 4) != 0;
  const bool b = (data[0] & 8) != 0;
  const size_t chunk = (data[0] & 0xf0) == 0 ? std::numeric_limits<size_t>::max() : data[0] >> 4;
  switch (data[0] % 4) {
    case 0:
    case 1:
      Feed(rest, data[0] % 4 == 0, a, chunk);
      break;
    case 2:
      Spoil(rest, a, b);
      break;
    default:
      Verify(rest, a, b);
      break;
  }
  return 0;
}
