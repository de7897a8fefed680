// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/memory.hpp>
#include <dovetail/core/parameter_index.hpp>
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
/// size, its gradients, in numbers T.
template <class T>
struct basic_parameter {
  std::string name;  ///< unique; PyTorch's form where there is one: "0.weight"
  std::span<T> weight;
  std::span<T> gradient;
  /// Of the memory, read row by row: what files and states are labeled with. A column-major matrix of r rows is, read
  /// so, its transpose of r columns.
  dovetail::shape shape;
  std::size_t first = 0;          ///< of a part of a tensor: the tensor's element that it begins with
  dovetail::shape whole = shape;  ///< of a part of a tensor: the tensor's shape
  bool transposed = false;        ///< registered as column-major

  std::size_t size() const { return static_cast<std::size_t>(shape.size()); }
  /// True if the numbers are not of type T, or not in this process's memory.
  bool opaque() const { return weight.size() != size(); }
  /// The shape, and the whole tensor's, as it was registered: what a rule takes for rows and columns.
  dovetail::shape logical_shape() const { return transposed ? reversed(shape) : shape; }
  dovetail::shape logical_whole() const { return transposed ? reversed(whole) : whole; }
};
using parameter = basic_parameter<float>;

/// Other memory for a tensor of a list (basic_parameter_list::rebind).
template <class T>
struct basic_parameter_memory {
  std::string name;
  std::span<T> weight;
  std::span<T> gradient;
};
using parameter_memory = basic_parameter_memory<float>;

