// What may come after a handshake and what must not, each with the alert it is answered by; keys
// that change; ciphertext in any pieces.
#include "derp/tls_records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "tests/derp/tls_records_world.h"

namespace ringsock::derp {
namespace {

using World = TlsRecordsWorld;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

World::Seen Data(const std::string& text) { return {TlsContent::kApplicationData, text}; }
World::Seen AlertOf(int description) {
  return {TlsContent::kAlert, {'\2', static_cast<char>(description)}};
}
const World::Seen kCloseNotify = {TlsContent::kAlert, std::string("\1\0", 2)};
const World::Seen kKeyUpdate = {TlsContent::kHandshake, std::string("\x18\0\0\1\0", 5)};

constexpr int kUnexpectedMessage = 10, kBadRecordMac = 20, kRecordOverflow = 22;
constexpr int kIllegalParameter = 47, kDecodeError = 50, kProtocolVersion = 70;

// `bytes` end the session with this alert and these words, and none of them is heard.
void ExpectRefused(World* world, TlsBytes bytes, int alert, const std::string& words) {
  const size_t heard = world->end.received.size();
  const absl::Status status = world->Receive(std::move(bytes));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  EXPECT_THAT(world->Take(), ElementsAre(AlertOf(alert))) << words;
  EXPECT_EQ(world->end.received.size(), heard) << words;
}

class TlsRecordsSuiteTest : public testing::TestWithParam<uint16_t> {};
INSTANTIATE_TEST_SUITE_P(Suites, TlsRecordsSuiteTest,
                         testing::Values(kTlsAes128Gcm, kTlsAes256Gcm, kTlsChaCha20Poly1305),
                         [](const auto& info) { return std::to_string(info.param & 0xff); });

TEST_P(TlsRecordsSuiteTest, BothWaysWithKeysThatChange) {
  World world(true, GetParam());
  std::string sent, heard;
  for (int i = 0; i < 20; ++i) {
    const std::string text(static_cast<size_t>(i) * 800, static_cast<char>('a' + i));
    ASSERT_TRUE(world.Receive(world.Data(text + "x")).ok());
    heard += text + "x";
    if (i % 5 == 4) {
      ASSERT_TRUE(world.Receive(world.KeyUpdate(i % 2 == 0)).ok());
    }
    world.end.reserves = i % 2 == 0;
    ASSERT_EQ(world.records->Send(AsBytes(text)), text.size());
    for (const auto& record : world.Take()) {
      if (record.type == TlsContent::kApplicationData) sent += record.content;
    }
  }
  EXPECT_EQ(world.end.received, heard);
  EXPECT_EQ(sent.size(), 800u * 190);
}

// However it is cut: a byte at a time, in two at every place, several records in one.
TEST(TlsRecordsTest, AnyPieces) {
  for (size_t chunk = 1; chunk < 200; ++chunk) {
    World world;
    TlsBytes all;
    std::string expected;
    for (const size_t size : {0, 1, 5, 40, 0, 300}) {
      expected += std::string(size, static_cast<char>('a' + size % 26));
      const TlsBytes record =
          world.Data(std::string(size, static_cast<char>('a' + size % 26)), size % 7);
      all.insert(all.end(), record.begin(), record.end());
    }
    ASSERT_TRUE(world.Receive(all, chunk).ok()) << chunk;
    ASSERT_EQ(world.end.received, expected) << chunk;
  }
  const size_t size = World().Data(std::string(50, 'x')).size();
  for (size_t cut = 1; cut < 2 * size; ++cut) {
    World world;
    TlsBytes all = world.Data(std::string(50, 'x'));
    const TlsBytes second = world.Data(std::string(50, 'y'));
    all.insert(all.end(), second.begin(), second.end());
    ASSERT_TRUE(world.Receive({all.begin(), all.begin() + static_cast<ptrdiff_t>(cut)}).ok());
    ASSERT_EQ(world.end.received.size(), cut >= size ? 50u : 0u);
    ASSERT_TRUE(world.Receive({all.begin() + static_cast<ptrdiff_t>(cut), all.end()}).ok());
    ASSERT_EQ(world.end.received, std::string(50, 'x') + std::string(50, 'y')) << cut;
  }
}

// A record of full length is opened in its place if it is whole.
TEST(TlsRecordsTest, FullRecords) {
  World world;
  const std::string full(kMaxTlsPlaintext, 'f');
  ASSERT_TRUE(world.Receive(world.Data(full)).ok());
  ASSERT_TRUE(world.Receive(world.Data(full), 1000).ok());
  ASSERT_TRUE(world.Receive(world.Data("p", kMaxTlsPlaintext - 1)).ok());
  EXPECT_EQ(world.end.received, full + full + "p");
  ASSERT_EQ(world.records->Send(AsBytes(full + full + "tail")), 2 * full.size() + 4);
  EXPECT_THAT(world.Take(), ElementsAre(Data(full), Data(full), Data("tail")));
}

TEST(TlsRecordsTest, EveryChangedByteIsRefused) {
  const size_t size = World().Data("some text", 3).size();
  for (size_t i = kTlsHeaderSize; i < size; ++i) {
    World world;
    TlsBytes record = world.Data("some text", 3);
    record[i] ^= std::byte{4};
    ExpectRefused(&world, record, kBadRecordMac, "it was changed on its way");
  }
  for (const size_t missing : {1, 9, 25}) {
    World world;
    TlsBytes record = world.Data("some text");
    // Shorter than it was sealed.
    record.resize(record.size() - missing);
    record[4] = static_cast<std::byte>(record.size() - kTlsHeaderSize);
    ExpectRefused(&world, record, kBadRecordMac, "");
  }
  World repeated;
  const TlsBytes record = repeated.Data("once");
  ASSERT_TRUE(repeated.Receive(record).ok());
  ExpectRefused(&repeated, record, kBadRecordMac, "");
}

TEST(TlsRecordsTest, HeadersThatAreNone) {
  const auto header = [](int type, int major, int minor, size_t size) {
    TlsBytes bytes(kTlsHeaderSize + size);
    bytes[0] = static_cast<std::byte>(type);
    bytes[1] = static_cast<std::byte>(major);
    bytes[2] = static_cast<std::byte>(minor);
    bytes[3] = static_cast<std::byte>(size >> 8);
    bytes[4] = static_cast<std::byte>(size);
    return bytes;
  };
  // A change_cipher_spec, an alert and a message in the clear, and nonsense.
  for (const int type : {0, 20, 21, 22, 24, 255}) {
    World world;
    ExpectRefused(&world, header(type, 3, 3, 100), kUnexpectedMessage, "not encrypted");
  }
  for (const int minor : {0, 1, 2, 4}) {
    World world;
    ExpectRefused(&world, header(23, 3, minor, 100), kProtocolVersion, "another version");
  }
  World other;
  ExpectRefused(&other, header(23, 2, 3, 100), kProtocolVersion, "another version");
  // At once, without waiting for so many bytes.
  World big;
  TlsBytes bytes = header(23, 3, 3, kMaxTlsPlaintext + 257);
  bytes.resize(kTlsHeaderSize);
  ExpectRefused(&big, bytes, kRecordOverflow, "over its limit");
  World largest;
  ASSERT_TRUE(largest.Receive({header(23, 3, 3, kMaxTlsPlaintext + 256)[0]}).ok());
  for (const size_t size : {0, 1, 16}) {
    World small;
    ExpectRefused(&small, header(23, 3, 3, size), kBadRecordMac, "too short");
    World bytewise;
    TlsBytes cut = header(23, 3, 3, size);
    cut.resize(kTlsHeaderSize);
    EXPECT_FALSE(bytewise.Receive(cut, 1).ok());
  }
}

TEST(TlsRecordsTest, ContentOverItsLimit) {
  World padded;
  ExpectRefused(&padded, padded.Data("p", kMaxTlsPlaintext), kRecordOverflow, "over its limit");
  World data;
  ExpectRefused(&data, data.Data(std::string(kMaxTlsPlaintext + 1, 'd')), kRecordOverflow,
                "over its limit");
}

TEST(TlsRecordsTest, ContentTypes) {
  World zeros;
  ExpectRefused(&zeros, zeros.Record(TlsContent{0}, TlsBytes(50)), kUnexpectedMessage,
                "without a content type");
  for (const int type : {20, 24, 25, 255}) {
    World world;
    ExpectRefused(&world, world.Record(static_cast<TlsContent>(type), TlsBytes(1)),
                  kUnexpectedMessage, "unknown kind");
  }
}

TEST(TlsRecordsTest, RecordsWithoutDataAreBounded) {
  World world;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 32; ++i) ASSERT_TRUE(world.Receive(world.Data("")).ok());
    ASSERT_TRUE(world.Receive(world.Data("x")).ok());
  }
  EXPECT_EQ(world.end.deliveries, 3);
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(world.Receive(world.Data("", 9)).ok());
  ExpectRefused(&world, world.Data(""), kUnexpectedMessage, "too many records without data");
  World updates;
  for (int i = 0; i < 32; ++i) ASSERT_TRUE(updates.Receive(updates.KeyUpdate(false)).ok());
  ExpectRefused(&updates, updates.KeyUpdate(false), kUnexpectedMessage, "too many records");
}

