// The functions that stand before the system's: each counts, then does what it is for.
#include "tests/core/lock_counter.h"

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>

#include <atomic>
#include <ctime>

namespace {

thread_local bool counting = false;
std::atomic<uint64_t> locks{0};

// The function of this name that is behind ours.
template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

template <typename... Arguments>
int Counted(std::atomic<int (*)(Arguments...)>* next, const char* name, Arguments... arguments) {
  if (counting) locks.fetch_add(1, std::memory_order_relaxed);
  // Not a static local: its guard is a lock.
  auto* function = next->load(std::memory_order_relaxed);
  if (function == nullptr) next->store(function = Next<int(Arguments...)>(name));
  return function(arguments...);
}

}  // namespace

#define STAND_BEFORE(name, ...)                                     \
  namespace {                                                       \
  std::atomic<int (*)(__VA_ARGS__)> next_##name{nullptr};           \
  template <typename... Arguments>                                  \
  int Count_##name(Arguments... arguments) {                        \
    return Counted<__VA_ARGS__>(&next_##name, #name, arguments...); \
  }                                                                 \
  }

STAND_BEFORE(pthread_mutex_lock, pthread_mutex_t*)
STAND_BEFORE(pthread_mutex_trylock, pthread_mutex_t*)
STAND_BEFORE(pthread_mutex_timedlock, pthread_mutex_t*, const timespec*)
STAND_BEFORE(pthread_mutex_clocklock, pthread_mutex_t*, clockid_t, const timespec*)
STAND_BEFORE(pthread_rwlock_rdlock, pthread_rwlock_t*)
STAND_BEFORE(pthread_rwlock_tryrdlock, pthread_rwlock_t*)
STAND_BEFORE(pthread_rwlock_wrlock, pthread_rwlock_t*)
STAND_BEFORE(pthread_rwlock_trywrlock, pthread_rwlock_t*)
STAND_BEFORE(pthread_spin_lock, pthread_spinlock_t*)
STAND_BEFORE(pthread_spin_trylock, pthread_spinlock_t*)
STAND_BEFORE(pthread_barrier_wait, pthread_barrier_t*)
STAND_BEFORE(pthread_cond_wait, pthread_cond_t*, pthread_mutex_t*)
STAND_BEFORE(pthread_cond_timedwait, pthread_cond_t*, pthread_mutex_t*, const timespec*)
STAND_BEFORE(pthread_cond_signal, pthread_cond_t*)
STAND_BEFORE(pthread_cond_broadcast, pthread_cond_t*)
STAND_BEFORE(sem_wait, sem_t*)
STAND_BEFORE(sem_post, sem_t*)

extern "C" {
int pthread_mutex_lock(pthread_mutex_t* a) noexcept { return Count_pthread_mutex_lock(a); }
int pthread_mutex_trylock(pthread_mutex_t* a) noexcept { return Count_pthread_mutex_trylock(a); }
int pthread_mutex_timedlock(pthread_mutex_t* a, const timespec* b) noexcept {
  return Count_pthread_mutex_timedlock(a, b);
}
int pthread_mutex_clocklock(pthread_mutex_t* a, clockid_t b, const timespec* c) noexcept {
  return Count_pthread_mutex_clocklock(a, b, c);
}
int pthread_rwlock_rdlock(pthread_rwlock_t* a) noexcept { return Count_pthread_rwlock_rdlock(a); }
int pthread_rwlock_tryrdlock(pthread_rwlock_t* a) noexcept {
  return Count_pthread_rwlock_tryrdlock(a);
}
int pthread_rwlock_wrlock(pthread_rwlock_t* a) noexcept { return Count_pthread_rwlock_wrlock(a); }
int pthread_rwlock_trywrlock(pthread_rwlock_t* a) noexcept {
  return Count_pthread_rwlock_trywrlock(a);
}
int pthread_spin_lock(pthread_spinlock_t* a) noexcept { return Count_pthread_spin_lock(a); }
int pthread_spin_trylock(pthread_spinlock_t* a) noexcept { return Count_pthread_spin_trylock(a); }
int pthread_barrier_wait(pthread_barrier_t* a) noexcept { return Count_pthread_barrier_wait(a); }
int pthread_cond_wait(pthread_cond_t* a, pthread_mutex_t* b) {
  return Count_pthread_cond_wait(a, b);
}
int pthread_cond_timedwait(pthread_cond_t* a, pthread_mutex_t* b, const timespec* c) {
  return Count_pthread_cond_timedwait(a, b, c);
}
int pthread_cond_signal(pthread_cond_t* a) noexcept { return Count_pthread_cond_signal(a); }
int pthread_cond_broadcast(pthread_cond_t* a) noexcept { return Count_pthread_cond_broadcast(a); }
int sem_wait(sem_t* a) { return Count_sem_wait(a); }
int sem_post(sem_t* a) noexcept { return Count_sem_post(a); }
}

namespace ringsock {

void CountLocks(bool on) { counting = on; }

uint64_t LocksTaken() { return locks.load(); }

}  // namespace ringsock
