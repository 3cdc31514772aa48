// Gives a test a network of its own before main(), with loopback and nothing else in it. Ports that
// it gives up for a moment, or knows to be closed, are then taken by no other test, and nobody's
// late packets come to a port that it gets. Without the right to have one it stays where it is.
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

[[gnu::constructor]] void EnterOwnNetwork() {
  if (unshare(CLONE_NEWNET) != 0) return;
  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  memcpy(request.ifr_name, "lo", 3);
  request.ifr_flags = IFF_UP;
  if (control < 0 || ioctl(control, SIOCSIFFLAGS, &request) != 0) {
    perror("loopback of the test's own network");
    std::abort();
  }
  close(control);
}

}  // namespace
