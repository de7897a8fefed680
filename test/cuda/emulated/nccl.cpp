// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <dovetail/core/half.hpp>

#include "memory.hpp"
#include "nccl_faults.hpp"
#include "runtime.hpp"

// Ranks meet in their streams: an operation is done when the streams of all its ranks have come to it. What NCCL does
// wrong in silence (other sizes, an operation that is called while the communicator is busy) ends the program here, or
// hangs as it does there.

namespace {

using std::size_t;

enum class kind { all_reduce, reduce, reduce_scatter, all_gather, broadcast, send, recv };
struct operation {
  kind what;
  void const* in;
  void* out;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t how;
  int peer;  ///< or the root
  friend bool same(operation const& a, operation const& b) {
    return a.what == b.what && a.count == b.count && a.type == b.type && a.how == b.how && a.peer == b.peer;
  }
};

size_t bytes_of(ncclDataType_t t) {
  switch (t) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
      return 8;
  }
  return 0;
}

struct state;
/// A collective, and who has come to it.
struct meeting {
  std::vector<operation> of;
  int come = 0;
  bool done = false;
};
/// A message: done when its other side has come.
struct message {
  operation of;
  std::shared_ptr<bool> done;
  std::shared_ptr<state> by;
};
struct group {
  std::vector<std::shared_ptr<state>> ranks;
  int come = 0, finalized = 0;
  std::map<std::uint64_t, meeting> meetings;
  std::map<std::pair<int, int>, std::deque<message>> sends, receives;  // by (from, to)
  struct part {
    std::vector<std::pair<int, int>> color_and_key;
    std::vector<ncclComm_t*> to;
    std::vector<int> who;
  };
  std::map<std::uint64_t, part> parts;
};
struct state {
  std::shared_ptr<group> in;
  int rank = 0, device = 0;
  bool blocking = true;
  int busy = 0;        ///< questions that are still answered by "in progress"
  bool ended = false;  ///< aborted or revoked: its kernels return
  bool revoked = false, finalizing = false, parting = false;
  ncclResult_t error = ncclSuccess;
  std::uint64_t collectives = 0, operations = 0, splits = 0;
  std::vector<std::function<void()>> begins;  ///< what happens when it is not busy any more
};

std::uint64_t next_id = 1;
std::map<std::uint64_t, std::shared_ptr<group>>& forming() {
  static auto& all = *new std::map<std::uint64_t, std::shared_ptr<group>>;
  return all;
}
emulated::nccl_counts counts;
std::map<int, std::uint64_t> sent;

// ---- arithmetic, rounded at every step

template <class T, class Wide>
void fold(std::byte* to, std::byte const* from, size_t n, ncclRedOp_t how) {
  for (size_t i = 0; i < n; ++i) {
    T a, b;
    std::memcpy(&a, to + i * sizeof(T), sizeof(T));
    std::memcpy(&b, from + i * sizeof(T), sizeof(T));
    auto const x = static_cast<Wide>(a), y = static_cast<Wide>(b);
    auto const r = static_cast<T>(how == ncclSum   ? static_cast<Wide>(x + y)
                                  : how == ncclMin ? std::min(x, y)
                                                   : std::max(x, y));
    std::memcpy(to + i * sizeof(T), &r, sizeof(T));
  }
}
void fold(std::byte* to, std::byte const* from, size_t n, ncclDataType_t type, ncclRedOp_t how) {
  switch (type) {
    case ncclInt8:
      return fold<std::int8_t, int>(to, from, n, how);
    case ncclUint8:
      return fold<std::uint8_t, unsigned>(to, from, n, how);
    case ncclInt32:  // wraps around: only sums of unsigned numbers may
      return how == ncclSum ? fold<std::uint32_t, std::uint32_t>(to, from, n, how)
                            : fold<std::int32_t, std::int32_t>(to, from, n, how);
    case ncclUint32:
      return fold<std::uint32_t, std::uint32_t>(to, from, n, how);
    case ncclInt64:
      return how == ncclSum ? fold<std::uint64_t, std::uint64_t>(to, from, n, how)
                            : fold<std::int64_t, std::int64_t>(to, from, n, how);
    case ncclUint64:
      return fold<std::uint64_t, std::uint64_t>(to, from, n, how);
    case ncclFloat16:
      return fold<dovetail::fp16, float>(to, from, n, how);
    case ncclBfloat16:
      return fold<dovetail::bf16, float>(to, from, n, how);
    case ncclFloat32:
      return fold<float, float>(to, from, n, how);
    case ncclFloat64:
      return fold<double, double>(to, from, n, how);
  }
}
/// As along a ring: from the rank behind `last` on.
std::vector<std::byte> reduced(meeting const& m, size_t at, size_t count, int last) {
  auto const& c = m.of[0];
  size_t const ranks = m.of.size(), offset = at * bytes_of(c.type), first = (static_cast<size_t>(last) + 1) % ranks;
  auto const from = [&](size_t r) { return static_cast<std::byte const*>(m.of[r].in) + offset; };
  std::vector<std::byte> sum(from(first), from(first) + count * bytes_of(c.type));
  for (size_t k = 1; k < ranks; ++k) fold(sum.data(), from((first + k) % ranks), count, c.type, c.how);
  return sum;
}

