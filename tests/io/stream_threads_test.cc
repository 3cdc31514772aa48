// Loops with streams, each on a thread of its own, as shards and workers have them: a loop that
// sleeps wakes for streams and for Wake(), and loops share nothing.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "tests/io/stream_world.h"

namespace ringsock::io {
namespace {

constexpr size_t kStreams = 8;
constexpr uint64_t kBytes = 300'000;

class StreamThreadsTest : public testing::TestWithParam<WorldParam> {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNotHere(GetParam()); !why.empty()) GTEST_SKIP() << why;
  }
};

// Echoes until it is told to stop.
void Serve(const WorldParam& param, std::promise<std::pair<Loop*, Endpoint>>* started,
           const std::atomic<bool>* stop, std::future<void>* woken) {
  const auto world = param.factory.make();
  Loop& loop = world->Add({});
  Acceptor acceptor;
  acceptor.loop = loop.streams();
  acceptor.on_accept = [](StreamEnd* end) {
    end->on_receive = [end](StreamId, std::span<std::byte> bytes) { end->SendNext(bytes.size()); };
    end->on_end = [end](StreamId id) { end->loop->Close(id); };
  };
  const auto listener =
      loop.streams()->Listen({.bind = {world->Address(0, param.v4), 0, 0}}, &acceptor);
  EXPECT_TRUE(listener.ok()) << listener.status();
  started->set_value({&loop, loop.streams()->LocalEndpoint(*listener)});
  while (!stop->load(std::memory_order_acquire)) loop.Poll(Instant::max());
  woken->wait();  // who wakes a loop keeps it
  EXPECT_EQ(acceptor.ends.size(), 2 * kStreams);
  for (const auto& end : acceptor.ends) {
    EXPECT_EQ(end->received, kBytes);
    EXPECT_TRUE(end->in_order);
  }
}

void Ask(const WorldParam& param, const Endpoint& at) {
  const auto world = param.factory.make();
  Loop& loop = world->Add({});
  std::vector<std::unique_ptr<StreamEnd>> ends;
  size_t ended = 0;
  for (size_t i = 0; i < kStreams; ++i) {
    auto& end = ends.emplace_back(std::make_unique<StreamEnd>());
    end->loop = loop.streams();
    end->id = loop.streams()->Connect({.to = at}, end.get()).value();
    const auto more = [end = end.get()](StreamId) {
      // Not more on its way than the queue of the echo holds.
      if (end->sent < kBytes) end->SendNext(std::min<uint64_t>(10'000, kBytes - end->sent));
      if (end->received == kBytes) end->loop->Shutdown(end->id);
    };
    end->on_receive = [more, end = end.get()](StreamId id, std::span<std::byte>) {
      if (end->received == end->sent) more(id);
    };
    end->on_end = [&ended, end = end.get()](StreamId id) {
      ++ended;
      end->loop->Close(id);
    };
    more(end->id);
  }
  while (ended < kStreams) loop.Poll(Instant::max());
  for (const auto& end : ends) {
    EXPECT_EQ(end->received, kBytes);
    EXPECT_TRUE(end->in_order && !end->closed);
  }
}

TEST_P(StreamThreadsTest, EchoesBetweenLoopsOnThreads) {
  std::promise<std::pair<Loop*, Endpoint>> started;
  std::atomic<bool> stop = false;
  std::promise<void> wake_done;
  std::future<void> woken = wake_done.get_future();
  std::thread server(Serve, std::cref(GetParam()), &started, &stop, &woken);
  const auto [loop, at] = started.get_future().get();
  std::vector<std::thread> clients;
  for (int i = 0; i < 2; ++i) clients.emplace_back(Ask, std::cref(GetParam()), at);
  for (std::thread& client : clients) client.join();
  stop.store(true, std::memory_order_release);
  loop->Wake();
  wake_done.set_value();
  server.join();
}

INSTANTIATE_TEST_SUITE_P(All, StreamThreadsTest, testing::ValuesIn(RealWorldsAndFamilies()),
                         ParamName);

}  // namespace
}  // namespace ringsock::io
