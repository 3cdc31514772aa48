// One suite for every Loop: datagrams of all sizes, trains, order, queues, close and rebind.
#include "io/loop.h"

#include <cerrno>
#include <cstring>
#include <set>

#include "tests/io/loop_world.h"

namespace ringsock::io {
namespace {

using Bytes = std::vector<std::byte>;

Bytes Numbered(uint32_t number, size_t size) {
  Bytes bytes = Pattern(size, number);
  memcpy(bytes.data(), &number, sizeof number);
  return bytes;
}
uint32_t NumberOf(const Bytes& bytes) {
  uint32_t number = 0;
  memcpy(&number, bytes.data(), sizeof number);
  return number;
}

UdpConfig BoundTo(const Endpoint& address) {
  UdpConfig config;
  config.bind = address;
  return config;
}

// ---- Sizes and trains: every family, with and without offloads ----

class LoopOffloadTest : public LoopTest {};
INSTANTIATE_TEST_SUITE_P(All, LoopOffloadTest, testing::ValuesIn(WorldsAndOffloads()), ParamName);

// spec: RECV-6 (nothing up to the largest datagram is cut)
TEST_P(LoopOffloadTest, CarriesEverySizeUnchanged) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  std::vector<size_t> sizes = {0,    1,     2,     3,     31,    32,    148,   1232,
                               1252, 1280,  1420,  1452,  1472,  1473,  1500,  8972,
                               9000, 16383, 16384, 32767, 32768, 65000, 65506, kMaxDatagram};
  for (size_t size = 997; size < kMaxDatagram; size += 997) sizes.push_back(size);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Bytes bytes = Pattern(sizes[i], static_cast<uint32_t>(i));
    SendNow(a, b.address, bytes);
    ASSERT_TRUE(Until([&] { return b.recorder.packets.size() == i + 1; }, "the datagram arrives"));
    EXPECT_EQ(b.recorder.packets[i].bytes, bytes) << "size " << sizes[i];
    EXPECT_EQ(b.recorder.packets[i].from, a.address);
  }
  EXPECT_TRUE(a.recorder.failures.empty());
}

TEST_P(LoopOffloadTest, KeepsTheBoundariesOfTrains) {
  struct Shape {
    uint32_t segment, packets, last;
  };
  const Shape shapes[] = {{1, 64, 1},      {2, 2, 1},         {32, 64, 32},      {148, 3, 147},
                          {1000, 64, 999}, {1280, 51, 227},   {1400, 46, 1},     {1452, 45, 1452},
                          {9000, 7, 2507}, {32753, 2, 32753}, {32754, 2, 32753}, {65506, 2, 1}};
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  uint32_t seed = 0;
  for (const Shape& shape : shapes) {
    const size_t size = size_t{shape.segment} * (shape.packets - 1) + shape.last;
    const Bytes bytes = Pattern(size, ++seed);
    b.recorder.packets.clear();
    SendNow(a, b.address, bytes, shape.segment);
    ASSERT_TRUE(Until([&] { return b.recorder.packets.size() == shape.packets; }, "all arrive"))
        << shape.segment << " x " << shape.packets << ": " << b.recorder.packets.size();
    for (uint32_t i = 0; i < shape.packets; ++i) {
      const auto first = bytes.begin() + static_cast<ptrdiff_t>(size_t{i} * shape.segment);
      const auto length = i + 1 < shape.packets ? shape.segment : shape.last;
      EXPECT_EQ(b.recorder.packets[i].bytes, Bytes(first, first + length))
          << shape.segment << " x " << shape.packets << ", packet " << i;
    }
  }
  EXPECT_TRUE(a.recorder.failures.empty());
}

