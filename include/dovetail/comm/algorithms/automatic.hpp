// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

#include <dovetail/comm/algorithms/binomial_tree.hpp>
#include <dovetail/comm/algorithms/bruck.hpp>
#include <dovetail/comm/algorithms/direct.hpp>
#include <dovetail/comm/algorithms/double_binary_tree.hpp>
#include <dovetail/comm/algorithms/halving_doubling.hpp>
#include <dovetail/comm/algorithms/hierarchical.hpp>
#include <dovetail/comm/algorithms/recursive_doubling.hpp>
#include <dovetail/comm/algorithms/ring.hpp>
#include <dovetail/comm/algorithms/schedule.hpp>
#include <dovetail/comm/algorithms/torus_2d.hpp>
#include <dovetail/core/error.hpp>

namespace dovetail::comm::algorithm {

/// The algorithms by name, for tables and command lines; own: what the communicator does by itself.
enum class kind : std::uint8_t {
  own,
  direct,
  ring,
  recursive_doubling,
  halving_doubling,
  binomial_tree,
  double_binary_tree,
  bruck,
  hierarchical,
  torus_2d
};
inline constexpr std::array kinds{kind::own,
                                  kind::direct,
                                  kind::ring,
                                  kind::recursive_doubling,
                                  kind::halving_doubling,
                                  kind::binomial_tree,
                                  kind::double_binary_tree,
                                  kind::bruck,
                                  kind::hierarchical,
                                  kind::torus_2d};

/// One of the algorithms, chosen at run time.
struct chosen {
  static constexpr char const* name = "chosen";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements{operation::all_reduce, operation::reduce_scatter, operation::all_gather,
                                            operation::all_to_all, operation::broadcast};

  algorithm::kind kind = algorithm::kind::own;
  topology hosts{};  ///< for hierarchical; empty: what the communicator says

  bool leaves(collective const& c) const {
    bool has = false;
    visit([&](auto const& a) { has = a.implements.has(c.op); });
    return !has;
  }
  void check(int ranks) const {
    visit([&](auto const& a) { algorithm_traits<std::remove_cvref_t<decltype(a)>>::check(a, ranks); });
  }
  chosen on(topology const& known) const { return {kind, hosts.empty() ? known : hosts}; }
  chosen part() const { return {kind, {}}; }
  schedule plan(collective const& c) const {
    schedule s;
    visit([&](auto const& a) { s = a.plan(c); });
    return s;
  }
  /// f(algorithm), unless it is own.
  template <class F>
  void visit(F const& f) const {
    switch (kind) {
      case algorithm::kind::own:
        return;
      case algorithm::kind::direct:
        return f(direct{});
      case algorithm::kind::ring:
        return f(ring{});
      case algorithm::kind::recursive_doubling:
        return f(recursive_doubling{});
      case algorithm::kind::halving_doubling:
        return f(halving_doubling{});
      case algorithm::kind::binomial_tree:
        return f(binomial_tree{});
      case algorithm::kind::double_binary_tree:
        return f(double_binary_tree{});
      case algorithm::kind::bruck:
        return f(bruck{});
      case algorithm::kind::hierarchical:
        return f(hierarchical{hosts});
      case algorithm::kind::torus_2d:
        return f(torus_2d{});
    }
  }
};

inline char const* name_of(kind k) {
  char const* name = "own";
  chosen{k}.visit([&](auto const& a) { name = a.name; });
  return name;
}
/// Throws argument_error for a name that is none.
inline kind kind_of(std::string_view name) {
  std::string all;
  for (auto const k : kinds) {
    if (name == name_of(k)) return k;
    all += message(' ', name_of(k));
  }
  throw argument_error(message("there is no algorithm '", name, "'; there are", all));
}

/// Up to `bytes` of the whole array, on up to `ranks` ranks.
struct table_row {
  operation op = operation::all_reduce;
  int ranks = 0;
  std::size_t bytes = 0;
  kind use = kind::own;
  friend bool operator==(table_row const&, table_row const&) = default;
};

/// Chooses by operation, bytes and ranks. A table, as `./run bench collectives --calibrate FILE` writes it for a
/// machine, has rows with ascending bytes: for each operation that it knows those of the smallest number of ranks that
/// is not below P (or of the largest) hold, the last one for all larger arrays. Without a row for the operation the
/// least time decides if a message takes latency + bytes / bandwidth; on one host it is left to the communicator, which
/// shares memory there.
struct automatic {
  static constexpr char const* name = "automatic";
  static constexpr sum_order sums = sum_order::same_on_all;
  static constexpr operation_set implements = chosen::implements;

  std::vector<table_row> table{};
  double latency_seconds = 5e-6;
  double bytes_per_second = 5e9;
  topology hosts{};  ///< empty: what the communicator says

  automatic on(topology const& known) const {
    auto a = *this;
    if (a.hosts.empty()) a.hosts = known;
    return a;
  }
  automatic part() const {
    auto a = *this;
    a.hosts = {};
    return a;
  }
  bool leaves(collective const& c) const { return chosen{choose(c.op, c.bytes(), c.ranks), hosts}.leaves(c); }
  schedule plan(collective const& c) const { return chosen{choose(c.op, c.bytes(), c.ranks), hosts}.plan(c); }

  kind choose(operation op, std::size_t bytes, int ranks) const {
    int of = 0;  // the rows for this number of ranks
    for (auto const& row : table) {
      if (row.op != op) continue;
      if (of == 0 || (of < ranks ? row.ranks > of : row.ranks >= ranks && row.ranks < of)) of = row.ranks;
    }
    kind use = kind::own;
    for (auto const& row : table) {
      if (row.op != op || row.ranks != of) continue;
      use = row.use;
      if (bytes <= row.bytes) break;
    }
    return of == 0 ? by_model(op, bytes, ranks) : use;
  }

