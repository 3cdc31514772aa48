// What an idle stream costs of this process's memory: a relay has tens of thousands of them.
#include <malloc.h>
#include <sys/resource.h>

#include "io/stream.h"
#include "tests/io/stream_world.h"

namespace ringsock::io {
namespace {

// For all streams at once, so that none brings memory of its own.
class Counting final : public StreamHandler, public ListenHandler {
 public:
  void OnConnect(StreamId) override { ++connects; }
  void OnReceive(StreamId, std::span<std::byte> piece) override { bytes += piece.size(); }
  void OnWritable(StreamId) override {}
  void OnEnd(StreamId) override {}
  void OnClose(StreamId, const absl::Status& why) override { ADD_FAILURE() << why; }
  StreamHandler* OnAccept(StreamId, StreamId stream, const Endpoint&) override {
    accepted.push_back(stream);
    return this;
  }
  size_t connects = 0;
  uint64_t bytes = 0;
  std::vector<StreamId> accepted;
};

size_t HeapInUse() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

TEST_P(RealStreamTest, AnIdleStreamCostsLessThanAKilobyte) {
  constexpr size_t kStreams = 1000;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4 * kStreams);
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_cur < 2 * kStreams + 100) GTEST_SKIP() << "too few descriptors allowed";
  Counting connecting, accepting;
  accepting.accepted.reserve(kStreams);
  std::vector<StreamId> ids;
  ids.reserve(kStreams);
  const auto listener =
      b_->streams()->Listen({.bind = {world_->Address(1, GetParam().v4), 0, 0}}, &accepting);
  ASSERT_TRUE(listener.ok());
  const Endpoint at = b_->streams()->LocalEndpoint(*listener);
  const std::vector<std::byte> piece(5000);
  // Every stream has sent both ways before it is idle.
  const auto use = [&](StreamId connected, StreamId accepted) {
    const uint64_t before = connecting.bytes + accepting.bytes;
    a_->streams()->Send(connected, piece);
    b_->streams()->Send(accepted, piece);
    const uint64_t all = before + 2 * piece.size();
    Until([&] { return connecting.bytes + accepting.bytes == all; }, "arrives");
  };
  const auto open = [&] {
    const auto id = a_->streams()->Connect({.to = at}, &connecting);
    ASSERT_TRUE(id.ok()) << id.status();
    ids.push_back(*id);
    ASSERT_TRUE(Until(
        [&] {
          return connecting.connects == ids.size() && accepting.accepted.size() == ids.size();
        },
        "connects"));
    use(ids.back(), accepting.accepted.back());
  };
  for (int i = 0; i < 8; ++i) open();  // what loops make once
  const size_t before = HeapInUse();
  while (ids.size() < kStreams && !HasFailure()) open();
  const size_t each = (HeapInUse() - before) / (2 * (kStreams - 8));
  RecordProperty("bytes_per_idle_stream", static_cast<int>(each));
  printf("%s: %zu bytes per idle stream\n", GetParam().factory.name.c_str(), each);
  EXPECT_LT(each, 1024u);
}

INSTANTIATE_TEST_SUITE_P(All, RealStreamTest, testing::ValuesIn(RealWorldsAndFamilies()),
                         ParamName);

}  // namespace
}  // namespace ringsock::io
