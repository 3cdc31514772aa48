// Any packet: no read past its end, and what is accepted can be written again and read as the same.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "stun/message.h"

namespace {

using ringsock::stun::BindingResponse;
using ringsock::stun::Dialect;
using ringsock::stun::ParseResult;
using ringsock::stun::TransactionId;

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckRequest(std::span<const std::byte> packet) {
  TransactionId reference_id{}, rfc_id{}, again{};
  const ParseResult reference = ParseBindingRequest(packet, Dialect::kReference, &reference_id);
  const ParseResult rfc = ParseBindingRequest(packet, Dialect::kRfc, &rfc_id);
  if (rfc != ParseResult::kOk) Require(reference == rfc);
  if (reference != ParseResult::kOk) return;
  Require(rfc == ParseResult::kOk && rfc_id == reference_id);
  const auto written = ringsock::stun::EncodeBindingRequest(reference_id);
  Require(ParseBindingRequest(written, Dialect::kReference, &again) == ParseResult::kOk);
  Require(again == reference_id);
}

void CheckResponse(std::span<const std::byte> packet) {
  BindingResponse response, again;
  if (ParseBindingResponse(packet, &response) != ParseResult::kOk) {
    Require(response == BindingResponse{});
    return;
  }
  if (response.error_code != 0) {
    Require(response.error_code >= 300 && response.error_code <= 699);
    return;
  }
  Require(response.mapped.port != 0 && !response.mapped.ip.IsUnspecified());
  std::array<std::byte, ringsock::stun::kResponseSizeV6> written;
  const size_t size = ringsock::stun::EncodeBindingResponse(response.id, response.mapped, written);
  Require(ParseBindingResponse(std::span(written).first(size), &again) == ParseResult::kOk);
  Require(again == response);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> packet = std::as_bytes(std::span(data, size));
  CheckRequest(packet);
  CheckResponse(packet);
  return 0;
}