void copy(void* to, void const* from, size_t n) {
  if (n) std::memmove(to, from, n);
}
/// All that a collective does, by the rank that came last.
void perform(group const& g, meeting const& m) {
  emulated::open_memory const access(emulated::all_devices);
  auto const& c = m.of[0];
  size_t const ranks = m.of.size(), bytes = c.count * bytes_of(c.type);
  auto const each = [&](auto const& f) {
    for (size_t r = 0; r < ranks; ++r) f(m.of[r], r);
  };
  switch (c.what) {
    case kind::all_reduce: {
      auto const all = reduced(m, 0, c.count, 0);
      each([&](operation const& o, size_t) { copy(o.out, all.data(), bytes); });
      break;
    }
    case kind::reduce: {
      auto const all = reduced(m, 0, c.count, c.peer);
      copy(m.of[static_cast<size_t>(c.peer)].out, all.data(), bytes);
      break;
    }
    case kind::reduce_scatter: {
      std::vector<std::vector<std::byte>> parts;
      for (size_t r = 0; r < ranks; ++r) parts.push_back(reduced(m, r * c.count, c.count, static_cast<int>(r)));
      each([&](operation const& o, size_t r) { copy(o.out, parts[r].data(), bytes); });
      break;
    }
    case kind::all_gather: {
      std::vector<std::byte> all(bytes * ranks);
      each([&](operation const& o, size_t r) { copy(all.data() + r * bytes, o.in, bytes); });
      each([&](operation const& o, size_t) { copy(o.out, all.data(), bytes * ranks); });
      break;
    }
    case kind::broadcast:
      each([&](operation const& o, size_t) { copy(o.out, m.of[static_cast<size_t>(c.peer)].in, bytes); });
      break;
    default:
      break;
  }
  each([&](operation const&, size_t r) {
    int const rank = g.ranks[r]->rank;
    bool const root = c.peer == rank;
    size_t const others = ranks - 1;
    sent[rank] += c.what == kind::all_reduce       ? 2 * others * bytes / ranks
                  : c.what == kind::reduce_scatter ? others * bytes
                  : c.what == kind::all_gather     ? others * bytes
                  : c.what == kind::broadcast      ? (root ? others * bytes : 0)
                  : c.what == kind::reduce         ? (root ? 0 : bytes)
                                                   : 0;
  });
}

// ---- in the stream

/// One call, or a group of calls, of one rank on one stream.
struct queued_work {
  std::shared_ptr<state> of;
  std::vector<operation> calls;
  std::vector<std::uint64_t> numbers;  ///< of the collectives
  std::vector<std::shared_ptr<bool>> messages;
  bool posted = false, hangs = false;

  bool operator()() {
    if (of->ended) return true;
    if (hangs) return false;
    auto& g = *of->in;
    if (!posted) post(g);
    for (auto const n : numbers)
      if (!g.meetings[n].done) return false;
    for (auto const& done : messages)
      if (!*done) return false;
    return true;
  }
  void post(group& g) {
    posted = true;
    size_t collective = 0;
    for (auto const& c : calls) {
      if (c.what == kind::send || c.what == kind::recv) {
        auto const way = c.what == kind::send ? std::pair(of->rank, c.peer) : std::pair(c.peer, of->rank);
        messages.push_back(std::make_shared<bool>(false));
        auto& mine = c.what == kind::send ? g.sends[way] : g.receives[way];
        mine.push_back({c, messages.back(), of});
        auto &from = g.sends[way], &to = g.receives[way];
        // What is not so hangs.
        if (!from.empty() && !to.empty() && from.front().of.count == to.front().of.count && !from.front().by->ended &&
            !to.front().by->ended) {
          emulated::open_memory const access(emulated::all_devices);
          copy(to.front().of.out, from.front().of.in, c.count * bytes_of(c.type));
          if (way.first != way.second) sent[way.first] += c.count * bytes_of(c.type);
          *from.front().done = *to.front().done = true;
          from.pop_front();
          to.pop_front();
        }
        continue;
      }
      auto& m = g.meetings[numbers[collective++]];
      m.of.resize(g.ranks.size());
      m.of[static_cast<size_t>(of->rank)] = c;
      if (++m.come < static_cast<int>(g.ranks.size())) continue;
      bool agreed = true;
      for (auto const& o : m.of) agreed = agreed && same(o, m.of[0]);
      for (auto const& r : g.ranks) agreed = agreed && !r->ended;
      if (!agreed) continue;  // it hangs
      perform(g, m);
      m.done = true;
    }
  }
};

