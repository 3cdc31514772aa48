// Whatever the kernel, or somebody else's io_uring, writes into a receive buffer: views that are
// made of it must lie in it.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "io/buffer_ring.h"
#include "io/control_message.h"
#include "io/received_name.h"

namespace ringsock::io {
namespace {

void Check(bool holds) {
  if (!holds) abort();
}

bool LiesIn(std::span<const std::byte> part, std::span<const std::byte> whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

void Fuzz(std::span<std::byte> buffer) {
  ParseReceiveControl(buffer);
  ReceivedMessage message;
  if (!ParseReceivedMessage(buffer, &message)) return;
  Endpoint from;
  ReadReceivedName(message.name, &from);
  Check(LiesIn(message.name, buffer));
  Check(LiesIn(message.control, buffer));
  Check(message.control.size() <= kControlRoom);
  Check(LiesIn(message.payload, buffer));
  ParseReceiveControl(message.control);
}

}  // namespace
}  // namespace ringsock::io

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Aligned, as the rings are, and no byte longer than what was filled.
  const auto buffer = std::make_unique<std::byte[]>(size);
  if (size > 0) memcpy(buffer.get(), data, size);
  ringsock::io::Fuzz({buffer.get(), size});
  return 0;
}
