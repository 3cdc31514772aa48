// Lines of a stream, in whatever pieces it comes.
#include "cat/line_splitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace ringsock::cat {
namespace {

using testing::ElementsAre;

// The lines of `text` fed `piece` bytes at a time; "!" stands for one that was too long.
std::vector<std::string> Split(const std::string& text, size_t piece, size_t max_line) {
  LineSplitter lines(max_line);
  std::vector<std::string> found;
  const auto on_line = [&found](absl::string_view line) { found.emplace_back(line); };
  for (size_t at = 0; at < text.size(); at += piece) {
    lines.Add(absl::string_view(text).substr(at, piece), on_line,
              [&found] { found.emplace_back("!"); });
  }
  lines.Finish(on_line);
  return found;
}

TEST(LineSplitter, EveryPieceSizeGivesTheSameLines) {
  const std::string text = "one\n\ntwo\nexact\nlonger\nthree\nmuch too long\nend";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    EXPECT_THAT(Split(text, piece, 5), ElementsAre("one", "two", "exact", "!", "three", "!", "end"))
        << piece;
  }
}

TEST(LineSplitter, NothingAndOnlyLineEnds) {
  EXPECT_THAT(Split("", 1, 5), ElementsAre());
  EXPECT_THAT(Split("\n\n\n", 2, 5), ElementsAre());
}

}  // namespace
}  // namespace ringsock::cat
