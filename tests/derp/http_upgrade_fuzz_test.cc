// Fuzzes HTTP in both roles. The first byte says how the rest is cut; the outcome must not depend
// on it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "derp/http_upgrade.h"

namespace ringsock::derp {
namespace {

void Check(bool good) {
  if (!good) std::abort();
}

// Calls read(chunk) until it returns true; returns what is left of the stream then.
template <typename Read>
size_t Feed(std::vector<std::byte> stream, size_t chunk_size, const Read& read) {
  MutableBytes rest = stream;
  while (!rest.empty()) {
    MutableBytes chunk = rest.first(std::min(chunk_size, rest.size()));
    rest = rest.subspan(chunk.size());
    if (read(&chunk)) return rest.size() + chunk.size();
    Check(chunk.empty());
  }
  return 0;
}

std::string ServerOutcome(const std::vector<std::byte>& stream, size_t chunk_size) {
  HttpHeadReader reader;
  std::string outcome = "more";
  const size_t left = Feed(stream, chunk_size, [&](MutableBytes* chunk) {
    const HttpHeadReader::Result result = reader.Read(chunk);
    if (result == HttpHeadReader::Result::kNeedMore) return false;
    Check(reader.head().size() <= kMaxHttpHead);
    if (result == HttpHeadReader::Result::kTooLong) {
      outcome = "too long";
      return true;
    }
    const HttpAnswer answer = AnswerHttp(reader.head(), PublicKey{});
    // One reply, whose lines are ours: nothing of the request can start another.
    Check(answer.fast_start || answer.reply.find("\r\n\r\n") != std::string::npos);
    Check((answer.status == 101) == (answer.next == HttpAnswer::Next::kDerp));
    outcome = answer.reply + answer.ideal_node;
    return true;
  });
  return outcome == "too long" ? outcome : outcome + std::to_string(left);
}

std::string ClientOutcome(const std::vector<std::byte>& stream, size_t chunk_size) {
  UpgradeReplyReader reader;
  std::string outcome;
  const size_t left = Feed(stream, chunk_size, [&](MutableBytes* chunk) {
    const auto result = reader.Read(chunk);
    if (result.ok() && !*result) return false;
    outcome = result.ok() ? "upgraded" : std::string(result.status().message());
    for (char c : outcome) Check(c >= 0x20 && c < 0x7f);
    return true;
  });
  if (outcome.empty()) outcome = std::string(reader.OnEnd().message());
  return outcome == "upgraded" ? outcome + std::to_string(left) : outcome;
}

}  // namespace
}  // namespace ringsock::derp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringsock::derp;
  if (size == 0) return 0;
  const size_t chunk = 1 + data[0];
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const std::vector<std::byte> stream(bytes + 1, bytes + size);
  Check(ServerOutcome(stream, chunk) == ServerOutcome(stream, SIZE_MAX));
  Check(ClientOutcome(stream, chunk) == ClientOutcome(stream, SIZE_MAX));
  return 0;
}
