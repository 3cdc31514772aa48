// The functions that the compiler calls. This file is not built for the sanitizer itself, and uses
// no templates, whose code might come from a file that is.
#include "tests/core/traffic/write_watch.h"

namespace {

constexpr size_t kSlots = 1 << 16;
constexpr int kThreads = 8;

struct Slot {
  uintptr_t line;  // 0: free
  uint32_t threads;
  const void* code[kThreads];
  uint32_t offset[kThreads];
};

Slot g_slots[kSlots];
size_t g_used = 0;
int g_watching = 0;
thread_local int this_thread = -1;

// Null: no room.
Slot* Find(uintptr_t line) {
  size_t at = (line * 0x9e3779b97f4a7c15u) >> 48;
  for (size_t tries = 0; tries < kSlots; ++tries, at = (at + 1) % kSlots) {
    uintptr_t there = __atomic_load_n(&g_slots[at].line, __ATOMIC_ACQUIRE);
    if (there == line) return &g_slots[at];
    if (there != 0) continue;
    if (__atomic_compare_exchange_n(&g_slots[at].line, &there, line, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
      __atomic_fetch_add(&g_used, 1, __ATOMIC_RELAXED);
      return &g_slots[at];
    }
    if (there == line) return &g_slots[at];
  }
  return nullptr;
}

void Wrote(const volatile void* memory, size_t size, const void* code) {
  const int thread = this_thread;
  if (thread < 0 || __atomic_load_n(&g_watching, __ATOMIC_RELAXED) == 0) return;
  const auto address = reinterpret_cast<uintptr_t>(memory);
  for (uintptr_t line = address / 64; line <= (address + size - 1) / 64; ++line) {
    Slot* slot = Find(line);
    if (slot == nullptr) __builtin_trap();
    const uint32_t bit = 1u << thread;
    if ((__atomic_load_n(&slot->threads, __ATOMIC_RELAXED) & bit) != 0) continue;
    slot->code[thread] = code;
    slot->offset[thread] = static_cast<uint32_t>(address % 64);
    __atomic_fetch_or(&slot->threads, bit, __ATOMIC_RELEASE);
  }
}

}  // namespace

#define RINGSOCK_CODE __builtin_return_address(0)
#define RINGSOCK_ACCESS(size)                                                   \
  void __tsan_read##size(void*) {}                                              \
  void __tsan_unaligned_read##size(void*) {}                                    \
  void __tsan_write##size(void* memory) { Wrote(memory, size, RINGSOCK_CODE); } \
  void __tsan_unaligned_write##size(void* memory) { Wrote(memory, size, RINGSOCK_CODE); }
#define RINGSOCK_UPDATE(bits, Type, operation)                                     \
  Type __tsan_atomic##bits##_##operation(volatile Type* memory, Type value, int) { \
    Wrote(memory, bits / 8, RINGSOCK_CODE);                                        \
    return __atomic_##operation(memory, value, __ATOMIC_SEQ_CST);                  \
  }
#define RINGSOCK_COMPARE(bits, Type, strength, weak)                                      \
  int __tsan_atomic##bits##_compare_exchange_##strength(volatile Type* memory, Type* old, \
                                                        Type value, int, int) {           \
    Wrote(memory, bits / 8, RINGSOCK_CODE);                                               \
    return __atomic_compare_exchange_n(memory, old, value, weak, __ATOMIC_SEQ_CST,        \
                                       __ATOMIC_SEQ_CST);                                 \
  }
#define RINGSOCK_ATOMIC(bits, Type)                                             \
  Type __tsan_atomic##bits##_load(const volatile Type* memory, int) {           \
    return __atomic_load_n(memory, __ATOMIC_SEQ_CST);                           \
  }                                                                             \
  void __tsan_atomic##bits##_store(volatile Type* memory, Type value, int) {    \
    Wrote(memory, bits / 8, RINGSOCK_CODE);                                     \
    __atomic_store_n(memory, value, __ATOMIC_SEQ_CST);                          \
  }                                                                             \
  Type __tsan_atomic##bits##_exchange(volatile Type* memory, Type value, int) { \
    Wrote(memory, bits / 8, RINGSOCK_CODE);                                     \
    return __atomic_exchange_n(memory, value, __ATOMIC_SEQ_CST);                \
  }                                                                             \
  RINGSOCK_UPDATE(bits, Type, fetch_add)                                        \
  RINGSOCK_UPDATE(bits, Type, fetch_sub)                                        \
  RINGSOCK_UPDATE(bits, Type, fetch_and)                                        \
  RINGSOCK_UPDATE(bits, Type, fetch_or)                                         \
  RINGSOCK_UPDATE(bits, Type, fetch_xor)                                        \
  RINGSOCK_COMPARE(bits, Type, strong, false)                                   \
  RINGSOCK_COMPARE(bits, Type, weak, true)

extern "C" {
RINGSOCK_ACCESS(1)
RINGSOCK_ACCESS(2)
RINGSOCK_ACCESS(4)
RINGSOCK_ACCESS(8)
RINGSOCK_ACCESS(16)
RINGSOCK_ATOMIC(8, unsigned char)
RINGSOCK_ATOMIC(16, unsigned short)
RINGSOCK_ATOMIC(32, unsigned)
RINGSOCK_ATOMIC(64, unsigned long)
void __tsan_read_range(void*, unsigned long) {}
void __tsan_write_range(void* memory, unsigned long size) {
  if (size != 0) Wrote(memory, size, RINGSOCK_CODE);
}
void __tsan_vptr_update(void** memory, void*) { Wrote(memory, 8, RINGSOCK_CODE); }
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}

// The sanitizer sees neither accesses nor what orders them.
const char* __tsan_default_options() { return "report_bugs=0"; }
}

namespace ringsock {

void WatchThisThread(int thread) { this_thread = thread; }
void Watch(bool on) {
  if (on) {
    for (Slot& slot : g_slots) slot = Slot{};
    g_used = 0;
  }
  __atomic_store_n(&g_watching, on ? 1 : 0, __ATOMIC_SEQ_CST);
}

size_t SharedLines(SharedLine* lines, size_t size) {
  size_t count = 0;
  for (const Slot& slot : g_slots) {
    if ((slot.threads & (slot.threads - 1)) == 0) continue;
    if (count++ >= size) continue;
    SharedLine& line = lines[count - 1];
    line.address = slot.line * 64;
    line.threads = slot.threads;
    for (int i = 0; i < kThreads; ++i) {
      line.code[i] = slot.code[i];
      line.offset[i] = slot.offset[i];
    }
  }
  return count;
}

size_t WrittenLines() { return g_used; }

}  // namespace ringsock
