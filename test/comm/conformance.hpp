// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/half.hpp>
#include <dovetail/core/shard.hpp>

// What every communicator must do, as functions of one rank. Each rank knows what all ranks bring and works out the
// result by itself, one element after another; results are compared bit by bit, and hashed, so that backends can be
// compared with each other.
namespace conformance {

using namespace dovetail;
using comm::reduction;

template <class... Parts>
void expect(bool condition, Parts const&... parts) {
  if (!condition) throw error(message(parts...));
}

struct digest {
  std::uint64_t value = 0xcbf29ce484222325u;
  template <class T>
  void add(std::span<T> data) {
    for (auto const b : std::as_bytes(data)) value = (value ^ static_cast<std::uint64_t>(b)) * 0x100000001b3u;
  }
};

template <class T>
std::vector<std::size_t> sizes(int ranks) {
  auto const p = static_cast<std::size_t>(ranks);
  std::vector<std::size_t> s{0, 1, p - 1, p, p + 1, 31, 64, 1001, 4096, 20011};
  if (std::is_same_v<T, float>) s.push_back(300007);  // more than one chunk of every backend
  return s;
}

/// A cheap hash of (rank, element, seed); the tests need many.
inline std::uint64_t mix(int rank, std::size_t i, std::uint64_t seed) {
  std::uint64_t x =
      (i + 1) * 0x9e3779b97f4a7c15u + (seed * 64 + static_cast<std::uint64_t>(rank)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 30)) * 0x94d049bb133111ebu;
  return x ^ (x >> 29);
}

template <class T>
T value(int rank, std::size_t i, std::uint64_t seed) {
  auto const x = mix(rank, i, seed);
  auto const real = static_cast<float>(x >> 40) * 0x1p-21f - 4.0f;
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>)
    return static_cast<T>(real);
  else if constexpr (std::is_same_v<T, fp16> || std::is_same_v<T, bf16>)
    return T(real);
  else
    return static_cast<T>(x);
}
template <class T>
std::vector<T> values(int rank, std::size_t n, std::uint64_t seed) {
  std::vector<T> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = value<T>(rank, i, seed);
  return v;
}

template <class T>
T reduced(reduction how, int ranks, std::size_t i, std::uint64_t seed) {
  auto const fold = [&](auto first, auto convert) {
    auto a = first;
    for (int r = 1; r < ranks; ++r) {
      auto const b = convert(value<T>(r, i, seed));
      a = how == reduction::sum   ? static_cast<decltype(a)>(a + b)
          : how == reduction::min ? std::min(a, b)
                                  : std::max(a, b);
    }
    return a;
  };
  if constexpr (std::is_same_v<T, fp16> || std::is_same_v<T, bf16>) {
    auto const widen = [](T h) { return static_cast<float>(h); };
    return T(fold(widen(value<T>(0, i, seed)), widen));
  } else if constexpr (std::is_signed_v<T> && std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    if (how == reduction::sum)
      return static_cast<T>(fold(static_cast<U>(value<T>(0, i, seed)), [](T x) { return static_cast<U>(x); }));
    return fold(value<T>(0, i, seed), [](T x) { return x; });
  } else {
    return fold(value<T>(0, i, seed), [](T x) { return x; });
  }
}

