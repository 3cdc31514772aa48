// Counts operator new on chosen threads. Linked into a test, it replaces the global operators.
#ifndef RINGSOCK_TESTS_CORE_ALLOCATION_COUNTER_H_
#define RINGSOCK_TESTS_CORE_ALLOCATION_COUNTER_H_

#include <cstdint>

namespace ringsock {

// Whether allocations of this thread count, from now on. At first they do not.
void CountAllocations(bool on);
// Of all threads that count.
uint64_t Allocations();
// Bytes of all threads that were allocated and not freed, with what the allocator adds to each
// block. Not what it holds beside that, in pieces that nobody wants.
int64_t LiveBytes();

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_ALLOCATION_COUNTER_H_
