// Files that change in the ways people and tools change them. The kernel has queued its events
// when the call that causes them returns, and the time is the test's.
#include "gateway/file_watch.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

class FileWatchTest : public testing::Test {
 protected:
  FileWatchTest() {
    folder_ = std::string(std::getenv("TEST_TMPDIR")) + "/XXXXXX";
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    file_ = folder_ + "/config.json";
    Write(file_, "one");
    EXPECT_TRUE(watch_.ok()) << watch_.error();
  }
  static void Write(const std::string& file, const std::string& text) {
    std::ofstream(file) << text;
  }
  void Rename(const std::string& from, const std::string& to) {
    EXPECT_EQ(rename(from.c_str(), to.c_str()), 0);
  }
  // Whether a change is told after all that has happened has settled.
  bool Settled() {
    watch_.ReadEvents(now_);
    now_ += FileWatch::kSettle;
    return watch_.Changed(now_);
  }

  std::string folder_;
  std::string file_;
  FileWatch watch_;
  Instant now_{std::chrono::hours(1)};
};

TEST_F(FileWatchTest, WrittenInPlace) {
  watch_.SetFiles({file_}, now_);
  EXPECT_EQ(watch_.NextDeadline(), Instant::max());
  EXPECT_FALSE(Settled());
  Write(file_, "three");
  EXPECT_TRUE(Settled());
  EXPECT_FALSE(Settled());  // told once
}

TEST_F(FileWatchTest, ReplacedByARename) {
  watch_.SetFiles({file_}, now_);
  Write(folder_ + "/new", "two");
  EXPECT_FALSE(Settled());  // not ours yet
  Rename(folder_ + "/new", file_);
  EXPECT_TRUE(Settled());
  unlink(file_.c_str());
  EXPECT_TRUE(Settled());
  Write(file_, "back");
  EXPECT_TRUE(Settled());
}

TEST_F(FileWatchTest, WaitsUntilItHasSettledButNotForEver) {
  watch_.SetFiles({file_}, now_);
  const Instant begin = now_;
  Write(file_, "a");
  watch_.ReadEvents(now_);
  EXPECT_EQ(watch_.NextDeadline(), begin + FileWatch::kSettle);
  while (now_ < begin + FileWatch::kMaxSettle) {
    EXPECT_FALSE(watch_.Changed(now_));
    now_ += FileWatch::kSettle / 2;
    std::ofstream(file_, std::ios::app) << "a";
    watch_.ReadEvents(now_);
  }
  EXPECT_EQ(watch_.NextDeadline(), begin + FileWatch::kMaxSettle);
  EXPECT_TRUE(watch_.Changed(now_));
}

// As a Kubernetes ConfigMap does: the file is a link into a folder, by way of a link that is
// replaced.
TEST_F(FileWatchTest, BehindSymbolicLinks) {
  const std::string one = folder_ + "/..one";
  const std::string two = folder_ + "/..two";
  for (const std::string& version : {one, two}) {
    ASSERT_EQ(mkdir(version.c_str(), 0700), 0);
    Write(version + "/map.json", version);
  }
  ASSERT_EQ(symlink("..one", (folder_ + "/..data").c_str()), 0);
  ASSERT_EQ(symlink("..data/map.json", (folder_ + "/map.json").c_str()), 0);
  watch_.SetFiles({folder_ + "/map.json"}, now_);
  EXPECT_FALSE(Settled());
  ASSERT_EQ(symlink("..two", (folder_ + "/..tmp").c_str()), 0);
  Rename(folder_ + "/..tmp", folder_ + "/..data");
  EXPECT_TRUE(Settled());
  Write(two + "/map.json", "in place, where the link leads now");
  EXPECT_TRUE(Settled());
}

TEST_F(FileWatchTest, AFolderThatComesLaterAndOneThatIsReplaced) {
  const std::string late = folder_ + "/late";
  watch_.SetFiles({file_, late + "/x"}, now_);
  EXPECT_EQ(watch_.NextDeadline(), now_ + FileWatch::kMissingInterval);
  ASSERT_EQ(mkdir(late.c_str(), 0700), 0);
  Write(late + "/x", "x");
  now_ += FileWatch::kMissingInterval;
  EXPECT_TRUE(watch_.Changed(now_));
  EXPECT_EQ(watch_.NextDeadline(), Instant::max());
  Rename(late, folder_ + "/away");
  EXPECT_TRUE(Settled());
  ASSERT_EQ(mkdir(late.c_str(), 0700), 0);
  Write(late + "/x", "y");
  watch_.ReadEvents(now_);
  now_ += FileWatch::kMissingInterval;
  EXPECT_TRUE(watch_.Changed(now_));
}

TEST_F(FileWatchTest, OtherFilesAndWhatWasReadAlreadyAreNoChange) {
  watch_.SetFiles({file_}, now_);
  Write(folder_ + "/other", "x");
  EXPECT_FALSE(Settled());
  Write(file_, "two");
  watch_.Forget();
  EXPECT_FALSE(Settled());
  // The set changes; a change in what stays in it is told all the same.
  Write(file_, "three");
  watch_.SetFiles({file_, folder_ + "/other"}, now_);
  EXPECT_TRUE(Settled());
  watch_.SetFiles({folder_ + "/other"}, now_);
  Write(file_, "nobody looks");
  EXPECT_FALSE(Settled());
}

}  // namespace
}  // namespace ringsock::gateway
