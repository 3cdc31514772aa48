// Tests of the address set: every SEND and PATH rule with a clock that moves only when told to, the
// recorded steps of testdata/address-set.json, random steps against a plain model, and many threads
// at once.
#include "core/address_set.h"

#include <fstream>
#include <latch>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ringsock {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Endpoint Ep(const char* text) { return *Endpoint::Parse(text); }

const Endpoint kRelay = RelayEndpoint(1);
const Endpoint kGlobal = Ep("123.45.67.89:123");
const Endpoint kLan = Ep("10.0.0.1:123");
const Endpoint kRoam = Ep("5.6.7.8:123");
const Endpoint kRoam2 = Ep("[2001:db8::1]:456");
const std::vector<Endpoint> kList = {kRelay, kGlobal, kLan};

class AddressSetTest : public ::testing::Test {
 protected:
  explicit AddressSetTest(const std::vector<Endpoint>& list = kList)
      : set_(AddressSet::New(list)) {}

  std::vector<Endpoint> Choose(bool handshake) {
    set_->Choose(handshake, clock_.Now(), &destinations_);
    return {destinations_.view().begin(), destinations_.view().end()};
  }
  std::vector<Endpoint> Data() { return Choose(false); }
  std::vector<Endpoint> Handshake() { return Choose(true); }

  ManualClock clock_;
  AddressSet::Owner set_;
  Destinations destinations_;
};

// spec: SEND-4
TEST_F(AddressSetTest, NothingKnownGoesToTheFirst) {
  EXPECT_THAT(Data(), ElementsAre(kRelay));
  EXPECT_FALSE(destinations_.spray);
}

// spec: SEND-4
TEST_F(AddressSetTest, CurrentBeforeFirstAndRoamBeforeCurrent) {
  set_->Confirm(kGlobal);
  EXPECT_THAT(Data(), ElementsAre(kGlobal));
  set_->Confirm(kRoam);
  EXPECT_THAT(Data(), ElementsAre(kRoam));
}

// spec: SEND-4
TEST_F(AddressSetTest, AnEmptyListHasNoDestinationsUntilThePeerRoams) {
  set_ = AddressSet::New({});
  EXPECT_THAT(Data(), IsEmpty());
  EXPECT_THAT(Handshake(), IsEmpty());
  EXPECT_EQ(set_->Confirm(kRoam), PathChange::kRoamSet);
  clock_.Advance(seconds(10));
  EXPECT_THAT(Data(), ElementsAre(kRoam));
  EXPECT_THAT(Handshake(), ElementsAre(kRoam));
}

// spec: SEND-2
TEST_F(AddressSetTest, HandshakesAlwaysSprayToTheListAndRoam) {
  EXPECT_THAT(Handshake(), ElementsAre(kRelay, kGlobal, kLan));
  EXPECT_TRUE(destinations_.spray);
  EXPECT_THAT(Handshake(), ElementsAre(kRelay, kGlobal, kLan));  // no interval for these
  set_->Confirm(kRoam);
  EXPECT_THAT(Handshake(), ElementsAre(kRelay, kGlobal, kLan, kRoam));
}

// spec: SEND-2
TEST_F(AddressSetTest, AHandshakeForgetsCurrentButNotRoam) {
  set_->Confirm(kLan);
  Handshake();
  EXPECT_EQ(set_->Snapshot().current, -1);
  EXPECT_THAT(Data(), ElementsAre(kRelay));  // within 250 ms: one, the first
  set_->Confirm(kGlobal);                    // so a worse path can take over
  EXPECT_THAT(Data(), ElementsAre(kGlobal));
  set_->Confirm(kRoam);
  Handshake();
  EXPECT_THAT(Data(), ElementsAre(kRoam));
}

// spec: SEND-3
TEST_F(AddressSetTest, OtherPacketsSprayEvery250MsInsideTheWindow) {
  Handshake();
  clock_.Advance(milliseconds(250) - nanoseconds(1));
  EXPECT_EQ(Data().size(), 1u);
  clock_.Advance(nanoseconds(1));
  EXPECT_EQ(Data().size(), 3u);
  EXPECT_EQ(Data().size(), 1u);
  clock_.Advance(milliseconds(250));
  EXPECT_EQ(Data().size(), 3u);
}

