// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/refuse.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/shard.hpp>

namespace dovetail {

/// What is known of a tensor before it has memory.
struct named_shape {
  std::string name;
  dovetail::shape shape;
  friend bool operator==(named_shape const&, named_shape const&) = default;
};

/// How the elements of a tensor of two or more dimensions follow each other in memory.
enum class layout : std::uint8_t {
  row_major,    ///< the last index runs fastest: C, PyTorch, NumPy
  column_major  ///< the first one does: Fortran, and Eigen and Armadillo by default
};

/// A view of one trainable tensor, or of a part of one, in anyone's memory: its name, its weights and, of the same
/// size, its gradients.
struct parameter {
  std::string name;  ///< unique; PyTorch's form where there is one: "0.weight"
  std::span<float> weight;
  std::span<float> gradient;
  /// Of the memory, read row by row: what files and states are labeled with. A column-major matrix of r rows is, read
  /// so, its transpose of r columns.
  dovetail::shape shape;
  std::size_t first = 0;          ///< of a part of a tensor: the tensor's element that it begins with
  dovetail::shape whole = shape;  ///< of a part of a tensor: the tensor's shape
  bool transposed = false;        ///< registered as column-major

  std::size_t size() const { return static_cast<std::size_t>(shape.size()); }
  /// True if the numbers are not in fp32, or not in this process's memory.
  bool opaque() const { return weight.size() != size(); }
  /// The shape, and the whole tensor's, as it was registered: what a rule takes for rows and columns.
  dovetail::shape logical_shape() const { return transposed ? reversed(shape) : shape; }
  dovetail::shape logical_whole() const { return transposed ? reversed(whole) : whole; }
};

/// Other memory for a tensor of a list (parameter_list::rebind).
struct parameter_memory {
  std::string name;
  std::span<float> weight;
  std::span<float> gradient;
};

/// An ordered list of parameters, in forward order. Concatenated without gaps they form the *flat index space*:
/// parameter i occupies [offset(i), offset(i) + size). Optimizer slots, buckets and shards are ranges of it.
///
/// The list holds views: the memory is the caller's, must outlive it, and must not move. What reallocates (a move
/// assignment, a resize, gradients that are freed between steps) is told to the list by rebind().
class parameter_list {
 public:
  parameter_list() = default;

  /// Registers a tensor, O(log n). Throws argument_error on a repeated name, on sizes that do not agree, and on memory
  /// that cannot be right: none at all, or one that another weight or gradient of the list has, in whole or in part.
  DOVETAIL_COLD void add(std::string name, std::span<float> weight, std::span<float> gradient, dovetail::shape shape,
                         layout order = layout::row_major) {
    auto const size = size_of(name, shape);
    require(weight.size() == size, "parameter '", name, "': shape ", shape, " has ", size, " elements, its weight ",
            weight.size(), ": pass the whole tensor");
    require(gradient.size() == weight.size(), "parameter '", name, "': the weight has ", weight.size(),
            " elements, the gradient ", gradient.size(), ": they must be equal");
    bool const transposed = order == layout::column_major && shape.rank >= 2;
    auto const stored = transposed ? reversed(shape) : shape;
    insert({std::move(name), weight, gradient, stored, 0, stored, transposed});
  }
  /// One-dimensional form.
  void add(std::string name, std::span<float> weight, std::span<float> gradient) {
    add(std::move(name), weight, gradient, dovetail::shape{static_cast<std::int64_t>(weight.size())});
  }
  /// Form for tensors of libraries that know strides (in elements): a view that is not contiguous and row-major
  /// is refused here, because an update through it would silently touch other elements.
  void add(std::string name, float* weight, std::span<std::int64_t const> weight_strides, float* gradient,
           std::span<std::int64_t const> gradient_strides, dovetail::shape shape) {
    auto const n = size_of(name, shape);
    check_contiguous(name, "weight", weight_strides, shape);
    check_contiguous(name, "gradient", gradient_strides, shape);
    require(n == 0 || (weight && gradient), "parameter '", name, "': its ", weight ? "gradient" : "weight",
            " is a null pointer, its shape ", shape, ": pass the memory of ", n, " elements");
    add(std::move(name), {weight, n}, {gradient, n}, shape);
  }

