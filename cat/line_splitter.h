// Cuts a byte stream into lines of a bounded length, whatever pieces it comes in.
#ifndef RINGSOCK_CAT_LINE_SPLITTER_H_
#define RINGSOCK_CAT_LINE_SPLITTER_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace ringsock::cat {

// A line that is longer than the bound is skipped to its end, and named once.
class LineSplitter {
 public:
  explicit LineSplitter(size_t max_line) : max_line_(max_line) {}

  // Calls on_line(absl::string_view) for each whole line but empty ones, and on_too_long() for each
  // that is over the bound. Views are gone when the callback returns.
  template <typename OnLine, typename OnTooLong>
  void Add(absl::string_view bytes, OnLine&& on_line, OnTooLong&& on_too_long) {
    while (!bytes.empty()) {
      const size_t end = bytes.find('\n');
      Append(bytes.substr(0, end), on_too_long);
      if (end == absl::string_view::npos) return;
      EndLine(on_line);
      bytes.remove_prefix(end + 1);
    }
  }

  // At the end of the stream: what is left is a line without its end.
  template <typename OnLine>
  void Finish(OnLine&& on_line) {
    EndLine(on_line);
  }

 private:
  template <typename OnTooLong>
  void Append(absl::string_view piece, OnTooLong&& on_too_long) {
    if (skipping_) return;
    if (line_.size() + piece.size() > max_line_) {
      skipping_ = true;
      line_.clear();
      on_too_long();
      return;
    }
    line_.append(piece.data(), piece.size());
  }
  template <typename OnLine>
  void EndLine(OnLine&& on_line) {
    if (!skipping_ && !line_.empty()) on_line(absl::string_view(line_));
    skipping_ = false;
    line_.clear();
  }

  const size_t max_line_;
  std::string line_;       // at most max_line_ bytes
  bool skipping_ = false;  // inside a line that is too long
};

}  // namespace ringsock::cat

#endif  // RINGSOCK_CAT_LINE_SPLITTER_H_