// spec: SEND-2, SEND-3
TEST_F(AddressSetTest, TheWindowIsThreeSecondsFromTheLastHandshake) {
  Handshake();
  clock_.Advance(seconds(3) - nanoseconds(1));
  EXPECT_EQ(Data().size(), 3u);
  Handshake();
  clock_.Advance(seconds(3));
  EXPECT_EQ(Data().size(), 1u);
  clock_.Advance(seconds(100));
  EXPECT_EQ(Data().size(), 1u);
  Handshake();  // opens it again
  clock_.Advance(seconds(1));
  EXPECT_EQ(Data().size(), 3u);
}

// spec: SEND-3. A spray of other packets does not lengthen the window.
TEST_F(AddressSetTest, SpraysInsideTheWindowDoNotExtendIt) {
  Handshake();
  int sprays = 0;
  for (int i = 0; i < 100; ++i) {
    clock_.Advance(milliseconds(100));
    sprays += Data().size() == 3;
  }
  EXPECT_EQ(sprays, 9);  // at 0.3, 0.6, ... 2.7 s; the next would be at the window's end
}

// spec: PATH-1
TEST_F(AddressSetTest, RelaysAndNowhereTeachNothing) {
  EXPECT_EQ(set_->Confirm(kRelay), PathChange::kUnchanged);
  EXPECT_EQ(set_->Confirm(RelayEndpoint(7)), PathChange::kUnchanged);  // not even an unlisted one
  for (const Endpoint& nowhere :
       {Endpoint{}, Endpoint{kRoam.ip, 0}, Endpoint{IpAddress::AnyV4(), 9}}) {
    EXPECT_EQ(set_->Confirm(nowhere), PathChange::kUnchanged) << nowhere.ToString();
  }
  EXPECT_EQ(set_->Snapshot().current, -1);
  EXPECT_FALSE(set_->Snapshot().roaming);
  EXPECT_FALSE(set_->IsCurrent(kRelay));
  set_->Confirm(kRoam);
  EXPECT_EQ(set_->Confirm(kRelay), PathChange::kUnchanged);
  EXPECT_TRUE(set_->Snapshot().roaming);
}

// spec: PATH-2
TEST_F(AddressSetTest, ThePathInUseChangesNothing) {
  EXPECT_FALSE(set_->IsCurrent(kGlobal));
  set_->Confirm(kGlobal);
  EXPECT_TRUE(set_->IsCurrent(kGlobal));
  EXPECT_EQ(set_->Confirm(kGlobal), PathChange::kUnchanged);
  set_->Confirm(kRoam);
  EXPECT_TRUE(set_->IsCurrent(kRoam));
  EXPECT_EQ(set_->Confirm(kRoam), PathChange::kUnchanged);
  EXPECT_FALSE(set_->IsCurrent(kGlobal));  // with a roam, cur is not the hot path
  EXPECT_FALSE(set_->IsCurrent(kRoam2));
}

// spec: PATH-3
TEST_F(AddressSetTest, AnUnlistedAddressBecomesRoamAndReplacesAnother) {
  Endpoint previous;
  EXPECT_EQ(set_->Confirm(kRoam, &previous), PathChange::kRoamSet);
  EXPECT_EQ(previous, Endpoint());
  EXPECT_EQ(set_->Confirm(kRoam2, &previous), PathChange::kRoamReplaced);
  EXPECT_EQ(previous, kRoam);
  EXPECT_THAT(Data(), ElementsAre(kRoam2));
  // Through every slot and round again.
  for (uint16_t port = 1; port < 20; ++port) {
    Endpoint other = kRoam;
    other.port = port;
    EXPECT_EQ(set_->Confirm(other), PathChange::kRoamReplaced);
    EXPECT_THAT(Data(), ElementsAre(other));
  }
}

// spec: PATH-3. The port is part of the address.
TEST_F(AddressSetTest, ANewPortOfAListedAddressIsRoaming) {
  Endpoint moved = kGlobal;
  moved.port = 9;
  EXPECT_EQ(set_->Confirm(moved), PathChange::kRoamSet);
}

