// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "memory.hpp"
#include "sanitizers.hpp"

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>

#include <signal.h>
#include <sys/mman.h>
#if EMULATED_ASAN
#include <sanitizer/asan_interface.h>
#endif
#include <unistd.h>

namespace emulated {
namespace {

struct region {
  std::size_t bytes;  ///< asked for
  std::size_t room;   ///< whole pages from `margin` before it
};
constexpr std::size_t margin = 256;
constexpr std::size_t share = std::size_t{16} << 30, reserved = devices * share;  // of addresses, not of memory

std::recursive_mutex turn;
std::byte *arena = nullptr, *top[devices];
std::map<std::byte*, region> live;
int opened[devices];
struct sigaction before;

std::size_t page() {
  static auto const bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

/// The live region that begins last before p.
auto region_before(void const* p) {
  auto at = live.upper_bound(static_cast<std::byte*>(const_cast<void*>(p)));
  return at == live.begin() ? live.end() : --at;
}

void explain_fault(int, siginfo_t* info, void*) {
  if (in_arena(info->si_addr, 1)) {
    bool runs = false;
    for (int const n : opened) runs = runs || n;
    char const* const what = !runs ? "host code touched device memory"
                             : !opened[device_of(info->si_addr)]
                                 ? "a kernel or a copy touched another device's memory"
                                 : "a kernel or a copy touched device memory that is not allocated";
    char text[200];
    int const n = std::snprintf(text, sizeof text, "emulated device: %s at %p\n", what, info->si_addr);
    [[maybe_unused]] auto const written = write(STDERR_FILENO, text, static_cast<std::size_t>(n));
  }
  sigaction(SIGSEGV, &before, nullptr);  // the access is tried again, and ends the program as it always does
}

bool make_arena() {
  if (arena) return true;
  void* const p = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  arena = static_cast<std::byte*>(p);
  for (int d = 0; d < devices; ++d) top[d] = arena + static_cast<std::size_t>(d) * share;
  struct sigaction action {};
  action.sa_sigaction = explain_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &before);
  return true;
}

/// Neighbors are opened and closed together: that many system calls per kernel would take longer than the kernels.
void protect(int device, int access) {
  if (!arena) return;
  auto* const first = arena + static_cast<std::size_t>(device) * share;
  auto const last = live.lower_bound(first + share);
  for (auto at = live.lower_bound(first); at != last;) {
    auto* const begin = at->first;
    auto* end = begin;
    for (; at != last && at->first == end; ++at) end += at->second.room;
    mprotect(begin - margin, static_cast<std::size_t>(end - begin), access);
  }
}

// Not by the C library's functions, whose every byte the thread sanitizer would remember.
[[gnu::no_sanitize_address, gnu::no_sanitize_thread]] void fill_words(std::byte* from, std::byte* to, unsigned word) {
  auto* const words = reinterpret_cast<unsigned volatile*>(from);
  for (std::size_t i = 0; i < static_cast<std::size_t>(to - from) / sizeof word; ++i) words[i] = word;
}
[[gnu::no_sanitize_address]] void check_gap(std::byte const* from, std::byte const* to, region const& r,
                                            std::byte const* p) {
  for (; from != to; ++from) {
    unsigned const word = untouched;
    auto const expected = reinterpret_cast<std::byte const*>(&word)[reinterpret_cast<std::uintptr_t>(from) % 4];
    if (*from != expected)
      fail("something was written outside of an allocation of %zu bytes, at offset %td", r.bytes, from - p);
  }
}

/// The address sanitizer then sees what is read around an allocation; writes are seen without it.
void forbid([[maybe_unused]] std::byte* from, [[maybe_unused]] std::byte* to) {
#if EMULATED_ASAN
  __asan_poison_memory_region(from, static_cast<std::size_t>(to - from));
#endif
}
void permit([[maybe_unused]] std::byte* from, [[maybe_unused]] std::byte* to) {
#if EMULATED_ASAN
  __asan_unpoison_memory_region(from, static_cast<std::size_t>(to - from));
#endif
}

}  // namespace

void fail(char const* format, ...) {
  std::fflush(stdout);
  std::fputs("emulated device: FAILED  ", stderr);
  std::va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  _exit(1);
}

void* allocate(std::size_t bytes, int device) {
  std::lock_guard const lock(turn);
  if (!make_arena() || bytes > reserved) return nullptr;
  std::size_t const room = (bytes + 2 * margin + page() - 1) / page() * page();
  std::byte* const from = top[device];
  if (room > static_cast<std::size_t>(arena + static_cast<std::size_t>(device + 1) * share - from)) return nullptr;
  auto* const p = from + margin;
  live[p] = {bytes, room};
  mprotect(from, room, PROT_READ | PROT_WRITE);
  fill_words(from, from + room, untouched);
  if (!opened[device]) mprotect(from, room, PROT_NONE);
  forbid(from, p);
  forbid(p + bytes, from + room);
  top[device] += room;
  return p;
}

bool release(void* p) {
  std::lock_guard const lock(turn);
  auto const found = live.find(static_cast<std::byte*>(p));
  if (found == live.end()) return false;
  auto const [at, r] = *found;
  {
    open_memory const access(device_of(p));
    check_gap(at - margin, at, r, at);
    check_gap(at + r.bytes, at - margin + r.room, r, at);
  }
  permit(at - margin, at - margin + r.room);
  live.erase(found);
  mmap(at - margin, r.room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return true;
}

bool is_allocation(void const* p) {
  std::lock_guard const lock(turn);
  return live.count(static_cast<std::byte*>(const_cast<void*>(p))) != 0;
}

int device_of(void const* p) {
  return static_cast<int>(static_cast<std::size_t>(static_cast<std::byte const*>(p) - arena) / share);
}

bool holds(void const* p, std::size_t bytes) {
  std::lock_guard const lock(turn);
  auto const at = region_before(p);
  if (at == live.end()) return false;
  auto const offset = static_cast<std::size_t>(static_cast<std::byte const*>(p) - at->first);
  return offset <= at->second.bytes && bytes <= at->second.bytes - offset;
}

bool in_arena(void const* p, std::size_t bytes) {
  auto const at = reinterpret_cast<std::uintptr_t>(p), begin = reinterpret_cast<std::uintptr_t>(arena);
  return arena && at < begin + reserved && at + bytes > begin;
}

std::size_t live_allocations() {
  std::lock_guard const lock(turn);
  return live.size();
}

void set_bytes(void* p, int value, std::size_t bytes) {
  auto* at = static_cast<std::byte*>(p);
  auto* const end = at + bytes;
  auto const one = static_cast<std::byte>(value);
  auto const aligned = [&](std::byte* q, std::size_t to) { return reinterpret_cast<std::uintptr_t>(q) % to == 0; };
  for (; at != end && !aligned(at, page()); ++at) *at = one;
  if (auto const whole = static_cast<std::size_t>(end - at) / page() * page(); whole) {
    // Fresh pages are zero, and pages that nobody touches cost nothing to open.
    if (value == 0)
      madvise(at, whole, MADV_DONTNEED);
    else
      fill_words(at, at + whole, static_cast<unsigned>(one) * 0x01010101u);
    at += whole;
  }
  for (; at != end; ++at) *at = one;
}

open_memory::open_memory(int device) : device_(device) {
  turn.lock();
  for (int d = 0; d < devices; ++d)
    if ((device_ == all_devices || device_ == d) && opened[d]++ == 0) protect(d, PROT_READ | PROT_WRITE);
}
open_memory::~open_memory() {
  for (int d = 0; d < devices; ++d)
    if ((device_ == all_devices || device_ == d) && --opened[d] == 0) protect(d, PROT_NONE);
  turn.unlock();
}

}  // namespace emulated
