// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/shard.hpp>
#include <dovetail/core/state.hpp>
#include <dovetail/io/saved_state.hpp>

// What of a saved state belongs to whom: all of it must be taken up, or it is of something else.
namespace dovetail::train {

/// The prefix of state that rank `rank` has of its own.
DOVETAIL_COLD inline std::string own_prefix(std::int64_t rank) { return "rank" + std::to_string(rank) + "."; }

/// Compares a saved state with those who are about to take it up, so that everything that does not fit is said at once,
/// by name, before the first byte changes.
class state_match {
 public:
  explicit state_match(io::saved_state const& saved) : saved_(&saved) {}

  /// `into` takes up the pieces of its names, which must be there, with its dtypes and shapes.
  DOVETAIL_COLD void take(std::vector<named_tensor> const& into, std::string const& prefix = "") {
    for (auto const& t : into) {
      auto const name = prefix + t.name;
      taken_.insert(name);
      auto const* p = saved_->find(name);
      if (!p)
        list(missing_, name);
      else if (p->type != t.type || p->shape != t.shape || p->bytes.size() != t.bytes.size())
        list(unlike_, name,
             message(" is ", comm::name_of(p->type), ' ', p->shape, ", here ", comm::name_of(t.type), ' ', t.shape));
      else
        saved_->check({t}, prefix);  // and what its numbers may be
    }
  }
  /// A piece of this name may be there.
  void allow(std::string const& name) { taken_.insert(name); }
  /// Pieces of this prefix may be there.
  DOVETAIL_COLD void allow_all(std::string const& prefix) {
    for (auto const& [name, piece] : saved_->pieces())
      if (name.starts_with(prefix)) taken_.insert(name);
  }
  void allow(std::vector<named_tensor> const& of, std::string const& prefix) {
    for (auto const& t : of) allow(prefix + t.name);
  }

  /// Throws checkpoint_error that names every piece that is missing, of another shape, or that nobody takes up.
  DOVETAIL_COLD void require_all(std::string const& advice = "it belongs to another model, optimizer or codec") const {
    std::string surplus;
    for (auto const& [name, piece] : saved_->pieces())
      if (!taken_.contains(name)) list(surplus, name);
    std::string all;
    for (auto const& [words, names] :
         {std::pair{"there is no ", &missing_}, {"", &unlike_}, {"nobody takes up ", &surplus}})
      if (!names->empty()) all += message(all.empty() ? "" : "; ", words, *names);
    require<checkpoint_error>(all.empty(), "saved state: ", all, ": ", advice);
  }

 private:
  DOVETAIL_COLD static void list(std::string& to, std::string const& name, std::string const& what = "") {
    to += (to.empty() ? "'" : ", '") + name + "'" + what;
  }
  io::saved_state const* saved_;
  std::set<std::string> taken_;
  std::string missing_, unlike_;
};

namespace detail {

/// What the name of a rank's piece says, see state_kind.
struct place {
  std::string whole;
  std::size_t first = 0;
  bool beside = false, of_shard = false;

