// Which threads write which cache lines. It works in a build with -fsanitize=thread only: there the
// compiler calls a function for each access, and programs that link this have their own in front of
// the sanitizer's, which then finds no races.
#ifndef RINGSOCK_TESTS_CORE_TRAFFIC_WRITE_WATCH_H_
#define RINGSOCK_TESTS_CORE_TRAFFIC_WRITE_WATCH_H_

#include <cstddef>
#include <cstdint>

namespace ringsock {

// What the calling thread writes counts as number `thread`'s (0 to 7), from Watch(true), which
// forgets what was before, to Watch(false).
void WatchThisThread(int thread);
void Watch(bool on);

// A line that several threads wrote.
struct SharedLine {
  uintptr_t address = 0;
  uint32_t threads = 0;      // a bit for each
  const void* code[8] = {};  // of each thread's first write
  uint32_t offset[8] = {};   // and where in the line
};
// Fills up to `size` of them, and returns how many there are.
size_t SharedLines(SharedLine* lines, size_t size);
// Lines that any thread wrote.
size_t WrittenLines();

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_TRAFFIC_WRITE_WATCH_H_
