// The relay's key: made once, kept, refused when others can read it or it is damaged.
#include "relay/key_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/relay/temporary_directory.h"

namespace ringsock::relay {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(KeyFileTest, MadeOnceAndKept) {
  const TemporaryDirectory dir;
  bool made = false;
  const auto first = LoadOrMakeKey(dir / "relay.key", &made);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(made);
  EXPECT_FALSE(first->IsZero());
  EXPECT_EQ(TemporaryDirectory::Mode(dir / "relay.key"), 0600u);
  const auto second = LoadOrMakeKey(dir / "relay.key", &made);
  ASSERT_TRUE(second.ok());
  EXPECT_FALSE(made);
  EXPECT_TRUE(*first == *second);
}

TEST(KeyFileTest, RelaysThatStartTogetherAgree) {
  const TemporaryDirectory dir;
  constexpr size_t kRelays = 8;
  std::vector<std::string> keys(kRelays);
  std::vector<int> made(kRelays);
  std::vector<std::thread> relays;
  for (size_t i = 0; i < kRelays; ++i) {
    relays.emplace_back([&, i] {
      bool mine = false;
      const auto key = LoadOrMakeKey(dir / "relay.key", &mine);
      ASSERT_TRUE(key.ok()) << key.status();
      keys[i] = key->ToBase64();
      made[i] = mine ? 1 : 0;
    });
  }
  for (std::thread& relay : relays) relay.join();
  EXPECT_THAT(keys, testing::Each(keys[0]));
  int makers = 0;
  for (const int one : made) makers += one;
  EXPECT_EQ(makers, 1);
}

TEST(KeyFileTest, ReadableByOthersIsRefused) {
  const TemporaryDirectory dir;
  bool made = false;
  for (const mode_t mode : {0640, 0604, 0644}) {
    const std::string file = dir.Write("relay.key", PrivateKey::Generate().ToBase64(), mode);
    const auto key = LoadOrMakeKey(file, &made);
    EXPECT_TRUE(absl::IsPermissionDenied(key.status())) << key.status();
  }
}

// As systemd hands over credentials (LoadCredential=).
TEST(KeyFileTest, ASharedKeyMayBeReadableByAGroup) {
  const TemporaryDirectory dir;
  const std::string text = PrivateKey::Generate().ToBase64();
  for (const mode_t mode : {0400, 0440, 0640}) {
    const auto key = LoadKey(dir.Write("mesh.key", text, mode));
    EXPECT_TRUE(key.ok()) << key.status();
    unlink((dir / "mesh.key").c_str());
  }
  EXPECT_FALSE(LoadKey(dir.Write("mesh.key", text, 0444)).ok());
}

TEST(KeyFileTest, DamagedIsRefusedUnshownAndNotReplaced) {
  const TemporaryDirectory dir;
  bool made = false;
  const std::string secret = PrivateKey::Generate().ToBase64();
  for (const std::string& text : {std::string(), std::string("\n"), secret.substr(1), secret + "x",
                                  std::string(64, '0'), std::string(5000, 'a')}) {
    const std::string file = dir.Write("relay.key", text);
    const auto key = LoadOrMakeKey(file, &made);
    ASSERT_FALSE(key.ok()) << text;
    EXPECT_THAT(std::string(key.status().message()), HasSubstr(file));
    EXPECT_THAT(std::string(key.status().message()), Not(HasSubstr(secret.substr(1, 8))));
    EXPECT_EQ(TemporaryDirectory::Read(file), text);
    EXPECT_FALSE(made);
  }
}

TEST(KeyFileTest, FirstLineCountsInEitherForm) {
  const TemporaryDirectory dir;
  const PrivateKey key = PrivateKey::Generate();
  const auto base64 = LoadKey(dir.Write("a", key.ToBase64() + " \r\n# made by hand\n"));
  ASSERT_TRUE(base64.ok()) << base64.status();
  EXPECT_TRUE(*base64 == key);
  const std::string hex(64, 'a');
  EXPECT_TRUE(LoadKey(dir.Write("b", hex + "\n")).ok());
  EXPECT_TRUE(absl::IsNotFound(LoadKey(dir / "none").status()));
}

}  // namespace
}  // namespace ringsock::relay