// A backend may have got used to one size by then.
TEST_P(LoopOffloadTest, KeepsTheBoundariesOfWhatFollowsManyTrainsOfOneSize) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  const auto check = [&](size_t size, uint32_t segment) {
    const Bytes bytes = Pattern(size, static_cast<uint32_t>(size));
    b.recorder.packets.clear();
    SendNow(a, b.address, bytes, segment);
    const size_t count = segment == 0 ? 1 : (size + segment - 1) / segment;
    ASSERT_TRUE(Until([&] { return b.recorder.packets.size() == count; }, "all arrive"))
        << size << " in segments of " << segment << ": " << b.recorder.packets.size();
    for (size_t i = 0; i < count; ++i) {
      const auto first = bytes.begin() + static_cast<ptrdiff_t>(i * segment);
      const auto last = i + 1 < count ? first + segment : bytes.end();
      ASSERT_EQ(b.recorder.packets[i].bytes, Bytes(first, last)) << size << ", " << segment;
    }
  };
  for (const uint32_t habit : {300u, 1400u, 64u}) {
    for (int i = 0; i < 100; ++i) check(habit * 3 - 1, habit);
    for (const size_t single : {size_t{0}, size_t{1}, size_t{habit} - 1, size_t{habit},
                                size_t{habit} + 1, size_t{habit} * 5, kMaxDatagram}) {
      check(single, 0);
    }
    check(habit * 2, habit);
    check(habit * 4, habit + 1);
    check(habit * 4, habit - 1);
    check(habit * 3, habit);
  }
  EXPECT_TRUE(a.recorder.failures.empty());
}

TEST_P(LoopOffloadTest, CutsATrainThatIsTooLong) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  const Bytes bytes = Pattern(200 * 1000 - 1, 7);
  SendNow(a, b.address, bytes, 1000);
  ASSERT_TRUE(Until([&] { return b.recorder.count == 200; }, "all arrive"));
  Bytes got;
  for (const Received& packet : b.recorder.packets) {
    got.insert(got.end(), packet.bytes.begin(), packet.bytes.end());
  }
  EXPECT_EQ(got, bytes);
  EXPECT_EQ(a.loop->Stats(a.socket).tx_packets, 200u);
}

TEST_P(LoopOffloadTest, KeepsOrderThroughTrainsOfAllLengths) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  uint32_t number = 0;
  for (uint32_t round = 0; round < 100; ++round) {
    // As many bytes in flight as any receive buffer takes.
    for (uint32_t length = 1; length <= 8; ++length) {
      const uint32_t size = 100 + 37 * ((round + length) % 11);
      Bytes train;
      for (uint32_t i = 0; i < length; ++i) {
        const Bytes packet = Numbered(number++, size);
        train.insert(train.end(), packet.begin(), packet.end());
      }
      SendNow(a, b.address, train, size);
    }
    ASSERT_TRUE(Until([&] { return b.recorder.count == number; }, "all arrive"));
  }
  for (uint32_t i = 0; i < number; ++i) ASSERT_EQ(NumberOf(b.recorder.packets[i].bytes), i);
}

TEST_P(LoopOffloadTest, UsesTrainsOnlyWhereTheyAreOn) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  SendNow(a, b.address, Pattern(20 * 1000, 1), 1000);
  ASSERT_TRUE(Until([&] { return b.recorder.count == 20; }, "all arrive"));
  EXPECT_EQ(a.loop->Stats(a.socket).tx_trains, GetParam().gso ? 1u : 20u);
  if (!GetParam().gro) {
    EXPECT_EQ(b.recorder.trains, 20u);
  } else if (GetParam().gso) {
    EXPECT_EQ(b.recorder.trains, 1u);
  }
}

// ---- Queues, slabs, life of sockets ----

INSTANTIATE_TEST_SUITE_P(All, LoopTest, testing::ValuesIn(WorldsAndFamilies()), ParamName);

TEST_P(LoopTest, SendFlushesWhenItsQueueIsFull) {
  LoopOptions options = Options();
  options.tx_queue = 4;
  Peer& a = AddPeer(options);
  Peer& b = AddPeer();
  std::vector<Bytes> bytes;
  for (uint32_t i = 0; i < 100; ++i) bytes.push_back(Numbered(i, 200));
  for (const Bytes& packet : bytes) {
    a.loop->Send(a.socket, {packet.data(), 200, 0, b.address, {}, nullptr});
  }
  a.loop->Flush();
  ASSERT_TRUE(Until([&] { return b.recorder.count == 100; }, "all arrive"));
  for (uint32_t i = 0; i < 100; ++i) EXPECT_EQ(NumberOf(b.recorder.packets[i].bytes), i);
}

