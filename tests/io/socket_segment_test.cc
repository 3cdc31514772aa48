// When a socket changes to a segment size, and when not.
#include "io/socket_segment.h"

#include <gtest/gtest.h>

namespace ringsock::io {
namespace {

// Trains of `size` until the socket is to change; -1: it is not.
int TrainsUntilWanted(SocketSegment* segment, uint32_t size) {
  for (int i = 1; i <= 1000; ++i) {
    if (segment->Wants(size)) return i;
  }
  return -1;
}

TEST(SocketSegmentTest, ChangesToTheSizeOfMostTrains) {
  SocketSegment segment;
  EXPECT_EQ(segment.size(), 0u);
  EXPECT_EQ(TrainsUntilWanted(&segment, 1400), static_cast<int>(SocketSegment::kEnough));
  segment.Set(1400);
  EXPECT_EQ(segment.size(), 1400u);
  EXPECT_EQ(TrainsUntilWanted(&segment, 1400), -1) << "it is set to that";
  EXPECT_GE(TrainsUntilWanted(&segment, 1280), static_cast<int>(2 * SocketSegment::kEnough));
}

TEST(SocketSegmentTest, TwoSizesInTurnsChangeNothing) {
  SocketSegment segment;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(segment.Wants(1400));
    EXPECT_FALSE(segment.Wants(1280));
  }
}

TEST(SocketSegmentTest, WhatFits) {
  SocketSegment segment;
  EXPECT_TRUE(segment.Fits(9000, 9000, 1));
  EXPECT_FALSE(segment.Fits(2800, 1400, 2));
  segment.Set(1400);
  EXPECT_TRUE(segment.Fits(2800, 1400, 2));
  EXPECT_TRUE(segment.Fits(1500, 1400, 2));
  EXPECT_FALSE(segment.Fits(2560, 1280, 2));
  EXPECT_TRUE(segment.Fits(0, 0, 1));
  EXPECT_TRUE(segment.Fits(1400, 1400, 1));
  EXPECT_FALSE(segment.Fits(1401, 1401, 1));
}

TEST(SocketSegmentTest, OffIsForGood) {
  SocketSegment segment;
  segment.Set(1400);
  segment.TurnOff(/*cleared=*/false);
  EXPECT_EQ(segment.size(), 1400u) << "as the socket has it";
  EXPECT_EQ(TrainsUntilWanted(&segment, 1280), -1);
  segment.TurnOff(/*cleared=*/true);
  EXPECT_EQ(segment.size(), 0u);
  EXPECT_EQ(TrainsUntilWanted(&segment, 1400), -1);
}

}  // namespace
}  // namespace ringsock::io
