#include "derp/box.h"

#include <sodium.h>

#include <cstring>

namespace ringsock::derp {
namespace {

static_assert(kBoxNonceSize == crypto_box_NONCEBYTES);
static_assert(kBoxOverhead == crypto_box_MACBYTES);
static_assert(kKeySize == crypto_box_PUBLICKEYBYTES && kKeySize == crypto_box_SECRETKEYBYTES);

const uint8_t* Data(std::span<const std::byte> bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}
uint8_t* Data(std::span<std::byte> bytes) { return reinterpret_cast<uint8_t*>(bytes.data()); }

}  // namespace

absl::StatusOr<BoxKey> BoxKey::Agree(const PrivateKey& ours, const PublicKey& theirs) {
  static_assert(sizeof(BoxKey::bytes_) == crypto_box_BEFORENMBYTES);
  // Chooses the implementations that suit this processor; later calls are cheap and harmless.
  static const int ready = sodium_init();
  if (ready < 0) return absl::InternalError("libsodium does not start");
  BoxKey key;
  if (crypto_box_beforenm(key.bytes_.data(), theirs.bytes.data(), ours.bytes().data()) != 0) {
    return absl::InvalidArgumentError("public key of low order");
  }
  return key;
}

BoxKey::BoxKey(BoxKey&& other) noexcept : bytes_(other.bytes_) {
  sodium_memzero(other.bytes_.data(), other.bytes_.size());
}

BoxKey& BoxKey::operator=(BoxKey&& other) noexcept {
  if (this == &other) return *this;
  bytes_ = other.bytes_;
  sodium_memzero(other.bytes_.data(), other.bytes_.size());
  return *this;
}

BoxKey::~BoxKey() { sodium_memzero(bytes_.data(), bytes_.size()); }

void BoxKey::Seal(const BoxNonce& nonce, std::span<const std::byte> plain,
                  std::span<std::byte> out) const {
  // Cannot fail: its only error is a message longer than 2^64 bytes.
  (void)crypto_box_easy_afternm(Data(out), Data(plain), plain.size(),
                                Data(std::span<const std::byte>(nonce)), bytes_.data());
}

bool BoxKey::Open(const BoxNonce& nonce, std::span<const std::byte> box,
                  std::span<std::byte> out) const {
  if (box.size() < kBoxOverhead || out.size() < box.size() - kBoxOverhead) return false;
  return crypto_box_open_easy_afternm(Data(out), Data(box), box.size(),
                                      Data(std::span<const std::byte>(nonce)), bytes_.data()) == 0;
}

std::vector<std::byte> BoxKey::SealWithNonce(std::span<const std::byte> plain,
                                             Random& random) const {
  BoxNonce nonce;
  random.Fill(nonce);
  std::vector<std::byte> sealed(kBoxNonceSize + kBoxOverhead + plain.size());
  std::memcpy(sealed.data(), nonce.data(), nonce.size());
  Seal(nonce, plain, std::span(sealed).subspan(kBoxNonceSize));
  return sealed;
}

absl::StatusOr<std::vector<std::byte>> BoxKey::OpenWithNonce(
    std::span<const std::byte> sealed) const {
  if (sealed.size() < kBoxNonceSize + kBoxOverhead) {
    return absl::InvalidArgumentError("box too short");
  }
  BoxNonce nonce;
  std::memcpy(nonce.data(), sealed.data(), nonce.size());
  const std::span<const std::byte> box = sealed.subspan(kBoxNonceSize);
  std::vector<std::byte> plain(box.size() - kBoxOverhead);
  if (!Open(nonce, box, plain)) {
    return absl::InvalidArgumentError("box does not open: made for another key, or changed");
  }
  return plain;
}

}  // namespace ringsock::derp