// spec: PATH-4
TEST_F(AddressSetTest, AListedAddressEndsRoamingWhateverItsIndex) {
  set_->Confirm(kLan);
  set_->Confirm(kRoam);
  Endpoint previous;
  EXPECT_EQ(set_->Confirm(kGlobal, &previous), PathChange::kRoamCleared);  // lower than cur was
  EXPECT_EQ(previous, kRoam);
  EXPECT_EQ(set_->Snapshot().current, 1);
  EXPECT_FALSE(set_->Snapshot().roaming);
  EXPECT_THAT(Data(), ElementsAre(kGlobal));
}

// spec: PATH-4. Also when it is the address at cur.
TEST_F(AddressSetTest, TheCurrentAddressEndsRoamingToo) {
  set_->Confirm(kLan);
  set_->Confirm(kRoam);
  EXPECT_EQ(set_->Confirm(kLan), PathChange::kRoamCleared);
  EXPECT_THAT(Data(), ElementsAre(kLan));
}

// spec: PATH-5
TEST_F(AddressSetTest, BetterIsTakenWorseIsKeptOut) {
  EXPECT_EQ(set_->Confirm(kGlobal), PathChange::kCurrentSet);
  EXPECT_EQ(set_->Confirm(kLan), PathChange::kUpgraded);
  Endpoint previous;
  EXPECT_EQ(set_->Confirm(kGlobal, &previous), PathChange::kLowerKept);
  EXPECT_EQ(previous, kLan);
  EXPECT_THAT(Data(), ElementsAre(kLan));
}

// spec: PATH-6
TEST_F(AddressSetTest, ResetForgetsCurrentAndOpensTheWindow) {
  set_->Confirm(kLan);
  set_->Reset(clock_.Now());
  EXPECT_EQ(set_->Snapshot().current, -1);
  EXPECT_EQ(Data().size(), 3u);  // at once: the last spray is long ago
  EXPECT_EQ(Data().size(), 1u);
  clock_.Advance(milliseconds(250));
  EXPECT_EQ(Data().size(), 3u);
  clock_.Advance(milliseconds(2750));
  EXPECT_EQ(Data().size(), 1u);
}

// spec: PATH-6. Only cur and the window: what the peer said of itself stays.
TEST_F(AddressSetTest, ResetKeepsRoamAndTheLastSpray) {
  set_->Confirm(kRoam);
  Handshake();
  clock_.Advance(milliseconds(100));
  set_->Reset(clock_.Now());
  EXPECT_THAT(Data(), ElementsAre(kRoam));
  clock_.Advance(milliseconds(150));
  EXPECT_EQ(Data().size(), 4u);
}

TEST_F(AddressSetTest, MappedV4IsTheSameAddress) {
  EXPECT_EQ(set_->Confirm(Ep("[::ffff:10.0.0.1]:123")), PathChange::kCurrentSet);
  EXPECT_EQ(set_->Snapshot().current, 2);
}

TEST_F(AddressSetTest, TheLongestList) {
  std::vector<Endpoint> list(kMaxEndpoints, kLan);
  for (size_t i = 0; i < list.size(); ++i) list[i].port = static_cast<uint16_t>(i + 1);
  set_ = AddressSet::New(list, 42);
  EXPECT_EQ(set_->label(), 42u);
  EXPECT_EQ(set_->Confirm(list.back()), PathChange::kCurrentSet);
  EXPECT_THAT(Data(), ElementsAre(list.back()));
  set_->Confirm(kRoam);
  EXPECT_EQ(Handshake().size(), kMaxEndpoints + 1);
  EXPECT_EQ(destinations_.endpoints[kMaxEndpoints], kRoam);
}

TEST_F(AddressSetTest, ALongerListIsABugOfTheCaller) {
  const std::vector<Endpoint> list(kMaxEndpoints + 1, kLan);
  EXPECT_DEATH(AddressSet::New(list), "");
}