  DOVETAIL_COLD static place of(std::string const& name) {
    auto const at = name.rfind('@');
    if (at == std::string::npos) return {name};
    place p{name.substr(0, at)};
    p.beside = p.of_shard = name.substr(at) == "@sum";
    if (p.of_shard) return p;
    auto const [end, error] = std::from_chars(name.data() + at + 1, name.data() + name.size(), p.first);
    if (error != std::errc{}) return {name};
    p.beside = end != name.data() + name.size();
    return p;
  }
};

/// The rank whose own piece has this name, of `ranks`, and what follows its prefix; -1 if it is nobody's.
DOVETAIL_COLD inline std::int64_t owner_of(std::string const& name, std::int64_t ranks, std::string& rest) {
  std::int64_t rank = -1;
  if (!name.starts_with("rank")) return -1;
  auto const [end, error] = std::from_chars(name.data() + 4, name.data() + name.size(), rank);
  if (error != std::errc{} || end == name.data() + name.size() || *end != '.' || rank < 0 || rank >= ranks) return -1;
  rest.assign(end + 1, name.data() + name.size());
  return rank;
}

}  // namespace detail

/// A saved run's state whose sum over ranks counts (state_kind::summed), of all its ranks: for a run that goes on with
/// another number of them, and perhaps with other shards. Throws checkpoint_error for what does not fit, before
/// anything changes.
class summed_state {
 public:
  /// `into` is one rank's list of what takes it up.
  DOVETAIL_COLD summed_state(io::saved_state const& saved, std::vector<named_tensor> const& into,
                             std::int64_t saved_ranks) {
    for (auto const& t : into)
      if (t.kind == state_kind::summed) {
        require<checkpoint_error>(t.type == dtype::f32, "saved state: '", t.name,
                                  "' is to be summed over ranks, but it is ", comm::name_of(t.type), ": go on with ",
                                  saved_ranks, " ranks");
        auto const at = place::of(t.name);
        if (at.of_shard) continue;
        auto* known = of(at.whole);
        if (!known) known = &sums_.emplace_back(sum{at.whole, {}, {}, 0, 0});
        auto& values = known->values;
        values.resize(std::max(values.size(), at.first + t.bytes.size() / sizeof(float)));
      }
    for (auto& s : sums_) s.covered.resize(s.values.size());
    for (auto const& [name, piece] : saved.pieces()) add(name, piece, saved_ranks);
    for (auto const& s : sums_)
      require<checkpoint_error>(s.elements == s.values.size() * static_cast<std::size_t>(saved_ranks),
                                "saved state: of '", s.whole, "' there are ", s.elements, " elements of ", saved_ranks,
                                " ranks, not ", s.values.size(),
                                " of each: it belongs to another model or codec, or buckets were cut otherwise");
    for (auto const& s : sums_) {
      bool const all =
          std::all_of(s.covered.begin(), s.covered.end(), [&](std::int64_t n) { return n == saved_ranks; });
      require<checkpoint_error>(all && (s.of_shards == 0 || s.of_shards == saved_ranks), "saved state: of '", s.whole,
                                "' ranks do not have each element once: it is damaged, or belongs to another model");
    }
  }
  /// Of saved pieces, those that it has taken in.
  std::vector<std::string> const& names() const { return names_; }
  /// Shares the sums out among `ranks` ranks.
  DOVETAIL_COLD void restore(std::vector<named_tensor> const& into, int ranks) const {
    for (auto const& t : into) {
      if (t.kind != state_kind::summed) continue;
      auto const at = place::of(t.name);
      auto const& values = of(at.whole)->values;
      for (std::size_t i = 0; i < t.bytes.size() / sizeof(float); ++i) {
        constexpr auto most = static_cast<double>(std::numeric_limits<float>::max());
        double const share = std::clamp(values[at.first + i] / ranks, -most, most);
        auto const x = at.beside ? 0.0f : static_cast<float>(share);
        std::memcpy(t.bytes.data() + i * sizeof x, &x, sizeof x);
      }
    }
  }

 private:
  using place = detail::place;
  struct sum {
    std::string whole;
    std::vector<double> values;
    std::vector<std::int64_t> covered;  ///< how many ranks have each element
    std::size_t elements = 0;           ///< that ranks have, beside what stands beside them
    std::int64_t of_shards = 0;         ///< ranks that have a shard of something beside
  };

  DOVETAIL_COLD void add(std::string const& name, io::saved_state::piece const& piece, std::int64_t saved_ranks) {
    std::string rest;
    auto const rank = detail::owner_of(name, saved_ranks, rest);
    if (rank < 0) return;
    auto at = place::of(rest);
    auto* const found = of(at.whole);
    if (!found) return;
    auto& values = found->values;
    if (at.of_shard) at.first = shard(values.size(), static_cast<int>(saved_ranks), static_cast<int>(rank)).begin;
    std::size_t const n = piece.bytes.size() / sizeof(float);
    require<checkpoint_error>(piece.type == dtype::f32 && at.first <= values.size() && n <= values.size() - at.first,
                              "saved state: '", name, "' is ", comm::name_of(piece.type), ' ', piece.shape, ", of ",
                              values.size(), " floats from ", at.first, " on: it belongs to another model or codec");
    for (std::size_t i = 0; i < n; ++i) {
      float x = 0;
      std::memcpy(&x, piece.bytes.data() + i * sizeof x, sizeof x);
      values[at.first + i] += static_cast<double>(x);
    }
    if (!at.beside)
      for (std::size_t i = 0; i < n; ++i) ++found->covered[at.first + i];
    found->of_shards += at.of_shard;
    if (!at.beside) found->elements += n;
    names_.push_back(name);
  }

  sum* of(std::string const& whole) {
    for (auto& s : sums_)
      if (s.whole == whole) return &s;
    return nullptr;
  }
  sum const* of(std::string const& whole) const { return const_cast<summed_state*>(this)->of(whole); }