struct call_of {
  std::shared_ptr<state> of;
  operation call;
  cudaStream_t stream;
};
thread_local int depth = 0;
thread_local std::vector<call_of> grouped;

void enqueue(std::shared_ptr<state> const& s, std::vector<operation> calls, cudaStream_t stream) {
  auto const w = std::make_shared<queued_work>();
  w->of = s;
  w->calls = std::move(calls);
  ++s->operations;
  for (auto const& c : w->calls)
    if (c.what != kind::send && c.what != kind::recv) w->numbers.push_back(s->collectives++);
  w->hangs = s->rank == emulated::nccl.hanging_rank && static_cast<int>(s->operations) == emulated::nccl.hanging_at;
  if (s->rank == emulated::nccl.error_rank && static_cast<int>(s->operations) >= emulated::nccl.error_at)
    s->error = emulated::nccl.error;
  auto const begin = [w, stream] { emulated::queue_attempt(stream, [w] { return (*w)(); }); };
  if (s->blocking || emulated::nccl.polls == 0) return begin();
  s->busy = emulated::nccl.polls;
  s->begins.push_back(begin);
}

ncclResult_t issue() {
  auto const all = std::exchange(grouped, {});
  bool waits = false;
  for (size_t i = 0; i < all.size();) {
    std::vector<operation> calls;
    size_t j = i;
    for (; j < all.size() && all[j].of == all[i].of && all[j].stream == all[i].stream; ++j)
      calls.push_back(all[j].call);
    enqueue(all[i].of, std::move(calls), all[i].stream);
    waits = waits || all[i].of->busy > 0;
    i = j;
  }
  return waits ? ncclInProgress : ncclSuccess;
}

}  // namespace

struct ncclComm {
  emulated::owned owned{"NCCL communicator"};
  std::shared_ptr<state> s = std::make_shared<state>();
};