TEST(AddressSetVectorTest, RecordedSteps) {
  std::ifstream file("tests/core/testdata/address-set.json");
  ASSERT_TRUE(file.is_open());
  const auto vectors = nlohmann::json::parse(file);
  int steps = 0;
  for (const auto& test_case : vectors["cases"]) {
    SCOPED_TRACE(test_case["name"].get<std::string>());
    std::vector<Endpoint> list;
    for (const auto& text : test_case["endpoints"]) {
      list.push_back(Ep(text.get<std::string>().c_str()));
    }
    const auto set = AddressSet::New(list);
    if (!test_case["current"].is_null()) set->Confirm(list[test_case["current"].get<size_t>()]);
    if (!test_case["roam"].is_null())
      set->Confirm(Ep(test_case["roam"].get<std::string>().c_str()));
    ManualClock clock;
    for (const auto& step : test_case["steps"]) {
      ++steps;
      clock.Advance(nanoseconds(step["advance_ns"].get<int64_t>()));
      if (step.contains("authenticated_from")) {
        set->Confirm(Ep(step["authenticated_from"].get<std::string>().c_str()));
        continue;
      }
      Destinations got;
      set->Choose(step["send"] == "handshake", clock.Now(), &got);
      std::vector<std::string> texts;
      for (const Endpoint& endpoint : got.view()) texts.push_back(endpoint.ToString());
      EXPECT_EQ(texts, step["want"].get<std::vector<std::string>>()) << "step " << steps;
    }
  }
  EXPECT_EQ(steps, 18);
}

// The rules written down once more, as plainly as can be.
struct Model {
  std::vector<Endpoint> list;
  int cur = -1;
  std::optional<Endpoint> roam;
  std::optional<Instant> window_end;
  std::optional<Instant> last_spray;

  std::vector<Endpoint> Choose(bool handshake, Instant now) {
    bool spray = handshake;
    if (handshake) {
      last_spray = now;
      window_end = now + seconds(3);
      cur = -1;
    } else if (window_end && now < *window_end &&
               (!last_spray || now - *last_spray >= milliseconds(250))) {
      spray = true;
      last_spray = now;
    }
    if (spray) {
      std::vector<Endpoint> all = list;
      if (roam) all.push_back(*roam);
      return all;
    }
    if (roam) return {*roam};
    if (cur >= 0) return {list[static_cast<size_t>(cur)]};
    if (!list.empty()) return {list[0]};
    return {};
  }
  PathChange Confirm(const Endpoint& from) {
    if (IsRelay(from)) return PathChange::kUnchanged;
    if (roam == from) return PathChange::kUnchanged;
    if (!roam && cur >= 0 && list[static_cast<size_t>(cur)] == from) return PathChange::kUnchanged;
    int index = -1;
    for (size_t i = 0; i < list.size() && index < 0; ++i) {
      if (list[i] == from) index = static_cast<int>(i);
    }
    if (index < 0) {
      const bool replaced = roam.has_value();
      roam = from;
      return replaced ? PathChange::kRoamReplaced : PathChange::kRoamSet;
    }
    if (roam) {
      roam.reset();
      cur = index;
      return PathChange::kRoamCleared;
    }
    const int before = cur;
    if (index < before) return PathChange::kLowerKept;
    cur = index;
    return before < 0 ? PathChange::kCurrentSet : PathChange::kUpgraded;
  }
};

// spec: SEND-2, SEND-3, SEND-4, PATH-1 to PATH-6
TEST(AddressSetModelTest, RandomStepsMatchTheModel) {
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    std::vector<Endpoint> pool;
    if (random() % 2 != 0) pool.push_back(kRelay);
    for (uint16_t i = 1; i < 9; ++i)
      pool.push_back(Ep(("10.0.0." + std::to_string(i) + ":5").c_str()));
    Model model;
    const size_t length = random() % 6;
    model.list.assign(pool.begin(), pool.begin() + static_cast<ptrdiff_t>(length));
    const auto set = AddressSet::New(model.list);
    ManualClock clock(Instant(nanoseconds(random() % 1000)));
    for (int step = 0; step < 300; ++step) {
      clock.Advance(milliseconds(random() % 4 == 0 ? random() % 1500 : random() % 60));
      const auto action = random() % 16;
      if (action == 0) {
        set->Reset(clock.Now());
        model.cur = -1;
        model.window_end = clock.Now() + seconds(3);
      } else if (action < 5) {
        const Endpoint from = pool[random() % pool.size()];
        const bool current = set->IsCurrent(from);
        const PathChange want = model.Confirm(from);
        ASSERT_EQ(current, want == PathChange::kUnchanged && !IsRelay(from));
        ASSERT_EQ(set->Confirm(from), want);
      } else {
        const bool handshake = random() % 12 == 0;
        Destinations got;
        set->Choose(handshake, clock.Now(), &got);
        ASSERT_THAT(got.view(), ::testing::ElementsAreArray(model.Choose(handshake, clock.Now())));
      }
      const PathState state = set->Snapshot();
      ASSERT_EQ(state.current, model.cur);
      ASSERT_EQ(state.roaming, model.roam.has_value());
      ASSERT_EQ(state.roam, model.roam.value_or(Endpoint()));
    }
  }
}