TEST_P(LoopTest, HandsOutNoMoreThanABatch) {
  LoopOptions options = Options();
  options.rx_batch = 3;
  options.gro = false;
  Peer& a = AddPeer();
  Peer& b = AddPeer(options);
  for (uint32_t i = 0; i < 50; ++i) SendNow(a, b.address, Numbered(i, 100));
  ASSERT_TRUE(Until([&] { return b.recorder.count == 50; }, "all arrive"));
  EXPECT_LE(b.recorder.largest_batch, 3u);
}

TEST_P(LoopTest, EchoesTheVeryBytesItWasShown) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  b.recorder.on_receive = [&](SocketId socket, std::span<const RxTrain> trains) {
    for (const RxTrain& train : trains) {
      b.loop->Send(socket, {train.data, train.size, train.segment_size, train.from, {}, nullptr});
    }
  };
  const Bytes bytes = Pattern(40 * 1400 + 5, 3);
  for (uint32_t round = 0; round < 30; ++round) {
    a.recorder.packets.clear();
    SendNow(a, b.address, bytes, 1400);
    ASSERT_TRUE(Until([&] { return a.recorder.packets.size() == 41; }, "the echo arrives"));
    Bytes got;
    for (const Received& packet : a.recorder.packets) {
      got.insert(got.end(), packet.bytes.begin(), packet.bytes.end());
    }
    ASSERT_EQ(got, bytes);
  }
}

TEST_P(LoopTest, SlabsRunOutAndComeBack) {
  LoopOptions options = Options();
  options.tx_slabs = 5;
  Peer& a = AddPeer(options);
  Peer& b = AddPeer();
  for (uint32_t round = 0; round < 20; ++round) {
    std::vector<TxSlab*> slabs;
    ASSERT_TRUE(Until(
        [&] {
          while (TxSlab* slab = a.loop->AcquireSlab()) slabs.push_back(slab);
          return slabs.size() == 5;
        },
        "every slab comes back"));
    EXPECT_EQ(a.loop->AcquireSlab(), nullptr);
    EXPECT_EQ((std::set<TxSlab*>(slabs.begin(), slabs.end()).size()), 5u);
    for (uint32_t i = 0; i < 5; ++i) {
      ASSERT_GE(slabs[i]->capacity, kMaxDatagram);
      const Bytes bytes = Numbered(round * 5 + i, 900);
      memcpy(slabs[i]->data, bytes.data(), bytes.size());
      if (i == 4) {
        a.loop->ReleaseSlab(slabs[i]);
      } else {
        a.loop->Send(a.socket, {slabs[i]->data, 900, 450, b.address, {}, slabs[i]});
      }
    }
    a.loop->Flush();
    ASSERT_TRUE(Until([&] { return b.recorder.count == (round + 1) * 8; }, "all arrive"));
    for (uint32_t i = 0; i < 4; ++i) {
      EXPECT_EQ(NumberOf(b.recorder.packets[round * 8 + i * 2].bytes), round * 5 + i);
    }
  }
}

TEST_P(LoopTest, DropsATrainToAClosedSocketAndTakesItsSlab) {
  LoopOptions options = Options();
  options.tx_slabs = 1;
  Peer& a = AddPeer(options);
  Peer& b = AddPeer();
  a.loop->CloseUdp(a.socket);
  TxSlab* slab = a.loop->AcquireSlab();
  ASSERT_NE(slab, nullptr);
  a.loop->Send(a.socket, {slab->data, 10, 0, b.address, {}, slab});
  a.loop->Flush();
  EXPECT_TRUE(Until([&] { return a.loop->AcquireSlab() != nullptr; }, "the slab comes back"));
  Settle();
  EXPECT_EQ(b.recorder.count, 0u);
  a.loop->CloseUdp(a.socket);  // closing twice is nothing
}

