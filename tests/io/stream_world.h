// What the stream suites share: two loops of a world, handlers that check what they get, and a
// place that never answers.
#ifndef RINGSOCK_TESTS_IO_STREAM_WORLD_H_
#define RINGSOCK_TESTS_IO_STREAM_WORLD_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "io/loop.h"
#include "io/stream.h"
#include "tests/io/loop_world.h"

namespace ringsock::io {

// The byte at a position of a long stream: any shift, loss or repetition shows.
inline std::byte ByteAt(uint64_t position) {
  return static_cast<std::byte>((position * 0x9e3779b97f4a7c15u) >> 56);
}
inline std::vector<std::byte> BytesAt(uint64_t position, size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = ByteAt(position + i);
  return bytes;
}

// One end of a stream. Checks that what comes is the pattern of ByteAt().
class StreamEnd : public StreamHandler {
 public:
  void OnConnect(StreamId id) override {
    ++connects;
    if (on_connect) on_connect(id);
  }
  void OnReceive(StreamId id, std::span<std::byte> bytes) override {
    EXPECT_FALSE(closed || ends > 0) << "bytes after the end";
    for (size_t i = 0; check && i < bytes.size() && in_order; ++i) {
      in_order = bytes[i] == ByteAt(received + i);
      bytes[i] = std::byte{0xdb};  // views may be written to
    }
    received += bytes.size();
    if (on_receive) on_receive(id, bytes);
  }
  void OnWritable(StreamId id) override {
    ++writables;
    if (on_writable) on_writable(id);
  }
  void OnEnd(StreamId id) override {
    EXPECT_FALSE(closed);
    ++ends;
    if (on_end) on_end(id);
  }
  void OnClose(StreamId id, const absl::Status& status) override {
    EXPECT_FALSE(closed) << "closed twice";
    closed = true;
    why = status;
    if (on_close) on_close(id);
  }

  // Sends the next `size` bytes of the pattern, as far as they are taken.
  size_t SendNext(size_t size) {
    const size_t taken = loop->Send(id, BytesAt(sent, size));
    sent += taken;
    return taken;
  }

  StreamLoop* loop = nullptr;
  StreamId id = kNoStream;
  uint64_t sent = 0;
  uint64_t received = 0;
  bool in_order = true;
  bool check = true;  // off: bytes are compared by on_receive
  int connects = 0;
  int writables = 0;
  int ends = 0;
  bool closed = false;
  absl::Status why;
  std::function<void(StreamId, std::span<std::byte>)> on_receive;
  std::function<void(StreamId)> on_connect, on_writable, on_end, on_close;
};

// A listener that makes an end for every stream.
class Acceptor : public ListenHandler {
 public:
  StreamHandler* OnAccept(StreamId, StreamId stream, const Endpoint& from) override {
    froms.push_back(from);
    if (refuse) return nullptr;
    auto end = std::make_unique<StreamEnd>();
    end->loop = loop;
    end->id = stream;
    if (on_accept) on_accept(end.get());
    return ends.emplace_back(std::move(end)).get();
  }

  StreamLoop* loop = nullptr;
  StreamId id = kNoStream;
  bool refuse = false;
  std::vector<std::unique_ptr<StreamEnd>> ends;
  std::vector<Endpoint> froms;
  std::function<void(StreamEnd*)> on_accept;
};

// Loop 0 connects, loop 1 listens.
class StreamTest : public testing::TestWithParam<WorldParam> {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNotHere(GetParam()); !why.empty()) GTEST_SKIP() << why;
    Open({});
  }
  void Open(const LoopOptions& options) {
    if (a_ != nullptr) first_ += 2;
    a_ = &world_->Add(options);
    b_ = &world_->Add(options);
    ASSERT_NE(a_->streams(), nullptr);
  }

  // Of loop `index`, 0 or 1.
  IpAddress Address(size_t index) const { return world_->Address(first_ + index, GetParam().v4); }
  // Listens on loop 1.
  void Listen(ListenConfig config = {}) {
    config.bind = {Address(1), 0, 0};
    acceptor_.loop = b_->streams();
    const auto id = b_->streams()->Listen(config, &acceptor_);
    ASSERT_TRUE(id.ok()) << id.status();
    acceptor_.id = *id;
    at_ = b_->streams()->LocalEndpoint(*id);
    EXPECT_NE(at_.port, 0);
  }
  std::unique_ptr<StreamEnd> Connect(ConnectConfig config = {}) {
    auto end = std::make_unique<StreamEnd>();
    if (config.to.IsNone()) config.to = at_;
    end->loop = a_->streams();
    const auto id = a_->streams()->Connect(config, end.get());
    EXPECT_TRUE(id.ok()) << id.status();
    end->id = id.value_or(kNoStream);
    return end;
  }
  // A stream that stands: the end that connected, and the one that was accepted.
  std::pair<std::unique_ptr<StreamEnd>, StreamEnd*> Pair(ConnectConfig config = {}) {
    if (acceptor_.id == kNoStream) Listen();
    const size_t before = acceptor_.ends.size();
    auto end = Connect(std::move(config));
    Until([&] { return end->connects == 1 && acceptor_.ends.size() > before; }, "connects");
    return {std::move(end), acceptor_.ends.size() > before ? acceptor_.ends.back().get() : nullptr};
  }

  bool Until(const std::function<bool()>& predicate, const char* what) {
    // In simulation a turn costs next to nothing, so the guard counts both turns and time.
    const Instant end = SystemClock().Now() + std::chrono::seconds(40);
    for (uint64_t turns = 0; turns < 1000 || SystemClock().Now() < end; ++turns) {
      if (predicate()) return true;
      world_->Turn();
    }
    ADD_FAILURE() << "never happened: " << what;
    return false;
  }
  void Settle() {
    for (int i = 0; i < 50; ++i) world_->Turn();
  }

  const std::unique_ptr<World> world_ = GetParam().factory.make();
  size_t first_ = 0;  // of the world's loops
  Loop* a_ = nullptr;
  Loop* b_ = nullptr;
  Acceptor acceptor_;
  Endpoint at_;
};

// What only loops on a kernel do: sleep, run out of descriptors, keep memory small.
class RealStreamTest : public StreamTest {};

}  // namespace ringsock::io

#endif  // RINGSOCK_TESTS_IO_STREAM_WORLD_H_
