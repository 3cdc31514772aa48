// When a socket whose receives fail is tried again.
#include "io/receive_errors.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace ringsock::io {
namespace {

using std::chrono::milliseconds;

constexpr Instant kNow = Instant(std::chrono::seconds(5));

Duration Pause(ReceiveErrors& errors) {
  return errors.Failed(ENOMEM, {IpAddress::V4(127, 0, 0, 1), 1, 0}, kNow) - kNow;
}

TEST(ReceiveErrorsTest, AFewAreTriedAgainAtOnceMoreAfterABoundedPause) {
  ReceiveErrors errors;
  for (uint32_t i = 0; i < ReceiveErrors::kPatience; ++i) {
    EXPECT_EQ(Pause(errors), Duration::zero());
  }
  for (int i = 1; i <= 10; ++i) EXPECT_EQ(Pause(errors), milliseconds(i));
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(Pause(errors), milliseconds(10));
}

TEST(ReceiveErrorsTest, APacketEndsTheRow) {
  ReceiveErrors errors;
  for (int i = 0; i < 20; ++i) Pause(errors);
  errors.Received();
  EXPECT_EQ(Pause(errors), Duration::zero());
}

}  // namespace
}  // namespace ringsock::io
