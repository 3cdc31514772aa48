// A kernel that refuses sends, for the loops on the real network: programs that link this have
// their own sendmmsg and io_uring_enter2 in front of the system's, so that the loop under test is
// the one that is shipped.
#ifndef RINGSOCK_TESTS_IO_REFUSED_SENDS_H_
#define RINGSOCK_TESTS_IO_REFUSED_SENDS_H_

#include <functional>

namespace ringsock::io {

// Asked for every send of every loop from now on, with whether it is a train; returns what it fails
// with (errno, positive), or 0 to let it pass. Null: all pass. For one thread.
void RefuseSends(std::function<int(bool train)> refuse);

}  // namespace ringsock::io

#endif  // RINGSOCK_TESTS_IO_REFUSED_SENDS_H_