namespace {

bool complete(state const& s) {
  return s.in && s.in->come == static_cast<int>(s.in->ranks.size()) && s.rank != emulated::nccl.never_rank;
}
ncclResult_t now(state& s) {
  if (s.error != ncclSuccess) return s.error;
  if (!complete(s) || s.parting) return ncclInProgress;
  if (s.revoked && emulated::nccl.revoke_hangs) return ncclInProgress;
  if (s.finalizing && s.in->finalized < static_cast<int>(s.in->ranks.size())) return ncclInProgress;
  if (s.busy > 0 && --s.busy == 0)
    for (auto const& f : std::exchange(s.begins, {})) f();
  return s.busy ? ncclInProgress : ncclSuccess;
}
/// What must be so when something is called.
ncclResult_t usable(ncclComm_t c, char const* what) {
  if (!c) return ncclInvalidArgument;
  if (!complete(*c->s) || c->s->busy || c->s->parting) emulated::fail("%s while the communicator is in progress", what);
  if (c->s->ended || c->s->finalizing) return ncclInvalidUsage;
  return c->s->error;
}
void join(std::shared_ptr<group> const& g, state& s, int rank) {
  s.in = g;
  s.rank = rank;
  s.device = emulated::current_device();
}

ncclResult_t call(char const* name, kind what, void const* in, void* out, size_t count, ncclDataType_t type,
                  ncclRedOp_t how, int peer, ncclComm_t c, cudaStream_t stream) {
  auto const locked = emulated::lock();
  if (auto const e = usable(c, name); e != ncclSuccess) return e;
  auto const& s = c->s;
  size_t const ranks = s->in->ranks.size(), bytes = count * bytes_of(type);
  if (peer < -1 || peer >= static_cast<int>(ranks)) return ncclInvalidArgument;
  bool const scatters = what == kind::reduce_scatter, gathers = what == kind::all_gather;
  bool const reads = what != kind::recv && (what != kind::broadcast || peer == s->rank);
  bool const writes = what != kind::send && (what != kind::reduce || peer == s->rank);
  if (bytes && ((reads && !emulated::holds(in, bytes * (scatters ? ranks : 1))) ||
                (writes && !emulated::holds(out, bytes * (gathers ? ranks : 1)))))
    emulated::fail("%s: this is not device memory of that size", name);
  if (stream && emulated::device_of_stream(stream) != s->device) emulated::fail("%s: a stream of another device", name);
  grouped.push_back({s, {what, in, out, count, type, how, peer}, stream});
  return depth ? ncclSuccess : issue();
}

ncclComm_t made(ncclConfig_t const* config, state const* parent) {
  auto* const c = new ncclComm;
  c->s->blocking = config && config->blocking != INT_MIN ? config->blocking != 0 : !parent || parent->blocking;
  c->s->device = parent ? parent->device : emulated::current_device();
  ++counts.made;
  return c;
}
/// The last of `who` makes the parts; until then their parent is in progress.
ncclResult_t part(ncclComm_t c, std::uint64_t number, int members, std::pair<int, int> color_and_key, ncclComm_t* to) {
  auto const& g = c->s->in;
  auto& p = g->parts[number];
  p.color_and_key.push_back(color_and_key);
  p.to.push_back(to);
  p.who.push_back(c->s->rank);
  c->s->parting = true;
  if (static_cast<int>(p.who.size()) < members) return ncclInProgress;
  std::vector<size_t> order(p.who.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(p.color_and_key[a], p.who[a]) < std::pair(p.color_and_key[b], p.who[b]);
  });
  std::shared_ptr<group> into;
  for (size_t i = 0; i < order.size(); ++i) {
    auto const k = order[i];
    if (i == 0 || p.color_and_key[k].first != p.color_and_key[order[i - 1]].first) into = std::make_shared<group>();
    auto& parent = *g->ranks[static_cast<size_t>(p.who[k])];
    ncclConfig_t config NCCL_CONFIG_INITIALIZER;
    config.blocking = parent.blocking;
    auto* const child = made(&config, &parent);
    child->s->in = into;
    child->s->rank = static_cast<int>(into->ranks.size());
    into->ranks.push_back(child->s);
    ++into->come;
    *p.to[k] = child;
    parent.parting = false;
  }
  g->parts.erase(number);
  return ncclInProgress;
}

}  // namespace