/// An ordered list of parameters, in forward order. Concatenated without gaps they form the *flat index space*:
/// parameter i occupies [offset(i), offset(i) + size). Optimizer slots, buckets and shards are ranges of it.
///
/// The list holds views: the memory is the caller's, must outlive it, and must not move. What reallocates (a move
/// assignment, a resize, gradients that are freed between steps) is told to the list by rebind().
///
/// T is float or double; Space says in whose memory they are (core/memory.hpp): the host's, where rules step them, or
/// a device's, where kernels do. What takes one kind of list does not compile with another.
template <class T, class Space = host_memory>
class basic_parameter_list : public detail::parameter_index {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>,
                "parameters are floats or doubles: halves are kept by optim::low_precision_state");

 public:
  using number = T;
  using space = Space;
  using item = basic_parameter<T>;
  using item_memory = basic_parameter_memory<T>;

  basic_parameter_list() = default;
  /// A list of memory in some place, such as cuda_memory{device}.
  explicit basic_parameter_list(Space where) : where_(std::move(where)) {}

  /// Where the memory is.
  Space const& where() const { return where_; }

  /// Registers a tensor, O(log n). Throws argument_error on a repeated name, on sizes that do not agree, and on memory
  /// that cannot be right: none at all, or one that another weight or gradient of the list has, in whole or in part.
  DOVETAIL_COLD void add(std::string name, std::span<T> weight, std::span<T> gradient, dovetail::shape shape,
                         layout order = layout::row_major) {
    check_sizes(name, shape, size_of(name, shape, sizeof(T)), weight.size(), gradient.size());
    bool const transposed = order == layout::column_major && shape.rank >= 2;
    auto const stored = transposed ? reversed(shape) : shape;
    insert({std::move(name), weight, gradient, stored, 0, stored, transposed});
  }
  /// One-dimensional form.
  void add(std::string name, std::span<T> weight, std::span<T> gradient) {
    add(std::move(name), weight, gradient, dovetail::shape{static_cast<std::int64_t>(weight.size())});
  }
  /// Form for tensors of libraries that know strides (in elements): a view that is not contiguous and row-major
  /// is refused here, because an update through it would silently touch other elements.
  void add(std::string name, T* weight, std::span<std::int64_t const> weight_strides, T* gradient,
           std::span<std::int64_t const> gradient_strides, dovetail::shape shape) {
    auto const n = size_of(name, shape, sizeof(T));
    check_contiguous(name, "weight", weight_strides, shape);
    check_contiguous(name, "gradient", gradient_strides, shape);
    require(n == 0 || (weight && gradient), "parameter '", name, "': its ", weight ? "gradient" : "weight",
            " is a null pointer, its shape ", shape, ": pass the memory of ", n, " elements");
    add(std::move(name), {weight, n}, {gradient, n}, shape);
  }

  /// Refuses what is not memory of such numbers that a step may write to.
  template <class Weight, class Gradient>
  requires(!std::convertible_to<Weight, std::span<T>> || !std::convertible_to<Gradient, std::span<T>>)  //
      void add(std::string, Weight&&, Gradient&&, dovetail::shape = {}, layout = layout::row_major) {
    DOVETAIL_REQUIRE(
        (std::convertible_to<Weight, std::span<T>>),
        "a weight must convert to std::span<float>, in a basic_parameter_list<double> to "
        "std::span<double>: a container that is neither const nor a temporary, or std::span(pointer, size)",
        T, Weight);
    DOVETAIL_REQUIRE(
        (!std::convertible_to<Weight, std::span<T>> || std::convertible_to<Gradient, std::span<T>>),
        "a gradient must convert to std::span<float>, in a basic_parameter_list<double> to "
        "std::span<double>: a container that is neither const (some rules and exchanges write to it) nor a "
        "temporary, or std::span(pointer, size)",
        T, Gradient);
  }

  /// Gives tensors other memory of the same size, all of them at once, so that one may take what another one leaves.
  /// Names, order and the state of optimizers stay. Throws argument_error as add() does, and then nothing has changed.
  /// The contents of the old memory are not copied. Not while a session has an exchange in flight: before its begin().
  DOVETAIL_COLD void rebind(std::span<item_memory const> tensors) {
    std::vector<std::pair<std::size_t, item_memory const*>> moved;
    for (auto const& t : tensors) {
      auto const& p = items_[find(t.name)];
      check_rebound(t.name, p.opaque(), p.size(), t.weight.size(), t.gradient.size());
      moved.emplace_back(find(t.name), &t);
    }
    std::sort(moved.begin(), moved.end());
    for (std::size_t k = 1; k < moved.size(); ++k)
      require(moved[k].first != moved[k - 1].first, "parameter '", moved[k].second->name,
              "' is given memory twice: name it once");
    std::vector<std::pair<std::span<T>, std::span<T>>> old;
    for (auto const& [i, to] : moved) old.emplace_back(items_[i].weight, items_[i].gradient);
    for (auto const& [i, to] : moved) release_memory(i);
    std::size_t done = 0;
    try {
      for (; done < moved.size(); ++done) {
        auto& p = items_[moved[done].first];
        p.weight = moved[done].second->weight;
        p.gradient = moved[done].second->gradient;
        claim_memory(moved[done].first);
      }
    } catch (...) {
      for (std::size_t k = 0; k < done; ++k) release_memory(moved[k].first);
      for (std::size_t k = 0; k < moved.size(); ++k)
        std::tie(items_[moved[k].first].weight, items_[moved[k].first].gradient) = old[k];
      for (auto const& [i, to] : moved) claim_memory(i);
      throw;
    }
  }
  void rebind(std::string name, std::span<T> weight, std::span<T> gradient) {
    item_memory const one{std::move(name), weight, gradient};
    rebind(std::span(&one, 1));
  }

  /// A tensor whose numbers are not of type T, or not in this process's memory: weight and gradient are empty spans.
  /// For optimizers that are told where they are (optim::low_precision_state with split_weights, a gradient source).
  DOVETAIL_COLD void add_opaque(std::string name, dovetail::shape shape) {
    size_of(name, shape, sizeof(T));
    insert({std::move(name), {}, {}, shape});
  }
  /// The same of a tensor of another list, whatever its numbers and memory: its name, shape, part and order.
  template <class Other>
  DOVETAIL_COLD void add_opaque(basic_parameter<Other> const& of) {
    insert({of.name, {}, {}, of.shape, of.first, of.whole, of.transposed});
  }
  /// Elements r of another list's tensor, or of a part of one; a shape of the same rank, with them all in the last
  /// dimension unless they are the whole tensor.
  DOVETAIL_COLD void add_part(item const& of, range r) {
    require(r.begin <= r.end && r.end <= of.size(), "parameter '", of.name, "' has ", of.size(),
            " elements: there is no part from ", r.begin, " to ", r.end);
    item p = of;
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

  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  item& operator[](std::size_t i) { return items_[i]; }
  item const& operator[](std::size_t i) const { return items_[i]; }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

  /// The gradients (weights) of the whole list as one span when they lie in memory as in the flat index space,
  /// as an arena's do; an empty span otherwise.
  std::span<T> flat_gradients() const { return flat(&item::gradient); }
  std::span<T> flat_weights() const { return flat(&item::weight); }

 private:
  template <class>
  friend class basic_arena;
  DOVETAIL_COLD void insert(item p) {
    enter(p.name);
    bool pushed = false, claimed = false;
    try {
      items_.push_back(std::move(p));  // which p still has if it throws
      pushed = true;
      if (!items_.back().opaque()) claim_memory(items_.size() - 1);
      claimed = true;
      entered(items_.back().size(), items_.back().opaque());
    } catch (...) {
      if (claimed && !items_.back().opaque()) release_memory(items_.size() - 1);
      leave(pushed ? items_.back().name : p.name);
      if (pushed) items_.pop_back();
      throw;
    }
  }
  static area area_of(std::span<T const> x) { return {x.data(), x.size() * sizeof(T)}; }
  void claim_memory(std::size_t i) {
    auto const& p = items_[i];
    claim(p.name, i, area_of(p.weight), area_of(p.gradient), sizeof(T));
  }
  void release_memory(std::size_t i) {
    release(area_of(items_[i].weight));
    release(area_of(items_[i].gradient));
  }
  std::span<T> flat(std::span<T> item::*member) const {
    if (items_.empty() || has_opaque()) return {};
    T* const first = (items_.front().*member).data();
    for (std::size_t i = 0; i < items_.size(); ++i)
      if ((items_[i].*member).data() != first + offset(i)) return {};
    return {first, flat_size()};
  }

  std::vector<item> items_;
  [[no_unique_address]] Space where_{};
};
/// Floats in the host's memory: what networks, sessions and trainers take.
using parameter_list = basic_parameter_list<float>;