TEST_P(LoopTest, CloseSendsWhatIsQueued) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  const Bytes bytes = Pattern(10 * 500, 1);
  a.loop->Send(a.socket, {bytes.data(), 5000, 500, b.address, {}, nullptr});
  a.loop->CloseUdp(a.socket);
  EXPECT_TRUE(Until([&] { return b.recorder.count == 10; }, "all arrive"));
}

TEST_P(LoopTest, RebindsTheSamePortAtOnceUnderLoad) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  MoveToAPortOfItsOwn(b);
  const uint16_t port = b.address.port;
  std::set<SocketId> ids = {b.socket};
  for (uint32_t i = 0; i < 300; ++i) {
    SendNow(a, b.address, Pattern(20 * 1000, i), 1000);
    world_->Turn();
    SendNow(a, b.address, Pattern(20 * 1000, i), 1000);
    b.loop->CloseUdp(b.socket);
    const size_t before = b.recorder.count;
    world_->Turn();
    ASSERT_EQ(b.recorder.count, before) << "the handler was called after the close";
    const auto opened = b.loop->OpenUdp(BoundTo(Bind(1, port)), &b.recorder);
    ASSERT_TRUE(opened.ok()) << "round " << i << ": " << opened.status();
    b.socket = *opened;
    ASSERT_TRUE(ids.insert(b.socket).second) << "a socket id was used twice";
  }
  b.recorder.packets.clear();
  const Bytes last = Pattern(77, 77);
  SendNow(a, b.address, last);
  EXPECT_TRUE(
      Until([&] { return !b.recorder.packets.empty() && b.recorder.packets.back().bytes == last; },
            "the last socket receives"));
}

// ---- Failures ----

TEST_P(LoopTest, ADatagramThatIsTooLargeFailsAloneAndInPlace) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  const Bytes huge = Pattern(65536, 9);
  const Bytes first = Numbered(1, 300), second = Numbered(2, 300);
  a.loop->Send(a.socket, {first.data(), 300, 0, b.address, {}, nullptr});
  a.loop->Send(a.socket, {huge.data(), 65536, 0, b.address, {}, nullptr});
  a.loop->Send(a.socket, {second.data(), 300, 0, b.address, {}, nullptr});
  a.loop->Flush();
  ASSERT_TRUE(Until([&] { return b.recorder.count == 2; }, "the good ones arrive"));
  EXPECT_EQ(NumberOf(b.recorder.packets[0].bytes), 1u);
  EXPECT_EQ(NumberOf(b.recorder.packets[1].bytes), 2u);
  ASSERT_EQ(a.recorder.failures.size(), 1u);
  EXPECT_EQ(a.recorder.failures[0].error, EMSGSIZE);
  EXPECT_EQ(a.recorder.failures[0].first_byte, huge.data());
  const UdpStats stats = a.loop->Stats(a.socket);
  EXPECT_EQ(stats.tx_packets, 2u);
  EXPECT_EQ(stats.tx_failed, 1u);
}

// Port 0 is EINVAL: for the train, and again for each of its packets.
TEST_P(LoopTest, ATrainThatFailsPacketByPacketIsReportedOnce) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  const Bytes bad = Pattern(10 * 500, 9);
  const Bytes first = Numbered(1, 300), second = Numbered(2, 300);
  Endpoint nowhere = b.address;
  nowhere.port = 0;
  a.loop->Send(a.socket, {first.data(), 300, 0, b.address, {}, nullptr});
  a.loop->Send(a.socket, {bad.data(), 5000, 500, nowhere, {}, nullptr});
  a.loop->Send(a.socket, {second.data(), 300, 0, b.address, {}, nullptr});
  a.loop->Flush();
  EXPECT_EQ(a.recorder.failed_packets, 10u) << "reported by the time Flush returns";
  ASSERT_TRUE(Until([&] { return b.recorder.count == 2; }, "the good ones arrive"));
  EXPECT_EQ(NumberOf(b.recorder.packets[1].bytes), 2u);
  const std::byte* next = bad.data();
  for (const Failed& failure : a.recorder.failures) {
    EXPECT_EQ(failure.error, EINVAL);
    EXPECT_EQ(failure.first_byte, next);
    next += failure.packets * 500;
  }
  const UdpStats stats = a.loop->Stats(a.socket);
  EXPECT_EQ(stats.tx_failed, 10u);

  SendNow(a, b.address, Pattern(10 * 500, 3), 500);
  EXPECT_EQ(a.loop->Stats(a.socket).tx_trains, stats.tx_trains + 1)
      << "it was not refused for being a train, so trains still go to that address";
}