template <class T>
bool same_bits(T const& a, T const& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// Checks what an operation added to the traffic.
template <class C>
class traffic_check {
 public:
  explicit traffic_check(C const& c) : comm_(c), before_(c.traffic()) {}
  void added(std::size_t sent, std::size_t received, char const* what) const {
    auto const t = comm_.traffic() - before_;
    expect(t.bytes_sent == sent && t.bytes_received == received && t.operations == 1, what, " on rank ", comm_.rank(),
           " of ", comm_.size(), " counted ", t.bytes_sent, " and ", t.bytes_received, " bytes in ", t.operations,
           " operations, not ", sent, " and ", received);
  }

 private:
  C const& comm_;
  comm::traffic before_;
};

template <class T, class C>
void reductions(C& c, digest& d) {
  auto const others = static_cast<std::size_t>(c.size() - 1);
  for (auto const how : {reduction::sum, reduction::min, reduction::max})
    for (std::size_t const n : sizes<T>(c.size())) {
      if (n > 5000 && how != reduction::sum) continue;
      auto const mine = shard(n, c.size(), c.rank());
      std::size_t const S = n * sizeof(T), s = mine.size() * sizeof(T);
      std::uint64_t const seed = n + static_cast<std::uint64_t>(how);

      std::vector<T> expected(n);
      for (std::size_t i = 0; i < n; ++i) expected[i] = reduced<T>(how, c.size(), i, seed);
      auto v = values<T>(c.rank(), n, seed);
      {
        traffic_check const t(c);
        c.all_reduce(std::span(v), how);
        t.added(S - s + others * s, others * s + S - s, "all_reduce");
      }
      for (std::size_t i = 0; i < n; ++i)
        expect(same_bits(v[i], expected[i]), "all_reduce: element ", i, " of ", n, " ", comm::name_of(dtype_of<T>()),
               " on rank ", c.rank(), " of ", c.size());
      d.add(std::span(v));

      v = values<T>(c.rank(), n, seed);
      {
        traffic_check const t(c);
        c.reduce_scatter(std::span(v), how);
        t.added(S - s, others * s, "reduce_scatter");
      }
      for (std::size_t i = mine.begin; i < mine.end; ++i)
        expect(same_bits(v[i], expected[i]), "reduce_scatter: element ", i, " of ", n);
      {
        traffic_check const t(c);
        c.all_gather(std::span(v));
        t.added(others * s, S - s, "all_gather");
      }
      for (std::size_t i = 0; i < n; ++i) expect(same_bits(v[i], expected[i]), "all_gather: element ", i, " of ", n);
    }
}

template <class T, class C>
void moves(C& c, digest& d) {
  int const P = c.size(), me = c.rank();
  auto const p = static_cast<std::size_t>(P), others = p - 1;
  for (std::size_t const n : sizes<T>(P)) {
    auto const bytes = n * sizeof(T);
    auto const mine = values<T>(me, n, 3);
    std::vector<T> all(n * p);
    {
      traffic_check const t(c);
      c.all_gather(std::span<T const>(mine), std::span(all));
      t.added(others * bytes, others * bytes, "all_gather");
    }
    for (int r = 0; r < P; ++r)
      expect(std::ranges::equal(std::span(all).subspan(static_cast<std::size_t>(r) * n, n), values<T>(r, n, 3)),
             "all_gather: part of rank ", r);
    d.add(std::span(all));

    for (int root = 0; root < P; ++root) {
      auto v = values<T>(me, n, 11);
      traffic_check const t(c);
      c.broadcast(std::span(v), root);
      t.added(me == root ? others * bytes : 0, me == root ? 0 : bytes, "broadcast");
      expect(v == values<T>(root, n, 11), "broadcast of ", n, " from ", root);
    }

    std::vector<T> out(n * p);
    auto const in = values<T>(me, n * p, 5);
    {
      traffic_check const t(c);
      c.all_to_all(std::span<T const>(in), std::span(out));
      t.added(others * bytes, others * bytes, "all_to_all");
    }
    for (int r = 0; r < P; ++r)
      for (std::size_t i = 0; i < n; i += 1 + n / 50)
        expect(out[static_cast<std::size_t>(r) * n + i] == value<T>(r, static_cast<std::size_t>(me) * n + i, 5),
               "all_to_all: element ", i, " from rank ", r);
    d.add(std::span(out));
  }
}

template <class C>
void variable_sizes(C& c, digest& d) {
  for (std::size_t const unit : {std::size_t{0}, std::size_t{1}, std::size_t{30011}}) {
    auto const size_of = [&](int r) { return static_cast<std::size_t>((r * 5 + 3) % 7) * unit; };  // some are empty
    auto const bytes_of = [&](int r) { return values<std::uint8_t>(r, size_of(r), 17); };
    auto const mine = bytes_of(c.rank());
    std::vector<std::byte> all(5);
    std::size_t total = 0;
    for (int r = 0; r < c.size(); ++r) total += size_of(r);
    traffic_check const t(c);
    auto const offsets = c.all_gather_v(std::as_bytes(std::span(mine)), all);
    t.added(static_cast<std::size_t>(c.size() - 1) * mine.size(), total - mine.size(), "all_gather_v");
    expect(offsets.size() == static_cast<std::size_t>(c.size()) + 1 && offsets[0] == 0 && offsets.back() == all.size(),
           "all_gather_v: offsets");
    for (int r = 0; r < c.size(); ++r) {
      auto const at = offsets[static_cast<std::size_t>(r)], end = offsets[static_cast<std::size_t>(r) + 1];
      auto const theirs = bytes_of(r);
      expect(end - at == theirs.size() &&
                 std::ranges::equal(std::span(all).subspan(at, end - at), std::as_bytes(std::span(theirs))),
             "all_gather_v: part of rank ", r);
    }
    d.add(std::span(all));
  }
}

/// A cheap byte of (rank, element), for long arrays.
inline std::uint8_t cheap(int rank, std::size_t i) {
  return static_cast<std::uint8_t>((static_cast<std::uint32_t>(i) * 2654435761u >> 24) +
                                   37u * static_cast<unsigned>(rank));
}
inline std::vector<std::uint8_t> cheap(int rank, std::size_t begin, std::size_t n) {
  std::vector<std::uint8_t> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = cheap(rank, begin + i);
  return v;
}

/// Lengths at which a backend cuts arrays, or takes another way: chunks of shared memory, whole and divided by ranks,
/// single copies, messages.
template <class C>
void cuts(C& c, digest& d) {
  using bytes = std::vector<std::uint8_t>;
  int const P = c.size(), me = c.rank();
  auto const p = static_cast<std::size_t>(P);
  std::size_t const k = 1024, slot = 512 * k / p / 64 * 64;
  std::vector<std::size_t> lengths{2 * 512 * k + 13, 2 * slot + 1};
  for (auto const edge : {4 * k, 32 * k, 64 * k, 256 * k, 512 * k, slot})
    for (auto const n : {edge - 1, edge, edge + 1}) lengths.push_back(n);
  if (P == 2) {  // nobody reads more than 32 MiB of another one's memory without a sign of life
    std::size_t const n = (32 * k + 1) * k + 1;
    std::vector<std::uint8_t> both(2 * n);
    c.all_gather(std::span<std::uint8_t const>(cheap(me, 0, n)), std::span(both));
    for (int r = 0; r < P; ++r)
      expect(std::ranges::equal(std::span(both).subspan(static_cast<std::size_t>(r) * n, n), cheap(r, 0, n)),
             "all_gather of ", n, " bytes a rank");
  }
  for (auto const n : lengths) {
    if (n > 300 * k && P > 3) continue;  // with fewer ranks as well
    bytes const mine = cheap(me, 0, n);
    bytes all(n * p), expected(n * p);
    c.all_gather(std::span<std::uint8_t const>(mine), std::span(all));
    for (int r = 0; r < P; ++r)
      std::ranges::copy(cheap(r, 0, n),
                        expected.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(r) * n));
    expect(all == expected, "all_gather of ", n, " bytes a rank");

    bytes in(n * p);
    for (int r = 0; r < P; ++r)
      std::ranges::copy(cheap(me, static_cast<std::size_t>(r) * n, n),
                        in.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(r) * n));
    c.all_to_all(std::span<std::uint8_t const>(in), std::span(all));
    for (int r = 0; r < P; ++r)
      std::ranges::copy(cheap(r, static_cast<std::size_t>(me) * n, n),
                        expected.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(r) * n));
    expect(all == expected, "all_to_all of ", n, " bytes for a rank");

    int const root = static_cast<int>(n % p);
    bytes v = mine;
    c.broadcast(std::span(v), root);
    c.broadcast(std::span(v), (root + 1) % P);  // which has left the first one sooner than others
    expect(v == cheap(root, 0, n), "broadcast of ", n, " bytes");

    // Shards that differ by one.
    auto const own = shard(n, P, me);
    v.assign(n, 0);
    std::ranges::copy(cheap(9, own.begin, own.size()), v.begin() + static_cast<std::ptrdiff_t>(own.begin));
    c.all_gather(std::span(v));
    expect(v == cheap(9, 0, n), "all_gather of ", n, " bytes");

    bytes sum(n);
    for (int r = 0; r < P; ++r) {
      auto const theirs = cheap(r, 0, n);
      for (std::size_t i = 0; i < n; ++i) sum[i] = static_cast<std::uint8_t>(sum[i] + theirs[i]);
    }
    v = mine;
    c.reduce_scatter(std::span(v));
    expect(
        std::ranges::equal(std::span(v).subspan(own.begin, own.size()), std::span(sum).subspan(own.begin, own.size())),
        "reduce_scatter of ", n, " bytes");
    v = mine;
    c.all_reduce(std::span(v));
    expect(v == sum, "all_reduce of ", n, " bytes");
    d.add(std::span(v));

    // One rank brings much, the others little or nothing.
    int const rich = static_cast<int>(n / 3 % p);
    auto const size_of = [&](int r) { return r == rich ? n : static_cast<std::size_t>((r * 5 + 3) % 7) * 11; };
    auto const part = cheap(me, 0, size_of(me));
    std::vector<std::byte> gathered;
    auto const offsets = c.all_gather_v(std::as_bytes(std::span(part)), gathered);
    for (int r = 0; r < P; ++r) {
      auto const at = offsets[static_cast<std::size_t>(r)], end = offsets[static_cast<std::size_t>(r) + 1];
      auto const theirs = cheap(r, 0, size_of(r));
      expect(std::ranges::equal(std::span(gathered).subspan(at, end - at), std::as_bytes(std::span(theirs))),
             "all_gather_v of ", n, " bytes: part of rank ", r);
    }
  }
}