/// Owns weights and gradients of a list of tensors in forward order: two 64-byte aligned blocks, each laid out
/// as the flat index space, so that a bucket of gradients is a plain range. A value: copies own copies.
template <class T>
class basic_arena {
  using list = basic_parameter_list<T>;

 public:
  using tensor = named_shape;

  basic_arena() = default;
  DOVETAIL_COLD explicit basic_arena(std::vector<tensor> layout) : layout_(std::move(layout)) {
    std::size_t n = 0;
    for (auto const& t : layout_) {
      std::size_t const more = list::size_of(t.name, t.shape, sizeof(T));
      require(more <= list::most / sizeof(T) - n, "arena: '", t.name, "' of shape ", t.shape,
              " makes it larger than memory can be");
      n += more;
    }
    weights_ = buffer<T>(n);
    gradients_ = buffer<T>(n);
    bind();
  }
  basic_arena(basic_arena const& other)
      : layout_(other.layout_), weights_(other.weights_), gradients_(other.gradients_) {
    bind();
  }
  basic_arena(basic_arena&&) noexcept = default;  // the blocks move with their addresses: the views stay true
  basic_arena& operator=(basic_arena other) noexcept {
    std::swap(layout_, other.layout_);
    std::swap(weights_, other.weights_);
    std::swap(gradients_, other.gradients_);
    std::swap(list_, other.list_);
    return *this;
  }

  list& parameters() { return list_; }
  list const& parameters() const { return list_; }
  std::span<T> weights() { return weights_.span(); }
  std::span<T> gradients() { return gradients_.span(); }

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
  buffer<T> weights_, gradients_;
  list list_;
};
using arena = basic_arena<float>;

}  // namespace dovetail