  /// Refuses what is not memory of floats that a step may write to.
  template <class Weight, class Gradient>
  requires(!std::convertible_to<Weight, std::span<float>> || !std::convertible_to<Gradient, std::span<float>>)  //
      void add(std::string, Weight&&, Gradient&&, dovetail::shape = {}, layout = layout::row_major) {
    DOVETAIL_REQUIRE((std::convertible_to<Weight, std::span<float>>),
                     "a weight is memory of floats that can be written to, a std::span<float> or what converts to one",
                     Weight);
    DOVETAIL_REQUIRE(
        (!std::convertible_to<Weight, std::span<float>> || std::convertible_to<Gradient, std::span<float>>),
        "a gradient is memory of floats that is not const (some rules and exchanges write to it), a "
        "std::span<float> or what converts to one",
        Gradient);
  }

  /// Gives tensors other memory of the same size, all of them at once, so that one may take what another one leaves.
  /// Names, order and the state of optimizers stay. Throws argument_error as add() does, and then nothing has changed.
  /// The contents of the old memory are not copied. Not while a session has an exchange in flight: before its begin().
  DOVETAIL_COLD void rebind(std::span<parameter_memory const> tensors) {
    std::vector<std::pair<std::size_t, parameter_memory const*>> moved;
    for (auto const& t : tensors) {
      auto const& p = items_[find(t.name)];
      require(!p.opaque(), "parameter '", t.name, "' is not in this list's memory: tell its optimizer where it is");
      require(t.weight.size() == p.size() && t.gradient.size() == p.size(), "parameter '", t.name, "' has ", p.size(),
              " elements, its new weight ", t.weight.size(), ", its new gradient ", t.gradient.size(),
              ": a tensor of another size is another one, register it in a new list");
      moved.emplace_back(find(t.name), &t);
    }
    std::sort(moved.begin(), moved.end());
    for (std::size_t k = 1; k < moved.size(); ++k)
      require(moved[k].first != moved[k - 1].first, "parameter '", moved[k].second->name,
              "' is given memory twice: name it once");
    std::vector<std::pair<std::span<float>, std::span<float>>> old;
    for (auto const& [i, to] : moved) old.emplace_back(items_[i].weight, items_[i].gradient);
    for (auto const& [i, to] : moved) release(items_[i]);
    std::size_t done = 0;
    try {
      for (; done < moved.size(); ++done) {
        auto& p = items_[moved[done].first];
        p.weight = moved[done].second->weight;
        p.gradient = moved[done].second->gradient;
        claim(moved[done].first);
      }
    } catch (...) {
      for (std::size_t k = 0; k < done; ++k) release(items_[moved[k].first]);
      for (std::size_t k = 0; k < moved.size(); ++k)
        std::tie(items_[moved[k].first].weight, items_[moved[k].first].gradient) = old[k];
      for (auto const& [i, to] : moved) claim(i);
      throw;
    }
  }
  void rebind(std::string name, std::span<float> weight, std::span<float> gradient) {
    parameter_memory const one{std::move(name), weight, gradient};
    rebind(std::span(&one, 1));
  }

  /// A tensor whose numbers are not in fp32, or not in this process's memory: weight and gradient are empty spans. For
  /// optimizers that are told where they are (optim::low_precision_state with split_weights, a gradient source).
  DOVETAIL_COLD void add_opaque(std::string name, dovetail::shape shape) {
    size_of(name, shape);
    insert({std::move(name), {}, {}, shape});
  }
  /// Elements r of another list's tensor, or of a part of one; a shape of the same rank, with them all in the last
  /// dimension unless they are the whole tensor.
  DOVETAIL_COLD void add_part(parameter const& of, range r) {
    require(r.begin <= r.end && r.end <= of.size(), "parameter '", of.name, "' has ", of.size(),
            " elements: there is no part from ", r.begin, " to ", r.end);
    parameter p = of;
    p.first += r.begin;
    if (r.size() != of.size()) {
      for (int d = 0; d < p.shape.rank; ++d) p.shape[d] = 1;
      if (p.shape.rank == 0) p.shape.push_back(1);
      p.shape[p.shape.rank - 1] = static_cast<std::int64_t>(r.size());
    }
    if (!of.opaque()) {
      p.weight = of.weight.subspan(r.begin, r.size());
      p.gradient = of.gradient.subspan(r.begin, r.size());
    }
    insert(std::move(p));
  }
  bool has_opaque() const { return has_opaque_; }

  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  parameter& operator[](std::size_t i) { return items_[i]; }
  parameter const& operator[](std::size_t i) const { return items_[i]; }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

