// The flood of ringsock-flood: what it is made of, and that it leaves.
#include "bench/flood/flooder.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <string>

#include "bench/sockets.h"

namespace ringsock::bench {
namespace {

constexpr uint32_t kFirst = (127u << 24) | (9u << 16) | 1;

class FlooderTest : public testing::TestWithParam<FloodKind> {};

TEST_P(FlooderTest, SendsItsKindFromAllItsSources) {
  const auto fd = OpenUdpSocket({IpAddress::V4(127, 0, 0, 1), 0}, 1 << 20);
  ASSERT_TRUE(fd.ok()) << fd.status();
  FloodConfig config;
  config.kind = GetParam();
  config.rate = 20'000;
  config.first_address = kFirst;
  config.sources = 4;
  config.target = {IpAddress::V4(127, 0, 0, 1), LocalPort(*fd)};
  config.core = AllowedCores().front();
  auto flooder = Flooder::Start(config);
  ASSERT_TRUE(flooder.ok()) << flooder.status();
  std::set<uint32_t> sources;
  std::set<size_t> sizes;
  for (int i = 0; i < 200; ++i) {
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    std::string bytes(2000, '\0');
    const ssize_t size =
        recvfrom(*fd, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
    ASSERT_GE(size, 0) << strerror(errno);
    bytes.resize(static_cast<size_t>(size));
    sources.insert(Endpoint::FromSockaddr(from).ip.V4HostOrder());
    sizes.insert(bytes.size());
    if (GetParam() == FloodKind::kStun) {
      EXPECT_EQ(bytes.substr(4, 4), "\x21\x12\xa4\x42");
    } else if (GetParam() != FloodKind::kGarbage) {
      const char type = GetParam() == FloodKind::kHandshake ? 1 : 4;
      EXPECT_EQ(bytes.substr(0, 4), std::string({type, 0, 0, 0}));
    }
  }
  EXPECT_EQ(sources.size(), 4u);
  EXPECT_EQ(*sources.begin(), kFirst);
  EXPECT_EQ(sizes.size() > 1, GetParam() == FloodKind::kGarbage);
  EXPECT_GT((*flooder)->sent(), 0u);
  flooder->reset();
  close(*fd);
}

INSTANTIATE_TEST_SUITE_P(All, FlooderTest,
                         testing::Values(FloodKind::kUnknown, FloodKind::kStun,
                                         FloodKind::kHandshake, FloodKind::kGarbage),
                         [](const testing::TestParamInfo<FloodKind>& info) {
                           return FloodName(info.param);
                         });

TEST(ParseFloodsTest, NamesAndAll) {
  EXPECT_EQ(*ParseFloods("stun,garbage"),
            (std::vector<FloodKind>{FloodKind::kStun, FloodKind::kGarbage}));
  EXPECT_EQ(ParseFloods("all")->size(), 4u);
  EXPECT_FALSE(ParseFloods("none").ok());
  EXPECT_FALSE(ParseFloods("stun,").ok());
  EXPECT_FALSE(ParseFloods("syn").ok());
}

}  // namespace
}  // namespace ringsock::bench