TEST_P(LoopTest, TheWrongFamilyIsAFailureNotACrash) {
  Peer& a = AddPeer();
  const Endpoint other{
      GetParam().v4 ? IpAddress::Parse("::1").value() : IpAddress::V4(127, 0, 0, 1), 9, 0};
  SendNow(a, other, Pattern(100, 1));
  EXPECT_EQ(a.recorder.failed_packets, 1u);
}

// ---- Opening ----

TEST_P(LoopTest, APortInUseSaysWhichAndWhatToDo) {
  Peer& a = AddPeer();
  const auto again = a.loop->OpenUdp(BoundTo(a.address), &a.recorder);
  ASSERT_EQ(again.status().code(), absl::StatusCode::kAlreadyExists) << again.status();
  const std::string message(again.status().message());
  EXPECT_NE(message.find(a.address.ToString()), std::string::npos) << message;
  EXPECT_NE(message.find("port"), std::string::npos) << message;
}

TEST_P(LoopTest, SaysWhereADatagramWasSentTo) {
  Peer& a = AddPeer();
  UdpConfig config;
  config.local_address = true;
  Peer& b = AddPeer(Options(), config);
  SendNow(a, b.address, Pattern(3000, 1), 1000);
  ASSERT_TRUE(Until([&] { return b.recorder.count == 3; }, "all arrive"));
  EXPECT_EQ(b.recorder.packets[0].to, b.address.ip);
  EXPECT_EQ(a.recorder.count, 0u);
}

TEST_P(LoopTest, ASocketThatIsNotThereHasNoAddressAndNoCounts) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  SendNow(a, b.address, Pattern(100, 1));
  a.loop->CloseUdp(a.socket);
  for (const SocketId id : {a.socket, SocketId{4711}, ~SocketId{0}}) {
    EXPECT_EQ(a.loop->LocalEndpoint(id), Endpoint{});
    EXPECT_EQ(a.loop->Stats(id).tx_packets, 0u);
    a.loop->CloseUdp(id);
    a.loop->Send(id, {sent_.back().data(), 100, 0, b.address, {}, nullptr});
  }
  ASSERT_TRUE(Until([&] { return b.recorder.count == 1; }, "what was sent before arrives"));
  Settle();
  EXPECT_EQ(b.recorder.count, 1u);
}

TEST_P(LoopTest, CountsWhatPasses) {
  Peer& a = AddPeer();
  Peer& b = AddPeer();
  SendNow(a, b.address, Pattern(10 * 1000, 1), 1000);
  SendNow(a, b.address, {});
  ASSERT_TRUE(Until([&] { return b.recorder.count == 11; }, "all arrive"));
  const UdpStats tx = a.loop->Stats(a.socket), rx = b.loop->Stats(b.socket);
  EXPECT_EQ(tx.tx_packets, 11u);
  EXPECT_EQ(tx.tx_bytes, 10'000u);
  EXPECT_EQ(tx.tx_trains, 2u);
  EXPECT_EQ(tx.tx_failed, 0u);
  EXPECT_EQ(rx.rx_packets, 11u);
  EXPECT_EQ(rx.rx_bytes, 10'000u);
  EXPECT_EQ(rx.rx_trains, b.recorder.trains);
  EXPECT_EQ(rx.rx_kernel_drops, 0u);
}

}  // namespace
}  // namespace ringsock::io