namespace emulated {
nccl_faults nccl;
nccl_counts nccl_counted() {
  auto const locked = lock();
  return counts;
}
std::uint64_t nccl_bytes_sent(int rank) {
  auto const locked = lock();
  return sent[rank];
}
void nccl_forget() {
  auto const locked = lock();
  nccl = {};
  counts = {};
  sent.clear();
}
}  // namespace emulated

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  auto const locked = emulated::lock();
  std::memset(id, 0, sizeof *id);
  std::memcpy(id->internal, &next_id, sizeof next_id);
  ++next_id;
  return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* c, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  auto const locked = emulated::lock();
  std::uint64_t number = 0;
  std::memcpy(&number, id.internal, sizeof number);
  if (number == 0 || number >= next_id || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  if (!config || config->blocking != 0) emulated::fail("ncclCommInitRankConfig: only non-blocking is emulated");
  auto& g = forming()[number];
  if (!g) g = std::make_shared<group>();
  g->ranks.resize(static_cast<size_t>(ranks));
  *c = made(config, nullptr);
  join(g, *(*c)->s, rank);
  g->ranks[static_cast<size_t>(rank)] = (*c)->s;
  if (++g->come == ranks) forming().erase(number);
  return ncclInProgress;
}
ncclResult_t ncclCommFinalize(ncclComm_t c) {
  auto const locked = emulated::lock();
  if (auto const e = usable(c, "ncclCommFinalize"); e != ncclSuccess) return e;
  c->s->finalizing = true;
  ++c->s->in->finalized;
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t c) {
  auto const locked = emulated::lock();
  if (!c) return ncclInvalidArgument;
  if (!c->s->revoked && (!c->s->finalizing || now(*c->s) == ncclInProgress))
    emulated::fail("ncclCommDestroy would wait for the other ranks");
  ++counts.destroyed;
  c->s->ended = true;
  c->s->in.reset();  // what is queued looks at `ended` alone
  delete c;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t c) {
  auto const hangs = [] {
    auto const locked = emulated::lock();
    return emulated::nccl.abort_hangs;
  };
  auto const limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (hangs() && std::chrono::steady_clock::now() < limit) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  auto const locked = emulated::lock();
  if (!c) return ncclInvalidArgument;
  ++counts.aborted;
  c->s->ended = true;
  c->s->in.reset();  // what is queued looks at `ended` alone
  delete c;
  return ncclSuccess;
}
ncclResult_t ncclCommRevoke(ncclComm_t c, int flags) {
  auto const locked = emulated::lock();
  if (!c || flags != 0) return ncclInvalidArgument;
  if (!complete(*c->s)) return ncclInvalidUsage;
  ++counts.revoked;
  c->s->ended = c->s->revoked = true;
  c->s->busy = 1;
  c->s->begins.clear();
  c->s->error = ncclSuccess;
  return ncclInProgress;
}
ncclResult_t ncclCommSplit(ncclComm_t c, int color, int key, ncclComm_t* to, ncclConfig_t*) {
  auto const locked = emulated::lock();
  *to = nullptr;
  if (auto const e = usable(c, "ncclCommSplit"); e != ncclSuccess) return e;
  ++counts.split;
  return part(c, ++c->s->splits, static_cast<int>(c->s->in->ranks.size()), {color, key}, to);
}
ncclResult_t ncclCommShrink(ncclComm_t c, int* exclude, int count, ncclComm_t* to, ncclConfig_t*, int) {
  auto const locked = emulated::lock();
  *to = nullptr;
  if (!c || count <= 0 || std::find(exclude, exclude + count, c->s->rank) != exclude + count)
    return ncclInvalidArgument;
  if (c->s->busy) emulated::fail("ncclCommShrink while the communicator is in progress");
  ++counts.shrunk;
  return part(c, 1000 + ++c->s->splits, static_cast<int>(c->s->in->ranks.size()) - count, {0, c->s->rank}, to);
}
char const* ncclGetErrorString(ncclResult_t e) {
  constexpr char const* names[] = {
      "no error",         "unhandled cuda error", "unhandled system error", "internal error",
      "invalid argument", "invalid usage",        "remote process exited",  "in progress"};
  return names[e];
}
char const* ncclGetLastError(ncclComm_t) { return "the emulated NCCL knows no more"; }
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* e) {
  auto const locked = emulated::lock();
  if (!c) return ncclInvalidArgument;
  *e = now(*c->s);
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(void const* in, void* out, size_t n, ncclDataType_t t, ncclRedOp_t how, ncclComm_t c,
                           cudaStream_t s) {
  return call("ncclAllReduce", kind::all_reduce, in, out, n, t, how, -1, c, s);
}
ncclResult_t ncclReduce(void const* in, void* out, size_t n, ncclDataType_t t, ncclRedOp_t how, int root, ncclComm_t c,
                        cudaStream_t s) {
  return call("ncclReduce", kind::reduce, in, out, n, t, how, root, c, s);
}
ncclResult_t ncclBroadcast(void const* in, void* out, size_t n, ncclDataType_t t, int root, ncclComm_t c,
                           cudaStream_t s) {
  return call("ncclBroadcast", kind::broadcast, in, out, n, t, ncclSum, root, c, s);
}
ncclResult_t ncclReduceScatter(void const* in, void* out, size_t n, ncclDataType_t t, ncclRedOp_t how, ncclComm_t c,
                               cudaStream_t s) {
  return call("ncclReduceScatter", kind::reduce_scatter, in, out, n, t, how, -1, c, s);
}
ncclResult_t ncclAllGather(void const* in, void* out, size_t n, ncclDataType_t t, ncclComm_t c, cudaStream_t s) {
  return call("ncclAllGather", kind::all_gather, in, out, n, t, ncclSum, -1, c, s);
}
ncclResult_t ncclSend(void const* in, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s) {
  return call("ncclSend", kind::send, in, nullptr, n, t, ncclSum, peer, c, s);
}
ncclResult_t ncclRecv(void* out, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s) {
  return call("ncclRecv", kind::recv, nullptr, out, n, t, ncclSum, peer, c, s);
}
ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (depth == 0) return ncclInvalidUsage;
  auto const locked = emulated::lock();
  return --depth ? ncclSuccess : issue();
}