// ---- Alerts ----

TEST(TlsRecordsTest, CloseNotifyEndsItAndWhatFollowsIsIgnored) {
  World world;
  ASSERT_TRUE(world.Receive(world.Data("before")).ok());
  TlsBytes bytes = world.Alert(0, 1);
  const TlsBytes after = world.Data("after");
  bytes.insert(bytes.end(), after.begin(), after.end());
  ASSERT_TRUE(world.Receive(bytes).ok());
  EXPECT_TRUE(world.records->closed_by_peer());
  ASSERT_TRUE(world.Receive(TlsBytes(10000, std::byte{9})).ok());
  EXPECT_EQ(world.end.received, "before");
  // It goes one way only.
  EXPECT_EQ(world.records->Send(AsBytes("still")), 5u);
  EXPECT_THAT(world.Take(), ElementsAre(Data("still")));
}

TEST(TlsRecordsTest, AlertsOfTheOtherSide) {
  for (const int level : {1, 2}) {
    World world;
    const absl::Status status = world.Receive(world.Alert(kBadRecordMac, level));
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
    EXPECT_THAT(std::string(status.message()), HasSubstr("bad record mac (alert 20)"));
    EXPECT_THAT(world.Take(), IsEmpty());
  }
  World canceled;
  ASSERT_TRUE(canceled.Receive(canceled.Alert(90, 1)).ok());
  EXPECT_FALSE(canceled.records->closed_by_peer());
  for (const size_t size : {0, 1, 3}) {
    World world;
    ExpectRefused(&world, world.Record(TlsContent::kAlert, TlsBytes(size)), kDecodeError,
                  "wrong length");
  }
}

