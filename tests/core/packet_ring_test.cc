// The ring on the heap: on the stack, GCC's address sanitizer does not keep its alignment.
#include "core/packet_ring.h"

#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "gtest/gtest.h"

namespace ringsock {
namespace {

PacketTrain TrainOf(const std::string& bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  return {reinterpret_cast<const std::byte*>(bytes.data()), size, size};
}

std::string BytesOf(const PacketRecord& record) {
  return {reinterpret_cast<const char*>(record.packets.data), record.packets.size};
}

TEST(PacketRingTest, NeighboursAreNeighboursInMemory) {
  const auto ring = std::make_unique<PacketRing>(16);
  ASSERT_TRUE(ring->Push(PeerId{1}, {}, TrainOf("abc")));
  ASSERT_TRUE(ring->Push(PeerId{1}, {}, TrainOf("def")));
  const PacketRecord* first = ring->Next();
  const PacketRecord* second = ring->Next();
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(first->packets.data + 3, second->packets.data);
  EXPECT_EQ(ring->Next(), nullptr);
}

PacketRecord RecordOf(uint64_t peer, const std::string& bytes, size_t segment = 0) {
  PacketTrain train = TrainOf(bytes);
  if (segment != 0) train.segment_size = static_cast<uint32_t>(segment);
  return {PeerId{peer}, {}, train};
}

// What is appended is a train as long as sizes and peer allow, and seen when it is published.
TEST(PacketRingTest, AppendedPacketsBecomeTrains) {
  const auto ring = std::make_unique<PacketRing>(16);
  const auto next = [&ring] {
    const PacketRecord* record = ring->Next();
    return record == nullptr
               ? std::string("none")
               : BytesOf(*record) + "/" + std::to_string(record->packets.segment_size) + "/" +
                     std::to_string(static_cast<uint64_t>(record->peer));
  };
  ASSERT_TRUE(ring->Append(RecordOf(1, "abc")));
  ASSERT_TRUE(ring->Append(RecordOf(1, "def")));
  EXPECT_FALSE(ring->HasNext());
  ring->Publish();
  ring->Publish();
  EXPECT_EQ(next(), "abcdef/3/1");
  EXPECT_EQ(next(), "none");
  ASSERT_TRUE(ring->Append(RecordOf(1, "abc")));
  ASSERT_TRUE(ring->Append(RecordOf(1, "defghi", 3)));
  ASSERT_TRUE(ring->Append(RecordOf(1, "jk")));  // shorter: the last of them
  ASSERT_TRUE(ring->Append(RecordOf(1, "lm")));
  ASSERT_TRUE(ring->Append(RecordOf(1, "nop")));    // longer
  ASSERT_TRUE(ring->Append(RecordOf(2, "qrs")));    // of another peer
  ASSERT_TRUE(ring->Append(RecordOf(2, "tu", 1)));  // of another size, and not one
  ASSERT_TRUE(ring->Push(RecordOf(2, "v")));        // shows all before it
  EXPECT_EQ(next(), "abcdefghijk/3/1");
  EXPECT_EQ(next(), "lm/2/1");
  EXPECT_EQ(next(), "nop/3/1");
  EXPECT_EQ(next(), "qrs/3/2");
  EXPECT_EQ(next(), "tu/1/2");
  EXPECT_EQ(next(), "v/1/2");
  EXPECT_EQ(next(), "none");
}

// Bounds hold for trains that grow in the ring as for those that are pushed whole.
TEST(PacketRingTest, AppendKeepsTheBounds) {
  const auto ring = std::make_unique<PacketRing>(2);  // 128 KiB
  const std::string packet(1000, 'x');
  size_t taken = 0;
  while (ring->Append(RecordOf(1, packet))) ++taken;
  EXPECT_EQ(taken, 130u);  // two trains of 65, as no train is longer than a datagram
  ring->Publish();
  size_t shown = 0;
  while (const PacketRecord* record = ring->Next()) {
    EXPECT_LE(record->packets.size, io::kMaxDatagram);
    shown += record->packets.size;
  }
  EXPECT_EQ(shown, taken * packet.size());
  EXPECT_FALSE(ring->Append(RecordOf(1, packet)));
  ring->Release();
  // Round and round: contents are whole wherever a train ends.
  for (int i = 0; i < 2000; ++i) {
    const std::string other(1 + (i * 37) % 900, static_cast<char>('a' + i % 26));
    const int count = 1 + i % 90;
    int fit = 0;
    while (fit < count && ring->Append(RecordOf(7, other))) ++fit;
    ring->Publish();
    std::string got;
    while (const PacketRecord* record = ring->Next()) got += BytesOf(*record);
    ASSERT_EQ(got, std::string(static_cast<size_t>(fit) * other.size(), other[0])) << i;
    ASSERT_GT(fit, 0);
    ring->Release();
  }
}

TEST(PacketRingTest, WhatWasShownStaysUntilReleased) {
  const auto ring = std::make_unique<PacketRing>(2);
  ASSERT_TRUE(ring->Push(PeerId{1}, {}, TrainOf("a")));
  ASSERT_TRUE(ring->Push(PeerId{2}, {}, TrainOf("b")));
  const PacketRecord* first = ring->Next();
  ring->Next();
  EXPECT_FALSE(ring->Push(PeerId{3}, {}, TrainOf("c")));
  EXPECT_EQ(BytesOf(*first), "a");
  ring->Release();
  EXPECT_TRUE(ring->Push(PeerId{3}, {}, TrainOf("c")));
  EXPECT_EQ(BytesOf(*ring->Next()), "c");
}

TEST(PacketRingTest, AllButTheLastMayBeReleased) {
  const auto ring = std::make_unique<PacketRing>(4);
  for (const char* text : {"a", "b", "c", "d"}) {
    ASSERT_TRUE(ring->Push(PeerId{1}, {}, TrainOf(text)));
  }
  ring->ReleaseAllButLast();  // none was shown
  ring->Next();
  ring->ReleaseAllButLast();  // one was
  EXPECT_FALSE(ring->Push(PeerId{1}, {}, TrainOf("e")));
  ring->Next();
  const PacketRecord* third = ring->Next();
  ring->ReleaseAllButLast();
  EXPECT_TRUE(ring->Push(PeerId{1}, {}, TrainOf("e")));
  EXPECT_TRUE(ring->Push(PeerId{1}, {}, TrainOf("f")));
  EXPECT_FALSE(ring->Push(PeerId{1}, {}, TrainOf("g")));
  EXPECT_EQ(BytesOf(*third), "c");
  ring->ReleaseAllButLast();
  EXPECT_FALSE(ring->Push(PeerId{1}, {}, TrainOf("g")));
  ring->Release();
  EXPECT_TRUE(ring->Push(PeerId{1}, {}, TrainOf("g")));
  EXPECT_EQ(BytesOf(*ring->Next()), "d");
}

TEST(PacketRingTest, TheLargestDatagramFitsTheSmallestRing) {
  const auto ring = std::make_unique<PacketRing>(1);
  const std::string large(io::kMaxDatagram, 'x');
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(ring->Push(PeerId{1}, {}, TrainOf(large)));
    EXPECT_FALSE(ring->Push(PeerId{1}, {}, TrainOf("y")));
    EXPECT_EQ(BytesOf(*ring->Next()), large);
    ring->Release();
  }
}

TEST(PacketRingTest, KnowsWhenItIsHalfFull) {
  const auto records = std::make_unique<PacketRing>(8);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(records->Push(PeerId{1}, {}, TrainOf("a")));
  EXPECT_FALSE(records->HalfFull());
  ASSERT_TRUE(records->Push(PeerId{1}, {}, TrainOf("a")));
  EXPECT_TRUE(records->HalfFull());
  while (records->Next() != nullptr) continue;
  records->Release();
  EXPECT_FALSE(records->HalfFull());

  const auto bytes = std::make_unique<PacketRing>(8);
  const std::string large(io::kMaxDatagram, 'x');
  ASSERT_TRUE(bytes->Push(PeerId{1}, {}, TrainOf(large)));
  ASSERT_TRUE(bytes->Push(PeerId{1}, {}, TrainOf("a")));
  ASSERT_TRUE(bytes->Push(PeerId{1}, {}, TrainOf(std::string(100, 'x'))));
  EXPECT_TRUE(bytes->HalfFull());
}

// Against a queue: nothing lost, doubled, changed or out of order, over many turns of both rings.
TEST(PacketRingTest, BehavesAsAQueue) {
  std::mt19937 random(7);
  const auto ring = std::make_unique<PacketRing>(64);
  std::deque<std::string> model;
  for (int step = 0; step < 100'000; ++step) {
    if (random() % 3 != 0) {
      const size_t size = random() % 20 == 0 ? random() % io::kMaxDatagram : random() % 2000;
      const std::string bytes(size, static_cast<char>(random()));
      if (ring->Push(PeerId{1}, {}, TrainOf(bytes))) {
        model.push_back(bytes);
      } else {
        EXPECT_GT(model.size(), 0u);
      }
    } else {
      for (size_t i = random() % 8; i > 0; --i) {
        const PacketRecord* record = ring->Next();
        ASSERT_EQ(record == nullptr, model.empty());
        if (record == nullptr) break;
        ASSERT_EQ(BytesOf(*record), model.front());
        model.pop_front();
      }
      ring->Release();
    }
  }
}

TEST(PacketRingTest, TwoThreads) {
  constexpr uint32_t kCount = 200'000;
  const auto ring = std::make_unique<PacketRing>(32);
  std::thread producer([&ring = *ring] {
    std::string bytes(600, '\0');
    for (uint32_t i = 0; i < kCount;) {
      std::memcpy(bytes.data(), &i, sizeof(i));
      const uint32_t size = 4 + i % 590;
      bytes[size - 1] = static_cast<char>(i);
      if (i % 590 < 4) std::memcpy(bytes.data(), &i, sizeof(i));
      if (ring.Push(PeerId{i}, {}, {reinterpret_cast<std::byte*>(bytes.data()), size, size})) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  for (uint32_t i = 0; i < kCount;) {
    const PacketRecord* record = ring->Next();
    if (record == nullptr) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(record->peer, PeerId{i});
    ASSERT_EQ(record->packets.size, 4 + i % 590);
    if (i % 590 >= 4) {
      uint32_t number;
      std::memcpy(&number, record->packets.data, sizeof(number));
      ASSERT_EQ(number, i);
    }
    ++i;
    if (i % 5 == 0) ring->Release();
    if (i % 5 != 0 && !ring->HasNext()) ring->Release();
  }
  producer.join();
}

}  // namespace
}  // namespace ringsock