template <class C>
void messages(C& c) {
  int const next = (c.rank() + 1) % c.size(), last = (c.rank() + c.size() - 1) % c.size();
  for (std::size_t const n : {std::size_t{0}, std::size_t{1}, std::size_t{300007}}) {
    // Everybody sends first, two messages whose tags are received in the other order.
    auto const a = values<std::uint8_t>(c.rank(), n, 1), b = values<std::uint8_t>(c.rank(), 2 * n, 2);
    std::vector<std::uint8_t> x(n), y(2 * n);
    traffic_check const t(c);
    c.send(std::as_bytes(std::span(a)), next, 1);
    t.added(n, 0, "send");
    c.send(std::as_bytes(std::span(b)), next, 32767);
    c.recv(std::as_writable_bytes(std::span(y)), last, 32767);
    traffic_check const u(c);
    c.recv(std::as_writable_bytes(std::span(x)), last, 1);
    u.added(0, n, "recv");
    expect(x == values<std::uint8_t>(last, n, 1) && y == values<std::uint8_t>(last, 2 * n, 2), "messages of ", n);
  }
  // Messages with one tag stay in order, past collectives.
  for (int i = 0; i < 20; ++i) c.send(std::as_bytes(std::span(&i, 1)), next, 3);
  c.barrier();
  for (int i = 0; i < 20; ++i) {
    int got = -1;
    c.recv(std::as_writable_bytes(std::span(&got, 1)), last, 3);
    expect(got == i, "message ", i, " came as ", got);
  }
  // Thousands that everybody has sent before anybody takes one: MPI_Issend would never end, with Open MPI 5.0.7.
  std::array<std::byte, 100> small{};
  for (int i = 0; i < 3000; ++i) c.send(std::span<std::byte const>(small), next, 6);
  c.barrier();
  for (int i = 0; i < 3000; ++i) c.recv(std::span(small), last, 6);
  // One rank may have more of them than others.
  std::uint64_t sum = 1;
  if (c.rank() != 0) c.send(std::as_bytes(std::span(&sum, 1)), 0, 5);
  for (int r = 1; c.rank() == 0 && r < c.size(); ++r) {
    std::uint64_t one = 0;
    c.recv(std::as_writable_bytes(std::span(&one, 1)), r, 5);
    sum += one;
  }
  c.broadcast(std::span(&sum, 1), 0);
  expect(sum == static_cast<std::uint64_t>(c.size()), "messages to one rank: ", sum);
}

