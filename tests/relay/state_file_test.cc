// Files of the state directory: bounds, modes, races, refusals.
#include "relay/state_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/relay/temporary_directory.h"

namespace ringsock::relay {
namespace {

using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(StateFileTest, ReadsUpToTheBoundAndNoFurther) {
  const TemporaryDirectory dir;
  const std::string exact = dir.Write("exact", std::string(100000, 'x'));
  EXPECT_EQ(ReadStateFile(exact, 100000, Secrecy::kOwnerOnly)->size(), 100000u);
  const auto over = ReadStateFile(exact, 99999, Secrecy::kOwnerOnly);
  EXPECT_THAT(Message(over.status()), HasSubstr("exact: is larger than 99999 bytes"));
  EXPECT_EQ(*ReadStateFile(dir.Write("empty", ""), 10, Secrecy::kPublic), "");
}

TEST(StateFileTest, NoFileIsNotFoundAndOtherThingsAreNoFiles) {
  const TemporaryDirectory dir;
  EXPECT_TRUE(absl::IsNotFound(ReadStateFile(dir / "none", 10, Secrecy::kPublic).status()));
  EXPECT_THAT(Message(ReadStateFile(dir.path(), 10, Secrecy::kPublic).status()),
              HasSubstr("is no regular file"));
  // Nobody writes to it: reading would wait for ever.
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(Message(ReadStateFile(dir / "fifo", 10, Secrecy::kOwnerOnly).status()),
              HasSubstr("is no regular file"));
}

TEST(StateFileTest, SecretsThatOthersCanReadAreRefused) {
  const TemporaryDirectory dir;
  struct Case {
    mode_t mode;
    bool owner_only;
    bool not_others;
  };
  for (const Case& at : {Case{0600, true, true}, Case{0400, true, true}, Case{0640, false, true},
                         Case{0620, false, true}, Case{0604, false, false},
                         Case{0602, false, false}, Case{0644, false, false}}) {
    SCOPED_TRACE(at.mode);
    const std::string file = dir.Write("secret", "s", at.mode);
    EXPECT_EQ(ReadStateFile(file, 10, Secrecy::kOwnerOnly).ok(), at.owner_only);
    EXPECT_EQ(ReadStateFile(file, 10, Secrecy::kNotOthers).ok(), at.not_others);
    EXPECT_TRUE(ReadStateFile(file, 10, Secrecy::kPublic).ok());
  }
  const auto refused = ReadStateFile(dir / "secret", 10, Secrecy::kOwnerOnly);
  EXPECT_THAT(Message(refused.status()), HasSubstr("mode 0644"));
  EXPECT_THAT(Message(refused.status()), HasSubstr("chmod 600 " + (dir / "secret")));
}

TEST(StateFileTest, SecretsOfAnotherUserAreRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  const TemporaryDirectory dir;
  const std::string file = dir.Write("secret", "s", 0600);
  ASSERT_EQ(chown(file.c_str(), 12345, 0), 0);
  EXPECT_THAT(Message(ReadStateFile(file, 10, Secrecy::kOwnerOnly).status()),
              HasSubstr("belongs to user 12345"));
}

TEST(StateFileTest, MadeFilesAreSecretWholeAndNeverReplaced) {
  const TemporaryDirectory dir;
  const mode_t before = umask(0);
  ASSERT_TRUE(MakeStateFile(dir / "made", "first").ok());
  umask(before);
  EXPECT_EQ(TemporaryDirectory::Mode(dir / "made"), 0600u);
  EXPECT_TRUE(absl::IsAlreadyExists(MakeStateFile(dir / "made", "second")));
  EXPECT_EQ(TemporaryDirectory::Read(dir / "made"), "first");
  EXPECT_EQ(dir.Files(), 1u) << "nothing temporary stays";
  EXPECT_THAT(Message(MakeStateFile(dir / "no/such", "x")), HasSubstr("No such file"));
}

TEST(StateFileTest, OfManyMakersOneWins) {
  const TemporaryDirectory dir;
  std::atomic<int> won{0};
  std::vector<std::thread> makers;
  for (int i = 0; i < 16; ++i) {
    makers.emplace_back([&, i] {
      const absl::Status made = MakeStateFile(dir / "made", std::string(1000, 'a' + i));
      if (made.ok()) won.fetch_add(1);
      EXPECT_TRUE(made.ok() || absl::IsAlreadyExists(made)) << made;
    });
  }
  for (std::thread& maker : makers) maker.join();
  EXPECT_EQ(won.load(), 1);
  const std::string text = TemporaryDirectory::Read(dir / "made");
  EXPECT_EQ(text, std::string(1000, text[0]));
  EXPECT_EQ(dir.Files(), 1u);
}

TEST(StateFileTest, DirectoryIsMadePrivateAndChecked) {
  const TemporaryDirectory dir;
  ASSERT_TRUE(PrepareStateDirectory(dir / "state").ok());
  EXPECT_EQ(TemporaryDirectory::Mode(dir / "state"), 0700u);
  EXPECT_TRUE(PrepareStateDirectory(dir / "state").ok());
  ASSERT_EQ(chmod((dir / "state").c_str(), 0770), 0);
  EXPECT_THAT(Message(PrepareStateDirectory(dir / "state")), HasSubstr("chmod 700"));
  EXPECT_THAT(Message(PrepareStateDirectory(dir / "a/b")), HasSubstr("--state-dir"));
  EXPECT_THAT(Message(PrepareStateDirectory(dir.Write("file", ""))), HasSubstr("is no directory"));
}

TEST(StateFileTest, DirectoryOfAnotherUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a directory away";
  const TemporaryDirectory dir;
  ASSERT_TRUE(PrepareStateDirectory(dir / "state").ok());
  ASSERT_EQ(chown((dir / "state").c_str(), 12345, 0), 0);
  EXPECT_THAT(Message(PrepareStateDirectory(dir / "state")), HasSubstr("belongs to user 12345"));
}

TEST(StateFileTest, DirectoryIsForOneRelayAtATime) {
  const TemporaryDirectory dir;
  {
    const auto first = LockStateDirectory(dir.path());
    ASSERT_TRUE(first.ok());
    EXPECT_THAT(Message(LockStateDirectory(dir.path()).status()),
                HasSubstr("another ringsock-relay uses it"));
  }
  EXPECT_TRUE(LockStateDirectory(dir.path()).ok());
}

}  // namespace
}  // namespace ringsock::relay
