// Fuzzes what comes after a handshake. The first byte chooses how the ciphertext is cut; then come
// steps: records sealed with the right key, whatever they hold, such with a byte changed, and bytes
// that are no record. Whatever comes: data is heard as it was sent and in order, nothing of it
// after a fault, and a fault is answered by at most one alert.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <string>

#include "tests/derp/tls_records_world.h"

namespace ringsock::derp {
namespace {

void Check(bool good) {
  if (!good) std::abort();
}

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  uint8_t Byte() {
    if (bytes_.empty()) return 0;
    const uint8_t byte = bytes_[0];
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  TlsBytes Take(size_t size) {
    size = std::min(size, bytes_.size());
    const auto taken = std::as_bytes(bytes_.first(size));
    bytes_ = bytes_.subspan(size);
    return {taken.begin(), taken.end()};
  }

 private:
  std::span<const uint8_t> bytes_;
};

// The ciphertext of one step, and the data in it.
TlsBytes Step(TlsRecordsWorld* world, Input* input, TlsBytes* data, bool* is_record) {
  const uint8_t kind = input->Byte();
  switch (kind % 8) {
    case 0:
      return world->KeyUpdate((kind & 8) != 0);
    case 1: {
      TlsBytes bytes = input->Take(input->Byte());
      *is_record = bytes.empty();
      return bytes;
    }
    case 2: {  // some other kind of content
      const auto type = static_cast<TlsContent>(input->Byte());
      const TlsBytes content = input->Take(input->Byte());
      if (type == TlsContent::kApplicationData) *data = content;
      // A type of 0 is padding: the content's last byte that is none is the type then.
      if (type == TlsContent{0}) {
        const auto last = std::find_if(content.rbegin(), content.rend(),
                                       [](std::byte byte) { return byte != std::byte{0}; });
        if (last != content.rend() &&
            *last == static_cast<std::byte>(TlsContent::kApplicationData)) {
          data->assign(content.begin(), last.base() - 1);
        }
      }
      return world->Record(type, content, kind >> 4);
    }
    case 3:  // a message of the handshake, whole or a part
      return world->Record(TlsContent::kHandshake, input->Take(input->Byte()), kind >> 4);
    case 4: {
      *is_record = false;  // its length may be what is changed: what follows counts as part of it
      TlsBytes record = world->Data("not to be heard");
      record[input->Byte() % record.size()] ^= static_cast<std::byte>(1 + kind / 8);
      return record;
    }
    case 5:  // as long as it may be, or longer
      *data = TlsBytes(kMaxTlsPlaintext - 2 + kind / 8 % 4, std::byte{'l'});
      return world->Record(TlsContent::kApplicationData, *data, kind >> 5);
    default:
      *data = input->Take(input->Byte());
      return world->Record(TlsContent::kApplicationData, *data, kind >> 3);
  }
}

void Run(std::span<const uint8_t> bytes) {
  Input input(bytes);
  const uint8_t how = input.Byte();
  TlsRecordsWorld world(/*client=*/(how & 1) != 0);
  world.end.room = (how & 2) != 0 ? 0 : std::numeric_limits<size_t>::max();
  const size_t chunk = how < 16 ? std::numeric_limits<size_t>::max() : how >> 3;
  std::string expected;
  absl::Status status;
  bool in_step = true;  // no bytes came that are no record, so each record is taken as one
  while (!input.empty() && status.ok()) {
    TlsBytes data;
    bool is_record = true;
    const bool closed = world.records->closed_by_peer();
    const TlsBytes bytes_now = Step(&world, &input, &data, &is_record);
    in_step = in_step && is_record;
    status = world.Receive(bytes_now, chunk);
    if (in_step && status.ok() && !closed) {
      expected.append(reinterpret_cast<const char*>(data.data()), data.size());
    }
    Check(world.end.received == expected);
  }
  // What we write are whole records under our own keys; Take() ends the run if they are not.
  int alerts = 0;
  for (const auto& record : world.Take()) {
    if (record.type == TlsContent::kAlert) ++alerts;
  }
  Check(alerts <= 1 && (status.ok() ? alerts == 0 : true));
}

}  // namespace
}  // namespace ringsock::derp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ringsock::derp::Run({data, size});
  return 0;
}