TEST(TlsRecordsTest, NothingFollowsOurCloseNotify) {
  World world;
  world.records->Shutdown();
  EXPECT_EQ(world.records->Send(AsBytes("late")), 0u);
  ASSERT_TRUE(world.Receive(world.KeyUpdate(true)).ok());
  EXPECT_FALSE(world.Receive(TlsBytes(100)).ok());
  world.records->Shutdown();
  EXPECT_THAT(world.Take(), ElementsAre(kCloseNotify));
}

// ---- KeyUpdate ----

TEST(TlsRecordsTest, KeyUpdatesAreAnsweredWhenAsked) {
  World world;
  ASSERT_TRUE(world.Receive(world.KeyUpdate(false)).ok());
  EXPECT_THAT(world.Take(), IsEmpty());
  ASSERT_TRUE(world.Receive(world.KeyUpdate(true)).ok());
  ASSERT_TRUE(world.Receive(world.Data("under the third key")).ok());
  world.records->Send(AsBytes("under the second key"));
  EXPECT_THAT(world.Take(), ElementsAre(kKeyUpdate, Data("under the second key")));
  EXPECT_EQ(world.end.received, "under the third key");
}

// However much data comes between them.
TEST(TlsRecordsTest, KeyUpdatesAreBoundedPerTime) {
  World world;
  const auto update = [&world] {
    const absl::Status status = world.Receive(world.KeyUpdate(false));
    return status.ok() ? world.Receive(world.Data("x")) : status;
  };
  for (uint32_t i = 0; i < TlsRecords::kKeyUpdateBurst; ++i) ASSERT_TRUE(update().ok()) << i;
  // At the rate it may go on for ever.
  for (int i = 0; i < 1000; ++i) {
    world.end.now += std::chrono::seconds(1) / TlsRecords::kKeyUpdatesPerSecond;
    ASSERT_TRUE(update().ok()) << i;
  }
  world.end.now += std::chrono::milliseconds(900) / TlsRecords::kKeyUpdatesPerSecond;
  ExpectRefused(&world, world.KeyUpdate(false), kUnexpectedMessage, "too many KeyUpdates");
  EXPECT_EQ(world.end.deliveries, 1000 + static_cast<int>(TlsRecords::kKeyUpdateBurst));
}