  /// First flat index of parameter i; offset(size()) is flat_size().
  std::size_t offset(std::size_t i) const { return i < offsets_.size() ? offsets_[i] : flat_size(); }
  /// Number of weights.
  std::size_t flat_size() const { return empty() ? 0 : flat_size_; }  // empty: another list was moved from this one
  /// Position of the parameter called `name`; throws argument_error if there is none.
  std::size_t find(std::string const& name) const {
    auto const place = by_name_.find(name);
    require(place != by_name_.end(), "no parameter is called '", name, "'");
    return place->second;
  }
  bool contains(std::string const& name) const { return by_name_.contains(name); }

  /// The gradients (weights) of the whole list as one span when they lie in memory as in the flat index space,
  /// as an arena's do; an empty span otherwise.
  std::span<float> flat_gradients() const { return flat(&parameter::gradient); }
  std::span<float> flat_weights() const { return flat(&parameter::weight); }

 private:
  friend class arena;
  DOVETAIL_COLD void insert(parameter p) {
    auto const [place, added] = by_name_.emplace(p.name, items_.size());
    require(added, "parameter '", p.name, "' is registered twice: names must be unique, state is kept by name");
    items_.push_back(std::move(p));
    try {
      if (!items_.back().opaque()) claim(items_.size() - 1);
    } catch (...) {
      by_name_.erase(place);
      items_.pop_back();
      throw;
    }
    offsets_.push_back(items_.size() == 1 ? 0 : flat_size_);
    flat_size_ = offsets_.back() + items_.back().size();
    has_opaque_ = has_opaque_ || items_.back().opaque();
  }

  // ---- whose memory is where

  struct block {
    float const* end;
    std::size_t owner;
    bool weight;
  };
  /// Notes that the memory of parameter i is taken. Throws, and leaves everything as it was, if it cannot be.
  DOVETAIL_COLD void claim(std::size_t i) {
    auto const& p = items_[i];
    claim(i, p.weight, true);
    try {
      claim(i, p.gradient, false);
    } catch (...) {
      if (p.size()) taken_.erase(p.weight.data());
      throw;
    }
  }
  DOVETAIL_COLD void claim(std::size_t i, std::span<float const> memory, bool weight) {
    if (memory.empty()) return;
    auto const& name = items_[i].name;
    char const* const what = weight ? "weight" : "gradient";
    require(memory.data() != nullptr, "parameter '", name, "': its ", what, " is a null pointer, its size ",
            memory.size(), ": pass the memory of its elements");
    require(reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(float) == 0, "parameter '", name, "': its ", what,
            " is not aligned as floats are");
    float const* const end = memory.data() + memory.size();
    auto const after = taken_.lower_bound(memory.data());
    auto const* other = after != taken_.end() && before(after->first, end) ? &after->second : nullptr;
    if (!other && after != taken_.begin() && before(memory.data(), std::prev(after)->second.end))
      other = &std::prev(after)->second;
    if (other) refuse_shared(i, weight, *other);
    taken_.emplace_hint(after, memory.data(), block{end, i, weight});
  }
  [[noreturn]] DOVETAIL_COLD void refuse_shared(std::size_t i, bool weight, block const& other) const {
    auto const& name = items_[i].name;
    char const* const what = weight ? "weight" : "gradient";
    if (other.owner == i)
      throw argument_error(message("parameter '", name, "': its gradient is its weight's memory, or a part of it: ",
                                   "a step needs both, give the gradient memory of its own"));
    throw argument_error(message(
        "parameter '", name, "': its ", what, " shares memory with the ", other.weight ? "weight" : "gradient", " of '",
        items_[other.owner].name, "': ",
        weight && other.weight ? "tied weights are one parameter, registered once, with the sum of their gradients"
                               : "each needs memory of its own"));
  }
  void release(parameter const& p) {
    if (p.size() == 0) return;
    taken_.erase(p.weight.data());
    taken_.erase(p.gradient.data());
  }
  /// Pointers into different arrays are ordered by std::less alone.
  static bool before(float const* a, float const* b) { return std::less<float const*>()(a, b); }

