// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/comm/call.hpp>
#include <dovetail/core/error.hpp>
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

/// The rule for state that each rank has of its own, saved as "rank<r>.<name>", when a run goes on with another number
/// of ranks: what counts as a sum over ranks (named_tensor::summed: what error feedback still owes the model) is shared
/// out so that its sum is conserved; anything else is taken from rank 0. Call state_match::take before.
DOVETAIL_COLD inline void restore_own(io::saved_state const& saved, std::vector<named_tensor> const& into,
                                      std::int64_t saved_ranks, int ranks, int rank) {
  if (saved_ranks == ranks) return saved.restore(into, own_prefix(rank));
  if (into.empty()) return;  // a damaged position may say a billion ranks
  for (std::int64_t r = 0; r < saved_ranks; ++r) saved.check(into, own_prefix(r));
  for (auto const& t : into) {
    std::size_t const n = t.bytes.size() / sizeof(float);
    if (!t.summed || n == 0) {
      if (!t.bytes.empty())
        std::memcpy(t.bytes.data(), saved.find(own_prefix(0) + t.name)->bytes.data(), t.bytes.size());
      continue;
    }
    require<checkpoint_error>(t.type == dtype::f32, "saved state: '", t.name,
                              "' is to be summed over ranks, but it is ", comm::name_of(t.type), ": go on with ",
                              saved_ranks, " ranks");
    std::vector<double> sums(n);
    for (std::int64_t r = 0; r < saved_ranks; ++r) {
      auto const* const in = saved.find(own_prefix(r) + t.name)->bytes.data();
      for (std::size_t i = 0; i < n; ++i) {
        float x = 0;
        std::memcpy(&x, in + i * sizeof x, sizeof x);
        sums[i] += static_cast<double>(x);
      }
    }
    for (std::size_t i = 0; i < n; ++i) {
      auto const x = static_cast<float>(sums[i] / ranks);
      std::memcpy(t.bytes.data() + i * sizeof x, &x, sizeof x);
    }
  }
}

}  // namespace dovetail::train