// Without room the answer waits, once for however many questions.
TEST(TlsRecordsTest, AnswersDoNotPileUp) {
  World world;
  world.end.room = 0;
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(world.Receive(world.KeyUpdate(true)).ok());
  EXPECT_THAT(world.Take(), IsEmpty());
  EXPECT_EQ(world.records->Send(AsBytes("x")), 0u);
  world.end.room = SIZE_MAX;
  world.records->Send(AsBytes("x"));
  EXPECT_THAT(world.Take(), ElementsAre(kKeyUpdate, Data("x")));
}

TEST(TlsRecordsTest, OurKeyIsChangedBeforeItsLimit) {
  World world(true, kTlsAes128Gcm, /*records_per_key=*/3);
  std::vector<World::Seen> seen;
  for (int i = 0; i < 8; ++i) ASSERT_EQ(world.records->Send(AsBytes("x")), 1u);
  // The update is the last record of its key.
  EXPECT_THAT(world.Take(), ElementsAre(Data("x"), Data("x"), Data("x"), kKeyUpdate, Data("x"),
                                        Data("x"), Data("x"), kKeyUpdate, Data("x"), Data("x")));
  EXPECT_LT(TlsRecords::kMaxRecordsPerKey, 23'000'000u);  // 2^24.5
}

TEST(TlsRecordsTest, BadKeyUpdates) {
  World world;
  ExpectRefused(&world, world.Handshake(24, ""), kDecodeError, "wrong length");
  World longer(/*client=*/true);
  ExpectRefused(&longer, longer.Handshake(24, std::string(2, '\0')), kDecodeError, "wrong length");
  World nonsense;
  ExpectRefused(&nonsense, nonsense.Handshake(24, "\2"), kIllegalParameter, "nonsense");
  // Something behind it would be under a key that is over.
  World more;
  TlsBytes two = World::Message(24, std::string(1, '\0'));
  two.push_back(std::byte{24});
  ExpectRefused(&more, more.Record(TlsContent::kHandshake, two), kUnexpectedMessage, "behind");
  // Announced and not done.
  World old;
  ASSERT_TRUE(old.Receive(old.Handshake(24, std::string(1, '\0'))).ok());
  ExpectRefused(&old, old.Data("under the old key"), kBadRecordMac, "");
}

// ---- Other messages ----

TEST(TlsRecordsTest, TicketsGoToWhoTakesThem) {
  World world;
  const std::string ticket(200, 't');
  TlsBytes two = World::Message(4, ticket);
  const TlsBytes second = World::Message(4, "second");
  two.insert(two.end(), second.begin(), second.end());
  // Two in one record, then one in three.
  ASSERT_TRUE(world.Receive(world.Record(TlsContent::kHandshake, two)).ok());
  for (const auto& [from, to] : {std::pair(0, 1), std::pair(1, 5), std::pair(5, 204)}) {
    ASSERT_TRUE(
        world.Receive(world.Record(TlsContent::kHandshake, {two.begin() + from, two.begin() + to}))
            .ok());
  }
  ASSERT_EQ(world.tickets.size(), 3u);
  EXPECT_EQ(world.tickets[0].substr(4), ticket);
  EXPECT_EQ(world.tickets[1].substr(4), "second");
  EXPECT_EQ(world.tickets[2], world.tickets[0]);
  // One, and the beginning of another; a KeyUpdate may share a record that it ends.
  TlsBytes last = World::Message(4, "third");
  const TlsBytes update = World::Message(24, std::string(1, '\0'));
  last.insert(last.end(), update.begin(), update.end());
  ASSERT_TRUE(world.Receive(world.Record(TlsContent::kHandshake, last)).ok());
  ASSERT_TRUE(world.to_us.Update());
  ASSERT_TRUE(world.Receive(world.Data("goes on")).ok());
  EXPECT_EQ(world.tickets.size(), 4u);
  EXPECT_EQ(world.end.received, "goes on");
  world.ticket_status = absl::InvalidArgumentError("TLS: not a ticket");
  EXPECT_EQ(world.Receive(world.Handshake(4, "bad")), world.ticket_status);
  EXPECT_THAT(world.Take(), ElementsAre(AlertOf(kDecodeError)));
}