  /// The number of elements; throws argument_error for a shape that no memory has.
  DOVETAIL_COLD static std::size_t size_of(std::string const& name, dovetail::shape const& shape) {
    std::size_t n = 1;
    bool empty = false;
    for (int i = 0; i < shape.rank; ++i) {
      require(shape[i] >= 0, "parameter '", name, "': shape ", shape, " has the extent ", shape[i], " in dimension ",
              i);
      empty = empty || shape[i] == 0;
      auto const extent = static_cast<std::size_t>(std::max<std::int64_t>(shape[i], 1));
      require(n <= largest / extent, "parameter '", name, "': shape ", shape,
              " has more elements than memory can hold");
      n *= extent;
    }
    return empty ? 0 : n;
  }
  static constexpr std::size_t largest = std::numeric_limits<std::ptrdiff_t>::max() / sizeof(float);
  static void check_contiguous(std::string const& name, char const* what, std::span<std::int64_t const> strides,
                               dovetail::shape const& shape) {
    require(strides.size() == static_cast<std::size_t>(shape.rank), "parameter '", name, "': ", what, " has ",
            strides.size(), " strides for shape ", shape);
    if (shape.size() == 0) return;  // no element is anywhere; PyTorch counts an extent of 0 as 1 there
    std::int64_t expected = 1;
    for (int i = shape.rank; i-- > 0; expected *= shape[i])
      require(shape[i] == 1 || strides[static_cast<std::size_t>(i)] == expected, "parameter '", name, "': the ", what,
              " of shape ", shape, " has stride ", strides[static_cast<std::size_t>(i)], " in dimension ", i,
              " where a contiguous tensor has ", expected, ": make it contiguous before it is registered");
  }
  std::span<float> flat(std::span<float> parameter::*member) const {
    if (items_.empty() || has_opaque_) return {};
    float* const first = (items_.front().*member).data();
    for (std::size_t i = 0; i < items_.size(); ++i)
      if ((items_[i].*member).data() != first + offsets_[i]) return {};
    return {first, flat_size_};
  }

  std::vector<parameter> items_;
  std::vector<std::size_t> offsets_;
  std::size_t flat_size_ = 0;
  bool has_opaque_ = false;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::map<float const*, block, std::less<>> taken_;  // blocks of memory by their beginning, none of them empty
};

/// Owns weights and gradients of a list of tensors in forward order: two 64-byte aligned blocks, each laid out
/// as the flat index space, so that a bucket of gradients is a plain range. A value: copies own copies.
class arena {
 public:
  using tensor = named_shape;

  arena() = default;
  DOVETAIL_COLD explicit arena(std::vector<tensor> layout) : layout_(std::move(layout)) {
    std::size_t n = 0;
    for (auto const& t : layout_) {
      std::size_t const more = parameter_list::size_of(t.name, t.shape);
      require(more <= parameter_list::largest - n, "arena: '", t.name, "' of shape ", t.shape,
              " makes it larger than memory can be");
      n += more;
    }
    weights_ = buffer<float>(n);
    gradients_ = buffer<float>(n);
    bind();
  }
  arena(arena const& other) : layout_(other.layout_), weights_(other.weights_), gradients_(other.gradients_) { bind(); }
  arena(arena&&) noexcept = default;  // the blocks move with their addresses: the views stay true
  arena& operator=(arena other) noexcept {
    std::swap(layout_, other.layout_);
    std::swap(weights_, other.weights_);
    std::swap(gradients_, other.gradients_);
    std::swap(list_, other.list_);
    return *this;
  }

  parameter_list& parameters() { return list_; }
  parameter_list const& parameters() const { return list_; }
  std::span<float> weights() { return weights_.span(); }
  std::span<float> gradients() { return gradients_.span(); }

 private:
  DOVETAIL_COLD void bind() {
    list_ = {};
    std::size_t at = 0;
    for (auto const& t : layout_) {
      auto const n = static_cast<std::size_t>(t.shape.size());
      list_.add(t.name, weights_.span().subspan(at, n), gradients_.span().subspan(at, n), t.shape);
      at += n;
    }
  }

  std::vector<tensor> layout_;
  buffer<float> weights_, gradients_;
  parameter_list list_;
};

}  // namespace dovetail
