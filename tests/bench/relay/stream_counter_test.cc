// Counting what comes, in pieces of any size, sampled or not, with strange frames in between.
#include "bench/relay/stream_counter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "bench/relay/frame_burst.h"
#include "bench/wire.h"

namespace ringsock::bench {
namespace {

constexpr uint64_t kRun = 9;
constexpr uint32_t kSize = 200;
constexpr uint32_t kSender = 4;

using Buffer = std::vector<std::byte>;

RecordCipher Cipher() { return *RecordCipher::Create(0x1301, std::vector<uint8_t>(32, 3)); }

StreamCounterConfig Config(uint32_t check = 1) {
  return {.size = kSize,
          .frame = derp::FrameType::kSendPacket,
          .sender = kSender,
          .run = kRun,
          .check = check};
}

FrameBurst Burst(uint32_t sender = kSender, uint64_t run = kRun) {
  return FrameBurst(kSize, sender, run, {PublicKey()});
}

// `packets` of a burst as plaintext.
Buffer Plain(FrameBurst& burst, uint32_t packets, int64_t due = 100) {
  Buffer out(packets * burst.frame_size());
  burst.Append(packets, due, nullptr, out.data());
  return out;
}

// Plaintext in records of `size`, which frames need not respect.
Buffer Seal(RecordCipher& cipher, std::span<const std::byte> plain, size_t size) {
  Buffer out;
  while (!plain.empty()) {
    const size_t n = std::min(size, plain.size());
    Buffer record(n + kRecordOverhead);
    cipher.Seal(plain.first(n), record.data());
    out.insert(out.end(), record.begin(), record.end());
    plain = plain.subspan(n);
  }
  return out;
}

void Feed(StreamCounter& counter, Buffer bytes, size_t piece, int64_t now = 1100,
          bool record = false) {
  for (std::span<std::byte> left(bytes); !left.empty();) {
    const size_t n = std::min(piece, left.size());
    counter.OnBytes(left.first(n), now, record);
    left = left.subspan(n);
  }
}

void Append(Buffer* to, const Buffer& more) { to->insert(to->end(), more.begin(), more.end()); }

TEST(StreamCounterTest, EveryPacketOnceInPiecesOfAnySize) {
  for (const size_t piece : {1, 4, 5, 6, 100, 1000, 100'000}) {
    for (const size_t record : {50, 241, 242, 243, 3000, 16384}) {
      for (const uint32_t check : {1, 3}) {
        SCOPED_TRACE(testing::Message() << piece << " " << record << " " << check);
        RecordCipher sealer = Cipher();
        RecordCipher opener = Cipher();
        FrameBurst burst = Burst();
        StreamCounter counter(Config(check), &opener, nullptr);
        Feed(counter, Seal(sealer, Plain(burst, 60), record), piece);
        const StreamTotals totals = counter.Totals();
        EXPECT_EQ(totals.packets, 60u);
        EXPECT_LE(totals.checked, 60u);
        EXPECT_EQ(totals.invalid + totals.misdelivered + totals.resyncs, 0u);
        EXPECT_EQ(totals.duplicates + totals.reordered + totals.control, 0u);
      }
    }
  }
}

TEST(StreamCounterTest, LongRecordsThatAreNotOpenedNeedNotBeRead) {
  for (const size_t record : {3000, 9000, 16384}) {
    for (const size_t arrives : {1000, 7777, 20'000}) {
      RecordCipher sealer = Cipher();
      RecordCipher opener = Cipher();
      FrameBurst burst = Burst();
      StreamCounter counter(Config(/*check=*/8), &opener, nullptr);
      Buffer bytes = Seal(sealer, Plain(burst, 2000), record);
      size_t read = 0;
      for (std::span<std::byte> left(bytes); !left.empty();) {
        const auto next = counter.NextRead();
        const size_t count = std::min({next.size, arrives, left.size()});
        if (next.discard) {
          counter.Discarded(count);
        } else {
          counter.OnBytes(left.first(count), 1100, false);
          read += count;
        }
        left = left.subspan(count);
      }
      const StreamTotals totals = counter.Totals();
      EXPECT_EQ(totals.packets, 2000u);
      EXPECT_GE(totals.checked, 2000u / 10);
      EXPECT_EQ(totals.invalid + totals.misdelivered + totals.resyncs + totals.reordered, 0u);
      if (record > 8192 && arrives > record) {
        EXPECT_LT(read, bytes.size() / 3);
      }
    }
  }
}

TEST(StreamCounterTest, PlainStreamsAreReadWhole) {
  for (const size_t piece : {7, 241, 5000}) {
    FrameBurst burst = Burst();
    StreamCounter counter(Config(), nullptr, nullptr);
    Feed(counter, Plain(burst, 40), piece);
    EXPECT_EQ(counter.packets(), 40u) << piece;
  }
}

TEST(StreamCounterTest, LatencyFromDueToCounted) {
  Histogram latency;
  FrameBurst burst = Burst();
  StreamCounter counter(Config(), nullptr, &latency);
  Feed(counter, Plain(burst, 3, 100), 10'000, 1100, true);
  Feed(counter, Plain(burst, 3, 100), 10'000, 9100, false);
  EXPECT_EQ(latency.total(), 3u);
  EXPECT_NEAR(static_cast<double>(latency.Percentile(100)), 1000, 20);
}

TEST(StreamCounterTest, OtherFramesAreNoPackets) {
  FrameBurst burst = Burst();
  Buffer bytes = Plain(burst, 2);
  Buffer frame(64);
  frame.resize(derp::Encode(derp::KeepAliveFrame{}, frame));
  Append(&bytes, frame);
  Append(&bytes, Plain(burst, 2));
  frame.resize(64);
  frame.resize(derp::Encode(derp::PeerGoneFrame{}, frame));
  Append(&bytes, frame);
  Append(&bytes, Plain(burst, 1));
  StreamCounter counter(Config(), nullptr, nullptr);
  Feed(counter, bytes, 100'000);
  EXPECT_EQ(counter.Totals().packets, 5u);
  EXPECT_EQ(counter.Totals().control, 2u);
  EXPECT_EQ(counter.Totals().resyncs, 0u);
}

// A keep-alive in a record that is passed over is found out by the next one that is opened.
TEST(StreamCounterTest, FindsItsPlaceAgain) {
  RecordCipher sealer = Cipher();
  RecordCipher opener = Cipher();
  FrameBurst burst = Burst();
  Buffer keep_alive(64);
  keep_alive.resize(derp::Encode(derp::KeepAliveFrame{}, keep_alive));
  Buffer bytes = Seal(sealer, Plain(burst, 4), 16384);   // opened
  Append(&bytes, Seal(sealer, keep_alive, 16384));       // passed over
  Append(&bytes, Seal(sealer, Plain(burst, 4), 16384));  // opened
  Append(&bytes, Seal(sealer, Plain(burst, 4), 16384));  // passed over
  StreamCounter counter(Config(2), &opener, nullptr);
  Feed(counter, bytes, 100'000);
  EXPECT_EQ(counter.Totals().resyncs, 1u);
  EXPECT_NEAR(static_cast<double>(counter.packets()), 12, 1);
  EXPECT_EQ(counter.Totals().reordered, 0u);
}

TEST(StreamCounterTest, SeesWhatIsWrong) {
  FrameBurst burst = Burst();
  StreamCounter counter(Config(), nullptr, nullptr);
  const Buffer first = Plain(burst, 2);
  const Buffer second = Plain(burst, 2);
  const Buffer third = Plain(burst, 2);
  Feed(counter, first, 100'000);
  Feed(counter, first, 100'000);  // again
  Feed(counter, third, 100'000);
  Feed(counter, second, 100'000);  // late
  FrameBurst other = Burst(kSender + 1);
  Feed(counter, Plain(other, 3), 100'000);
  FrameBurst old = Burst(kSender, kRun - 1);
  Feed(counter, Plain(old, 1), 100'000);
  const StreamTotals totals = counter.Totals();
  EXPECT_EQ(totals.duplicates, 2u);
  EXPECT_EQ(totals.reordered, 2u);
  EXPECT_EQ(totals.misdelivered, 3u);
  EXPECT_EQ(totals.invalid, 1u);
  EXPECT_EQ(totals.packets, 12u);
}

TEST(StreamCounterTest, GarbageEndsInCountsOnly) {
  Buffer garbage(50'000);
  for (size_t i = 0; i < garbage.size(); ++i) garbage[i] = static_cast<std::byte>(i * 131 >> 3);
  StreamCounter plain(Config(), nullptr, nullptr);
  Feed(plain, garbage, 999);
  EXPECT_GT(plain.Totals().resyncs, 0u);
  RecordCipher opener = Cipher();
  StreamCounter sealed(Config(), &opener, nullptr);
  Feed(sealed, garbage, 999);
  EXPECT_EQ(sealed.Totals().checked, 0u);
}

}  // namespace
}  // namespace ringsock::bench
