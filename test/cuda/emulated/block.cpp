// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "block.hpp"

#include "fiber.hpp"
#include "memory.hpp"

#include <cuda_runtime.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulated {
namespace {

enum class doing : unsigned char { nothing, running, waits_for_block, waits_for_lanes, ended };
struct thread {
  doing now = doing::nothing;
  fiber* on = nullptr;
  place at{};
  unsigned mask = 0;
  std::uint64_t own = 0;
};

unsigned size = 0, unstarted = 0, ended = 0, current = 0;
std::vector<thread> threads;
std::vector<std::uint64_t> exchanged;  // by thread, as of the last time that its lanes met
std::function<void()> const* body = nullptr;
std::vector<std::unique_ptr<fiber>> fibers;
std::vector<fiber*> idle;

/// The numbers below n from somewhere on, up or down.
class order {
 public:
  explicit order(unsigned n) : n_(n) {
    static std::uint64_t random = 1;
    random = random * 6364136223846793005u + 1442695040888963407u;
    auto const r = static_cast<unsigned>(random >> 33);
    up_ = r % 2;
    begin_ = r / 2 % n;
  }
  unsigned operator()(unsigned i) const {
    unsigned const distance = up_ ? i : n_ - i;
    return begin_ + distance < n_ ? begin_ + distance : begin_ + distance - n_;
  }

 private:
  unsigned n_, begin_;
  bool up_;
};
order first_order(1);

void set_thread(unsigned rank) {
  current = rank;
  threadIdx = {rank % blockDim.x, rank / blockDim.x % blockDim.y, rank / blockDim.x / blockDim.y};
}

/// A fiber runs threads from beginning to end, until one of them waits and keeps it.
void run_threads() {
  for (;;) {
    fiber* const self = idle.back();
    idle.pop_back();
    while (unstarted) {
      set_thread(first_order(size - unstarted--));
      auto& t = threads[current];
      t.now = doing::running;
      t.on = self;
      (*body)();
      threads[current].now = doing::ended;
      ++ended;
    }
    idle.push_back(self);
    fiber::suspend();
  }
}

void start_threads() {
  unstarted = size;
  first_order = order(size);
  while (unstarted) {
    if (idle.empty()) {
      fibers.push_back(std::make_unique<fiber>(run_threads));
      idle.push_back(fibers.back().get());
    }
    idle.back()->resume();
  }
}

std::string describe(unsigned rank) {
  auto const& t = threads[rank];
  std::string s = "thread " + std::to_string(rank);
  if (t.now == doing::ended) return s + " has ended";
  s += t.now == doing::waits_for_block ? " waits for the block at " : " waits for lanes of its warp at ";
  return s + t.at.file + ':' + std::to_string(t.at.line);
}
[[noreturn]] void fail_to_meet(unsigned a, unsigned b) {
  fail("threads of a block wait for each other in vain: in block (%u, %u, %u) %s, %s", blockIdx.x, blockIdx.y,
       blockIdx.z, describe(a).c_str(), describe(b).c_str());
}
bool same_place(thread const& a, thread const& b) {
  return a.now == b.now && a.at.line == b.at.line && std::string_view(a.at.file) == b.at.file;
}

/// Lets the lanes go that `rank` waits for, if all of them are there.
bool release_lanes(unsigned rank) {
  unsigned const mask = threads[rank].mask, first = rank / warp_size * warp_size;
  auto const each = [&](auto const& f) {
    for (unsigned l = 0; l < warp_size && first + l < size; ++l)
      if (mask >> l & 1) f(first + l);
  };
  bool all = true;
  each([&](unsigned other) {
    auto const& t = threads[other];
    if (t.now == doing::ended) fail_to_meet(rank, other);
    if (t.now == doing::waits_for_lanes && t.mask == mask && !same_place(t, threads[rank])) fail_to_meet(rank, other);
    all = all && t.now == doing::waits_for_lanes && t.mask == mask;
  });
  if (!all) return false;
  each([&](unsigned other) {
    exchanged[other] = threads[other].own;
    threads[other].now = doing::running;
  });
  return true;
}

/// All threads that have not ended wait: lets those go that have met.
void release() {
  bool released = false;
  for (unsigned r = 0; r < size; ++r)
    if (threads[r].now == doing::waits_for_lanes && release_lanes(r)) released = true;
  if (released) return;
  unsigned waits = 0;
  while (threads[waits].now == doing::ended) ++waits;
  for (unsigned r = 0; r < size; ++r)
    if (threads[r].now != doing::waits_for_block || !same_place(threads[r], threads[waits])) fail_to_meet(waits, r);
  for (auto& t : threads) t.now = doing::running;
}

void run_block() {
  threads.assign(size, {});
  exchanged.assign((size + warp_size - 1) / warp_size * warp_size, 0);
  ended = 0;
  start_threads();
  while (ended < size) {
    release();
    order const next(size);
    for (unsigned i = 0; i < size; ++i) {
      unsigned const rank = next(i);
      if (threads[rank].now != doing::running) continue;
      set_thread(rank);
      threads[rank].on->resume();
    }
  }
}

void wait(doing what, place at) {
  threads[current].now = what;
  threads[current].at = at;
  fiber::suspend();
}

}  // namespace

void run_grid(dim3 blocks, dim3 dimensions, std::function<void()> const& one) {
  gridDim = blocks;
  blockDim = dimensions;
  size = dimensions.x * dimensions.y * dimensions.z;
  body = &one;
  order const next(blocks.x);
  for (unsigned z = 0; z < blocks.z; ++z)
    for (unsigned y = 0; y < blocks.y; ++y)
      for (unsigned x = 0; x < blocks.x; ++x) {
        blockIdx = {next(x), y, z};
        run_block();
      }
}

void wait_for_block(place at) { wait(doing::waits_for_block, at); }

std::uint64_t const* wait_for_lanes(unsigned mask, std::uint64_t own, place at) {
  if (!(mask >> lane() & 1)) fail("%s:%d: a lane is not in its own mask %#x", at.file, at.line, mask);
  threads[current].mask = mask;
  threads[current].own = own;
  wait(doing::waits_for_lanes, at);
  return exchanged.data() + current / warp_size * warp_size;
}

unsigned thread_rank() { return current; }

}  // namespace emulated
