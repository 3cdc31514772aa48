// Counts the locks that chosen threads take: mutexes, reader-writer locks, spin locks, barriers,
// semaphores and condition variables of the C library, of which std::mutex and its like are made.
// Linked into a test, it stands before them. (Absl's locks are kept out by tests/style.)
#ifndef RINGSOCK_TESTS_CORE_LOCK_COUNTER_H_
#define RINGSOCK_TESTS_CORE_LOCK_COUNTER_H_

#include <cstdint>

namespace ringsock {

// Whether locks that this thread takes count, from now on. At first they do not.
void CountLocks(bool on);
// Of all threads that count.
uint64_t LocksTaken();

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_LOCK_COUNTER_H_
