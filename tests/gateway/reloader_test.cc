// Files that change while a gateway runs, and when they come into force. The kernel has queued its
// events when the call that causes them returns, and the time is the test's.
#include "gateway/reloader.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace ringsock::gateway {
namespace {

constexpr char kPrivate[] = "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0=";
constexpr char kMap[] = R"({"Regions": {
    "1": {"RegionID": 1, "Nodes": [{"Name": "1a", "HostName": "relay.example"}]}}})";

class ReloaderTest : public testing::Test {
 protected:
  ReloaderTest() {
    folder_ = std::string(std::getenv("TEST_TMPDIR")) + "/XXXXXX";
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    Write("wg.key", std::string(kPrivate) + "\n");
    EXPECT_EQ(chmod((folder_ + "/wg.key").c_str(), 0600), 0);
  }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  // `more` stands before the peers, of which there is none. Tests give ports of different length:
  // the clock of a file system may stand still between two writes, but then the size tells them.
  void WriteConfig(int port, const std::string& more = "") {
    Write("gw.json", R"({"wireguard": {"port": 51820}, "local_port": 51821, )" + more +
                         R"("peers": [], "listen_port": )" + std::to_string(port) + "}");
  }
  // With relays, whose map is in a folder of its own.
  void WriteConfigWithMap(int port) {
    WriteConfig(port, R"("private_key_file": "wg.key", "derp_map": "maps/relays.json", )");
  }
  void Start() {
    const absl::StatusOr<Config> config = LoadConfig(folder_ + "/gw.json");
    ASSERT_TRUE(config.ok()) << config.status();
    Follow(*config);
  }
  void Follow(const Config& config) {
    reloader_ = std::make_unique<Reloader>(
        folder_ + "/gw.json", config,
        [this](const Config& next) {
          ports_.push_back(next.listen_port);
          return absl::OkStatus();
        },
        now_);
  }
  // As a program does that waits for its descriptor and its deadlines.
  void Pass(Duration time) {
    for (const Instant end = now_ + time; now_ < end;) {
      if (reloader_->fd() >= 0) reloader_->OnReadable(now_);
      now_ = std::min(end, std::max(now_, reloader_->NextDeadline()));
      reloader_->Advance(now_);
    }
  }

  std::string folder_;
  Instant now_{std::chrono::hours(1)};
  std::unique_ptr<Reloader> reloader_;
  std::vector<int> ports_;  // of what came into force
};

TEST_F(ReloaderTest, AChangeCountsWhenItHasSettled) {
  WriteConfig(1);
  Start();
  WriteConfig(20);
  Pass(FileWatch::kSettle / 2);
  WriteConfig(300);
  Pass(FileWatch::kSettle);
  EXPECT_EQ(ports_, std::vector<int>{300});
  Pass(3 * Reloader::kLookAgain);
  EXPECT_EQ(ports_.size(), 1u);
}

// The map comes to a folder that nobody watches, since it was not there when the configuration was
// read, and the other file changes with it.
TEST_F(ReloaderTest, HalfOfAChangeIsNotTakenWhenARefusedConfigurationIsLookedAtAgain) {
  WriteConfig(1);
  Start();
  WriteConfigWithMap(2);
  Pass(Reloader::kLookAgain - FileWatch::kSettle / 2);
  EXPECT_TRUE(ports_.empty());
  ASSERT_EQ(mkdir((folder_ + "/maps").c_str(), 0700), 0);
  Pass(FileWatch::kSettle / 4);
  Write("maps/relays.json", kMap);
  Pass(FileWatch::kSettle / 2);  // looks again
  EXPECT_TRUE(ports_.empty()) << "did not wait for the rest";
  WriteConfigWithMap(30);
  Pass(FileWatch::kSettle);
  EXPECT_EQ(ports_, std::vector<int>{30});
}

TEST_F(ReloaderTest, AFileThatIsStillWrittenWhereNobodyTellsIsWaitedFor) {
  WriteConfig(1);
  Start();
  WriteConfigWithMap(2);
  Pass(FileWatch::kSettle);  // refused
  Pass(Reloader::kLookAgain - FileWatch::kSettle - FileWatch::kSettle / 2);
  ASSERT_EQ(mkdir((folder_ + "/maps").c_str(), 0700), 0);
  Write("maps/relays.json", std::string(kMap).substr(0, 20));
  Pass(FileWatch::kSettle);  // looks again
  Write("maps/relays.json", kMap);
  Pass(FileWatch::kSettle);  // reads otherwise once more
  EXPECT_TRUE(ports_.empty());
  Pass(FileWatch::kSettle);
  EXPECT_EQ(ports_, std::vector<int>{2});
  Pass(2 * Reloader::kLookAgain);
  EXPECT_EQ(ports_.size(), 1u);
}

TEST_F(ReloaderTest, WithoutEventsAChangeIsSeenAllTheSame) {
  WriteConfig(1);
  rlimit files;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  const absl::StatusOr<Config> config = LoadConfig(folder_ + "/gw.json");
  ASSERT_TRUE(config.ok()) << config.status();
  // So that there is no descriptor for them.
  const rlimit none = {0, files.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  Follow(*config);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  ASSERT_EQ(reloader_->fd(), -1);
  WriteConfig(20);
  Pass(Reloader::kLookAgain + FileWatch::kSettle);
  EXPECT_EQ(ports_, std::vector<int>{20});
}

}  // namespace
}  // namespace ringsock::gateway
