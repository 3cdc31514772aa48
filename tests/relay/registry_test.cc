// Logins and logouts of one key, and whom they are told to.
#include "relay/registry.h"

#include <gmock/gmock.h>

#include "io/sim_network.h"

namespace ringsock::relay {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class RegistryTest : public testing::Test {
 protected:
  RegistryTest() { mailbox_.SetLoop(loop_.get()); }

  static Limits TwoPerKey() {
    Limits limits;
    limits.max_connections_per_key = 2;
    return limits;
  }
  static ConnectionRef Ref(uint32_t slot) { return {0, slot, 1}; }
  // True if there is another connection.
  bool Login(uint32_t slot) {
    bool duplicate = false;
    EXPECT_TRUE(registry_.Login(key_, Ref(slot), /*mesh=*/false, &duplicate));
    return duplicate;
  }
  // Slots that were told `kind` since the last time.
  std::vector<uint32_t> Told(Notice::Kind kind) {
    std::vector<uint32_t> slots;
    for (const Notice& notice : mailbox_.Take().notices) {
      if (notice.kind == kind) slots.push_back(notice.route.ref.slot);
    }
    return slots;
  }

  io::SimNetwork net_{1};
  const std::unique_ptr<io::SimLoop> loop_ =
      net_.CreateLoop(net_.AddHost("relay", {IpAddress::V4(192, 0, 2, 1)}), {});
  Mailbox mailbox_;
  const Limits limits_ = TwoPerKey();
  Registry registry_{limits_, {&mailbox_}};
  const PublicKey key_{};
};

// Connections that were told to go are still there until their workers have read it; however fast
// others of the key come, all but the newest are told.
TEST_F(RegistryTest, AllConnectionsOverTheLimitAreClosed) {
  EXPECT_FALSE(Login(1));
  EXPECT_TRUE(Login(2));
  EXPECT_THAT(Told(Notice::Kind::kCloseOldest), IsEmpty());
  Login(3);
  EXPECT_THAT(Told(Notice::Kind::kCloseOldest), ElementsAre(1));
  Login(4);
  EXPECT_THAT(Told(Notice::Kind::kCloseOldest), ElementsAre(1, 2));
}

TEST_F(RegistryTest, TheNewestThatIsLeftInherits) {
  Login(1);
  Login(2);
  Login(3);
  Registry::Remainder left = registry_.Logout(key_, Ref(3));
  EXPECT_FALSE(left.nobody);
  EXPECT_EQ(left.heir, Ref(2));
  EXPECT_EQ(registry_.Logout(key_, Ref(1)).heir, Ref(2));
  EXPECT_FALSE(registry_.Logout(key_, Ref(1)).heir.has_value()) << "it has gone before";
  registry_.AddMeshRoute(key_, Ref(9));
  left = registry_.Logout(key_, Ref(2));
  EXPECT_FALSE(left.nobody) << "it is on another server of the mesh";
  EXPECT_FALSE(left.heir.has_value());
}

TEST_F(RegistryTest, TheLastOfAKeyLeavesNobody) {
  Login(1);
  EXPECT_TRUE(registry_.Logout(key_, Ref(1)).nobody);
  EXPECT_FALSE(registry_.Logout(key_, Ref(1)).nobody);
}

}  // namespace
}  // namespace ringsock::relay