  /// By the model, of a kind that has the operation.
  double seconds(kind k, operation op, std::size_t bytes, int ranks) const {
    double log = 0, steps = 0, arrays = 0;  // arrays: how often the whole array is sent by the busiest rank
    for (int n = 1; n < ranks; n *= 2) ++log;
    bool const folds = (ranks & (ranks - 1)) != 0;
    double const others = ranks - 1, part = others / ranks;
    bool const both = op == operation::all_reduce;
    switch (k) {
      case kind::ring:
        steps = (both ? 2 : 1) * others, arrays = (both ? 2 : 1) * part;
        if (op == operation::broadcast) arrays = 1;
        break;
      case kind::recursive_doubling:
        steps = log + folds, arrays = log + folds;
        break;
      case kind::halving_doubling:
        steps = (both ? 2 : 1) * log + folds, arrays = (both ? 2 : 1) * part + 2 * folds;
        break;
      case kind::binomial_tree:
        steps = (both ? 2 : 1) * log, arrays = steps;
        break;
      case kind::bruck:
        steps = log, arrays = op == operation::all_to_all ? log / 2 : part;
        break;
      case kind::hierarchical: {  // what stays on a host is not counted
        double const n = hosts.hosts(), on_one = ranks / n;
        steps = 2 * n, arrays = 2 * (n - 1) / n / on_one;
        break;
      }
      default:  // direct: the messages of one step leave one after another
        steps = (both ? 2 : 1) * others;
        arrays = (both ? 2 : 1) * (op == operation::broadcast ? others : part);
    }
    return steps * latency_seconds + arrays * static_cast<double>(bytes) / bytes_per_second;
  }

  /// As a file has it: a line of operation, ranks, bytes (or `more`) and algorithm per row; # begins a comment.
  static std::string text_of(std::vector<table_row> const& rows) {
    std::string text = "# operation ranks bytes algorithm\n";
    for (auto const& r : rows)
      text += message(name_of(r.op), ' ', r.ranks, ' ',
                      r.bytes == std::numeric_limits<std::size_t>::max() ? "more" : std::to_string(r.bytes), ' ',
                      algorithm::name_of(r.use), '\n');
    return text;
  }
  /// Throws input_error, with the line, for what is no such table.
  static std::vector<table_row> parse(std::string_view text) {
    std::vector<table_row> rows;
    for (int number = 1; !text.empty(); ++number) {
      auto const line = text.substr(0, text.find('\n'));
      text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
      auto const w = words(line);
      if (w.empty()) continue;
      table_row row;
      bool good = w.size() == 4 && operation_of(w[0], row.op) && to_number(w[1], row.ranks) && row.ranks > 0;
      if (good && w[2] == "more")
        row.bytes = std::numeric_limits<std::size_t>::max();
      else
        good = good && to_number(w[2], row.bytes);
      require<input_error>(good, "a table of algorithms, line ", number, ": '", line,
                           "': not an operation, ranks, bytes and an algorithm");
      try {
        row.use = kind_of(w[3]);
      } catch (argument_error const& e) {
        throw input_error(message("a table of algorithms, line ", number, ": ", e.what()));
      }
      require<input_error>(row.use == kind::own || !chosen{row.use}.leaves({row.op, row.ranks, 0, 0, 1, 1}),
                           "a table of algorithms, line ", number, ": '", line, "': ", w[3], " has no ", w[0]);
      bool const behind =
          rows.empty() || rows.back().op != row.op || rows.back().ranks != row.ranks || rows.back().bytes < row.bytes;
      require<input_error>(behind, "a table of algorithms, line ", number, ": '", line,
                           "': rows of one operation and number of ranks stand in the order of their bytes");
      rows.push_back(row);
    }
    return rows;
  }

 private:
  kind by_model(operation op, std::size_t bytes, int ranks) const {
    if (ranks == 1 || hosts.hosts() == 1) return kind::own;
    kind best = kind::direct;
    for (auto const k :
         {kind::recursive_doubling, kind::halving_doubling, kind::ring, kind::binomial_tree, kind::bruck})
      if (!chosen{k}.leaves({op, ranks, 0, 0, bytes, 1}) &&
          seconds(k, op, bytes, ranks) <= seconds(best, op, bytes, ranks))
        best = k;
    if (op == operation::all_reduce && hosts.hosts() > 1 && hosts.hosts() < ranks &&
        seconds(kind::hierarchical, op, bytes, ranks) <= seconds(best, op, bytes, ranks))
      best = kind::hierarchical;
    return best;
  }
  static std::vector<std::string_view> words(std::string_view line) {
    line = line.substr(0, line.find('#'));
    std::vector<std::string_view> all;
    for (;;) {
      auto const begin = line.find_first_not_of(" \t\r");
      if (begin == line.npos) return all;
      line.remove_prefix(begin);
      all.push_back(line.substr(0, line.find_first_of(" \t\r")));
      line.remove_prefix(all.back().size());
    }
  }
  static bool operation_of(std::string_view word, operation& op) {
    for (auto const o : {operation::all_reduce, operation::reduce_scatter, operation::all_gather, operation::all_to_all,
                         operation::broadcast})
      if (word == name_of(o)) {
        op = o;
        return true;
      }
    return false;
  }
  static char const* name_of(operation op) { return comm::name_of(op); }
  template <class T>
  static bool to_number(std::string_view word, T& n) {
    auto const r = std::from_chars(word.data(), word.data() + word.size(), n);
    return r.ec == std::errc{} && r.ptr == word.data() + word.size();
  }
};

}  // namespace dovetail::comm::algorithm