TEST(TlsRecordsTest, MessagesThatAreNotDue) {
  for (int type = 0; type < 256; ++type) {
    if (type == 24) continue;
    World server(/*client=*/false);
    ExpectRefused(&server, server.Handshake(type, "x"), kUnexpectedMessage, "not due");
    if (type == 4) continue;
    World client;
    ExpectRefused(&client, client.Handshake(type, "x"), kUnexpectedMessage, "not due");
  }
  World empty;
  ExpectRefused(&empty, empty.Record(TlsContent::kHandshake, {}), kUnexpectedMessage, "empty");
}

// A length is believed only within bounds, a beginning only for so long.
TEST(TlsRecordsTest, EndlessMessages) {
  const TlsBytes claims = {std::byte{4}, std::byte{0}, std::byte{0x40}, std::byte{1}};
  World client;
  ExpectRefused(&client, client.Record(TlsContent::kHandshake, claims), kUnexpectedMessage,
                "over its limit");
  World server(/*client=*/false);
  ExpectRefused(&server, server.Record(TlsContent::kHandshake, World::Message(24, "xx")),
                kUnexpectedMessage, "over its limit");
  World slow;
  const TlsBytes one = World::Message(4, std::string(100, 't'));
  absl::Status status;
  int taken = 0;
  for (; status.ok() && taken < 100; ++taken) {
    status = slow.Receive(slow.Record(TlsContent::kHandshake, {one[static_cast<size_t>(taken)]}));
  }
  EXPECT_EQ(taken, 33);
  World interrupted;
  ASSERT_TRUE(
      interrupted
          .Receive(interrupted.Record(TlsContent::kHandshake, {one.begin(), one.begin() + 50}))
          .ok());
  ExpectRefused(&interrupted, interrupted.Data("between"), kUnexpectedMessage,
                "within a handshake message");
}

// ---- Room, and the end of numbers ----

TEST(TlsRecordsTest, SendsWholeRecordsIntoTheRoomThereIs) {
  World world;
  world.end.room = 1000;
  EXPECT_EQ(world.records->Send(AsBytes(std::string(1000, 'x'))), 0u);
  EXPECT_EQ(world.records->Send(AsBytes(std::string(700, 'x'))), 700u);
  EXPECT_EQ(world.records->Send(AsBytes("y")), 1u);
  EXPECT_EQ(world.Take().size(), 2u);
  EXPECT_EQ(world.records->Send({}), 0u);
}

TEST(TlsRecordsTest, NumbersThatRunOut) {
  TlsEnd end;
  const std::vector<uint8_t> secret(32, 3);
  const uint64_t last = std::numeric_limits<uint64_t>::max();
  const auto records = TlsRecords::Create({.suite = kTlsAes128Gcm,
                                           .read_secret = secret,
                                           .write_secret = secret,
                                           .read_sequence = 0,
                                           .write_sequence = last},
                                          &end, &end, nullptr, last);
  ASSERT_NE(records, nullptr);
  EXPECT_EQ(records->Send(AsBytes("x")), 0u);
  EXPECT_TRUE(end.written.empty());
  EXPECT_TRUE(records->write_failed());
}

TEST(TlsRecordsTest, CreateRefusesWhatItCannotUse) {
  TlsEnd end;
  const std::vector<uint8_t> secret(32, 3), longer(48, 3);
  const auto create = [&end](uint16_t suite, const auto& read, const auto& write) {
    return TlsRecords::Create({.suite = suite, .read_secret = read, .write_secret = write}, &end,
                              &end, nullptr) != nullptr;
  };
  EXPECT_TRUE(create(kTlsAes128Gcm, secret, secret));
  EXPECT_TRUE(create(kTlsAes256Gcm, longer, longer));
  EXPECT_FALSE(create(kTlsAes256Gcm, secret, longer));
  EXPECT_FALSE(create(kTlsAes128Gcm, secret, longer));
  EXPECT_FALSE(create(0xc02f, secret, secret));
}

}  // namespace
}  // namespace ringsock::derp