  std::vector<sum> sums_;
  std::vector<std::string> names_;
};

/// A saved run's state that its ranks had divided among them (state_kind::sharded), for a run that divides it
/// otherwise. Throws checkpoint_error for what does not fit, before anything changes.
class sharded_state {
 public:
  /// `into` is one rank's list of what takes it up.
  DOVETAIL_COLD sharded_state(io::saved_state const& saved, std::vector<named_tensor> const& into,
                              std::int64_t saved_ranks) {
    std::set<std::string> wholes;
    for (auto const& t : into)
      if (t.kind == state_kind::sharded) wholes.insert(detail::place::of(t.name).whole);
    std::string rest;
    for (auto const& [name, found] : saved.pieces()) {
      if (wholes.empty() || detail::owner_of(name, saved_ranks, rest) < 0) continue;
      auto at = detail::place::of(rest);
      if (at.beside || !wholes.contains(at.whole)) continue;
      pieces_.push_back({std::move(at.whole), at.first, &found});
      names_.push_back(name);
    }
    for (auto const& t : into) {
      if (t.kind != state_kind::sharded) continue;
      std::vector<char> covered(elements(t.bytes.size(), t.type));
      bool once = true;
      each_part(t, [&](std::size_t to, piece const& p, std::size_t, std::size_t n) {
        require<checkpoint_error>(p.saved->type == t.type, "saved state: '", p.whole, "' is ",
                                  comm::name_of(p.saved->type), ", here ", comm::name_of(t.type),
                                  ": it belongs to another model or optimizer");
        for (std::size_t i = to; i < to + n; ++i) once = !std::exchange(covered[i], 1) && once;
      });
      for (char const c : covered) once = once && c;
      require<checkpoint_error>(once, "saved state: of '", t.name, "', ", covered.size(), " elements, the ",
                                saved_ranks,
                                " ranks that saved it do not have each once: it is damaged, or belongs to another "
                                "model or optimizer");
    }
  }
  /// Whether the rank of this prefix had just these pieces when it was saved.
  DOVETAIL_COLD static bool divided_alike(io::saved_state const& saved, std::vector<named_tensor> const& into,
                                          std::string const& prefix) {
    return std::all_of(into.begin(), into.end(), [&](named_tensor const& t) {
      auto const* const p = saved.find(prefix + t.name);
      return t.kind != state_kind::sharded || (p && p->bytes.size() == t.bytes.size());
    });
  }
  /// Of saved pieces, those that some rank takes something of.
  std::vector<std::string> const& names() const { return names_; }
  DOVETAIL_COLD void restore(std::vector<named_tensor> const& into) const {
    for (auto const& t : into)
      if (t.kind == state_kind::sharded)
        each_part(t, [&](std::size_t to, piece const& p, std::size_t from, std::size_t n) {
          auto const width = size_of(t.type);
          std::memcpy(t.bytes.data() + to * width, p.saved->bytes.data() + from * width, n * width);
        });
  }

 private:
  struct piece {
    std::string whole;
    std::size_t first;
    io::saved_state::piece const* saved;
  };
  static std::size_t elements(std::size_t bytes, dtype type) { return bytes / size_of(type); }
  /// f(where in t, a piece, where in it, how many elements) of what a piece has of it.
  template <class F>
  void each_part(named_tensor const& t, F const& f) const {
    auto const at = detail::place::of(t.name);
    std::size_t const end = at.first + elements(t.bytes.size(), t.type);
    for (auto const& p : pieces_) {
      if (p.whole != at.whole) continue;
      std::size_t const from = std::max(at.first, p.first);
      std::size_t const to = std::min(end, p.first + elements(p.saved->bytes.size(), p.saved->type));
      if (from < to) f(from - at.first, p, from - p.first, to - from);
    }
  }

  std::vector<piece> pieces_;
  std::vector<std::string> names_;
};

/// All of a rank's own state but what is divided anew.
DOVETAIL_COLD inline std::vector<named_tensor> undivided_part(std::vector<named_tensor> const& own) {
  std::vector<named_tensor> all;
  for (auto const& t : own)
    if (t.kind != state_kind::sharded) all.push_back(t);
  return all;
}

/// What of a rank's own state is the same whichever rank's it is: all but sums, when a run goes on with another number
/// of ranks, and shards where the session has those (`divides`). Throws checkpoint_error where a rank's state is of no
/// use to others.
DOVETAIL_COLD inline std::vector<named_tensor> replicated_part(std::vector<named_tensor> const& own,
                                                               std::int64_t saved_ranks, int ranks, bool divides) {
  std::vector<named_tensor> all;
  for (auto const& t : own) {
    bool const is_own = t.kind == state_kind::own || (t.kind == state_kind::sharded && !divides);
    require<checkpoint_error>(!is_own, "saved state: '", t.name,
                              "' is each rank's own, and of no use to another: this run has ", ranks,
                              " ranks, go on with ", saved_ranks);
    if (t.kind == state_kind::replicated) all.push_back(t);
  }
  return all;
}

}  // namespace dovetail::train