// A roaming address whose parts can be told to belong together.
Endpoint Roaming(uint32_t number) {
  std::array<uint8_t, 16> bytes{0x20, 0x01};
  for (size_t i = 1; i < 4; ++i) std::memcpy(&bytes[i * 4], &number, sizeof(number));
  Endpoint endpoint;
  endpoint.ip = IpAddress::V6(bytes);
  endpoint.port = static_cast<uint16_t>(number);
  return endpoint;
}
bool IsWhole(const Endpoint& endpoint) {
  uint32_t number = 0;
  std::memcpy(&number, &endpoint.ip.bytes[4], sizeof(number));
  return endpoint == Roaming(number);
}

// Learners flat out on several threads: every reader sees whole addresses, and only such as could
// have been chosen.
TEST(AddressSetThreadTest, NoReaderSeesATornAddress) {
  const auto set = AddressSet::New(kList);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> torn{0}, illegal{0}, seen_roam{0};
  std::latch start(4);
  std::vector<std::thread> threads;
  for (uint32_t learner = 0; learner < 2; ++learner) {
    threads.emplace_back([&, learner] {
      std::mt19937 random(learner);
      start.arrive_and_wait();
      // On few cores the readers may not have run yet: go on until they have.
      for (uint32_t i = 0; i < 60000 || seen_roam == 0; ++i) {
        switch (random() % 8) {
          case 0:
            set->Confirm(kGlobal);
            break;
          case 1:
            set->Confirm(kLan);
            break;
          default:
            set->Confirm(Roaming(1 + i * 2 + learner));
        }
      }
      stop = true;
    });
  }
  for (int reader = 0; reader < 2; ++reader) {
    threads.emplace_back([&, reader] {
      Destinations got;
      ManualClock clock;
      start.arrive_and_wait();
      while (!stop) {
        clock.Advance(milliseconds(1));
        set->Choose(reader == 1 && clock.Now().time_since_epoch().count() % 7 == 0, clock.Now(),
                    &got);
        for (const Endpoint& endpoint : got.view()) {
          const bool listed = set->IndexOf(endpoint) >= 0;
          seen_roam += !listed;
          torn += !listed && !IsWhole(endpoint);
        }
        illegal += got.spray ? got.count < 3 || got.count > 4 : got.count != 1;
        const PathState state = set->Snapshot();
        illegal += state.current == 0 || state.current > 2;
        torn += state.roaming && !IsWhole(state.roam);
        set->IsCurrent(Roaming(1));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(torn, 0u);
  EXPECT_EQ(illegal, 0u);
  // Nobody left the set in a state that cannot learn.
  set->Confirm(kGlobal);
  EXPECT_EQ(set->Confirm(kRoam), PathChange::kRoamSet);
  EXPECT_EQ(set->Confirm(kRoam2), PathChange::kRoamReplaced);
  EXPECT_TRUE(set->IsCurrent(kRoam2));
}

// spec: SEND-3. Of many threads that find a spray due, one gets it.
TEST(AddressSetThreadTest, OnePacketTakesASpray) {
  const auto set = AddressSet::New(kList);
  ManualClock clock;
  Destinations got;
  set->Choose(true, clock.Now(), &got);
  constexpr int kRounds = 11;
  constexpr int kThreads = 3;
  std::array<std::atomic<int>, kRounds> sprays{};
  std::atomic<int> arrived{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      Destinations mine;
      for (int round = 0; round < kRounds; ++round) {
        ++arrived;
        while (arrived < kThreads * (round + 1)) std::this_thread::yield();
        const Instant now = clock.Now() + milliseconds(250) * (round + 1);
        for (int i = 0; i < 100; ++i) {
          set->Choose(false, now, &mine);
          sprays[static_cast<size_t>(round)] += mine.spray;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& count : sprays) EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace ringsock