template <class C>
void splitting(C& c) {
  traffic_check const t(c);
  auto part = c.split(c.rank() % 2, -c.rank());  // reversed
  t.added(0, 0, "split");
  int const members = (c.size() + 1 - c.rank() % 2) / 2;
  expect(part.size() == members && part.rank() == members - 1 - c.rank() / 2, "split: rank ", part.rank(), " of ",
         part.size());
  std::vector<float> v(5000, static_cast<float>(c.rank()));
  float sum = 0;
  for (int r = c.rank() % 2; r < c.size(); r += 2) sum += static_cast<float>(r);
  part.all_reduce(std::span(v));
  expect(v[0] == sum && v[4999] == sum, "all_reduce in a part");
  auto again = part.split(0, part.rank());
  again.barrier();
  expect(again.rank() == part.rank() && again.size() == part.size(), "split of a split");
  c.barrier();
  expect(again.traffic() == comm::traffic{0, 0, 1} && part.traffic().operations == 2, "traffic of a part");
}

template <class C>
void refusals(C& c) {
  auto const refused = [&](auto f) {
    auto const before = c.traffic();
    bool thrown = false;
    try {
      f();
    } catch (argument_error const&) {
      thrown = true;
    }
    expect(thrown && c.traffic() == before, "an impossible argument was accepted");
  };
  std::vector<float> v(10 * static_cast<std::size_t>(c.size()));
  refused([&] { c.broadcast(std::span(v), c.size()); });
  refused([&] { c.broadcast(std::span(v), -1); });
  refused([&] { c.send(std::as_bytes(std::span(v)), c.size(), 0); });
  refused([&] { c.recv(std::as_writable_bytes(std::span(v)), 0, -1); });
  refused([&] { c.send(std::as_bytes(std::span(v)), 0, 32768); });
  refused([&] { c.all_gather(std::span(v).first(9), std::span(v)); });
  refused([&] { c.all_to_all(std::span<float const>(v), std::span(v)); });
  refused([&] { c.split(-1, 0); });
  c.barrier();
}

/// Everything; returns one number that is the same on every rank, and for every backend with as many ranks.
template <class C>
std::uint64_t all(C& c) {
  digest d;
  reductions<float>(c, d);
  reductions<double>(c, d);
  reductions<fp16>(c, d);
  reductions<bf16>(c, d);
  reductions<std::int32_t>(c, d);
  reductions<std::int64_t>(c, d);
  reductions<std::uint32_t>(c, d);
  reductions<std::uint64_t>(c, d);
  reductions<std::uint16_t>(c, d);
  reductions<std::uint8_t>(c, d);
  moves<float>(c, d);
  moves<std::byte>(c, d);
  moves<bf16>(c, d);
  variable_sizes(c, d);
  cuts(c, d);
  messages(c);
  splitting(c);
  refusals(c);
  std::vector<std::uint64_t> digests(static_cast<std::size_t>(c.size()));
  c.all_gather(std::span<std::uint64_t const>(&d.value, 1), std::span(digests));
  digest both;
  both.add(std::span(digests));
  auto const t = c.traffic();
  std::vector<std::uint64_t> counted{t.bytes_sent, t.bytes_received, t.operations};
  c.all_reduce(std::span(counted));
  both.add(std::span(counted));
  return both.value;
}

}  // namespace conformance
