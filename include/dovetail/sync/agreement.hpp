// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/comm/communicator_traits.hpp>
#include <dovetail/concepts.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/fingerprint.hpp>
#include <dovetail/core/parameters.hpp>

// What ranks must have in common before they train together, and how it is found out or brought about.
namespace dovetail::sync {

/// A hash of a list's names and shapes in their order; of no number in it.
template <class T>
DOVETAIL_COLD std::uint64_t fingerprint_of(basic_parameter_list<T> const& parameters) {
  fingerprint f;
  auto const add = [&](shape const& s) {
    f.add(s.rank);
    for (int d = 0; d < s.rank; ++d) f.add(s[d]);
  };
  for (auto const& p : parameters) {
    add(p.shape);
    add(p.whole);
    f.add(p.first).add(p.name);
  }
  return f.value();
}

namespace detail {

/// Runs f(), whose collectives are of this step and bucket, on a communicator that can say so to the other ranks.
template <class C, class F>
void with_subject(C& group, comm::subject const& about, F const& f) {
  static_assert(comm::detail::must_be_a_communicator<C>::holds);
  constexpr bool says = comm::communicator_traits<C>::has_about;
  if constexpr (says) group.about(about);
  f();
  if constexpr (says) group.about(comm::subject{});
}

/// Collective: what each rank has, at most a few of them for each tensor.
template <communicator C>
DOVETAIL_COLD std::vector<std::vector<std::uint64_t>> gather_words(std::vector<std::uint64_t> const& mine, C& comm) {
  std::vector<std::byte> all;
  auto const offsets = comm.all_gather_v(std::as_bytes(std::span(mine)), all);
  std::vector<std::vector<std::uint64_t>> of_rank;
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r) {
    auto& words = of_rank.emplace_back((offsets[r + 1] - offsets[r]) / sizeof(std::uint64_t));
    if (!words.empty()) std::memcpy(words.data(), all.data() + offsets[r], words.size() * sizeof(std::uint64_t));
  }
  return of_rank;
}

/// Two ranks that do not have the same, the second of them the odd one; size() twice if all have.
struct unlike {
  std::size_t usual = 0, odd = 0;
};
template <class Values>
unlike find_unlike(Values const& values) {
  std::size_t const odd = comm::odd_one_out(values);
  if (odd == values.size()) return {odd, odd};
  std::size_t usual = 0;
  while (values[usual] == values[odd]) ++usual;
  return {usual, odd};
}

template <class T>
DOVETAIL_COLD std::string name_and_shape(basic_parameter<T> const& p) {
  auto const part =
      p.size() == static_cast<std::size_t>(p.whole.size()) ? std::string() : message(" from element ", p.first, " on");
  return message('\'', p.name, "' ", p.logical_shape(), p.transposed ? " column-major" : "",
                 std::is_same_v<T, double> ? " of doubles" : "", part);
}

}  // namespace detail

/// Collective. Throws argument_error on every rank, with what two of them have, unless all have tensors of the same
/// names and shapes in the same order: a bucket would add up what does not belong together. Moves 8 bytes a rank.
template <class T, communicator C>
DOVETAIL_COLD void require_same_list(basic_parameter_list<T> const& parameters, C& comm, char const* who = "sync") {
  if (comm.size() == 1) return;
  // A matrix by columns lies in memory as its transpose by rows; rules see two different ones.
  fingerprint mine;
  mine.add(fingerprint_of(parameters));
  for (auto const& p : parameters) mine.add(p.transposed);
  mine.add(sizeof(T));
  auto const hashes = detail::gather_words({mine.value()}, comm);
  auto const [usual, odd] = detail::find_unlike(hashes);
  if (odd == hashes.size()) return;
  // Every rank knows that they differ: now each says what it has.
  std::vector<std::uint64_t> lengths;
  std::string lines;
  for (auto const& p : parameters) {
    auto const line = detail::name_and_shape(p);
    lengths.push_back(line.size());
    lines += line;
  }
  auto const all_lengths = detail::gather_words(lengths, comm);
  std::vector<std::byte> all;
  auto const offsets = comm.all_gather_v(std::as_bytes(std::span(lines)), all);
  struct reader {
    std::vector<std::uint64_t> const& lengths;
    char const* at;
    std::size_t i = 0;
    std::string next() {
      if (i == lengths.size()) return message("nothing, it has ", i, " tensors");
      auto const n = static_cast<std::size_t>(lengths[i++]);
      return std::string(std::exchange(at, at + n), n);
    }
  };
  auto const* const text = reinterpret_cast<char const*>(all.data());
  reader first{all_lengths[usual], text + offsets[usual]}, second{all_lengths[odd], text + offsets[odd]};
  std::size_t i = 0;
  auto a = first.next(), b = second.next();
  for (; a == b && (first.i < first.lengths.size() || second.i < second.lengths.size()); ++i)
    a = first.next(), b = second.next();
  throw argument_error(message(who, ": the ranks do not have the same parameters: tensor ", i, " is ", a, " on rank ",
                               usual, " and ", b, " on rank ", odd,
                               ": register the same tensors in the same order on every rank"));
}

/// Collective: rank `root`'s weights become those of every rank, so that replicas start from the same bits. Throws
/// argument_error, as require_same_list does, if the lists differ. Weights that are not in the list (add_opaque)
/// remain the caller's to make equal.
///
///     sync::make_equal(parameters, comm);
///     auto session = sync::all_reduce{}.join(parameters, optim::adamw{}, comm);
template <class T, communicator C>
DOVETAIL_COLD void make_equal(basic_parameter_list<T> const& parameters, C& comm, int root = 0) {
  require(root >= 0 && root < comm.size(), "sync::make_equal: root is rank ", root, ", there are ranks 0 to ",
          comm.size() - 1);
  require_same_list(parameters, comm, "sync::make_equal");
  auto const send = [&](std::span<T> x) {
    if constexpr (std::is_same_v<T, double>)  // communicators send its bits as they are
      comm.broadcast(std::span(reinterpret_cast<std::int64_t*>(x.data()), x.size()), root);
    else
      comm.broadcast(x, root);
  };
  if (auto const flat = parameters.flat_weights(); !flat.empty()) return send(flat);
  for (auto const& p : parameters) send(p.weight);
}

/// Collective. Throws argument_error on every rank, naming the first tensor, two ranks and what to do, unless all ranks
/// have the same bits in all weights of the list. Moves 8 bytes a rank and tensor.
template <class T, communicator C>
DOVETAIL_COLD void require_equal_weights(basic_parameter_list<T> const& parameters, C& comm, char const* who = "sync") {
  require_same_list(parameters, comm, who);
  if (comm.size() == 1) return;
  std::vector<std::uint64_t> mine;
  for (auto const& p : parameters)
    mine.push_back(fingerprint{}.add(std::as_bytes(std::span<T const>(p.weight))).value());
  auto const of_rank = detail::gather_words(mine, comm);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    std::vector<std::uint64_t> hashes;
    for (auto const& words : of_rank) hashes.push_back(words[i]);
    auto const [usual, odd] = detail::find_unlike(hashes);
    require(odd == hashes.size(), who, ": the ranks start from different weights: those of '", parameters[i].name,
            "' are not the same on rank ", usual, " and on rank ", odd,
            ": call sync::make_equal(parameters, comm) before join");
  }
}

}  // namespace dovetail::sync
