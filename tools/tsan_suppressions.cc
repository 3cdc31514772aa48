// What thread sanitizer is told to pass over in every test.
#if defined(__SANITIZE_THREAD__)

// liburing maps and unmaps its rings by system calls of its own, which the sanitizer does not see.
// A ring that is mapped where an earlier one of another thread was then looks like a race with it.
// A ring is never shared, so nothing real hides behind this: all access goes through liburing, and
// Open() only writes to the ring it has just made.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:io_uring_\n"
         "race:IO_URING_\n"
         "race:ringsock::io::Uring::Open\n";
}

#endif
