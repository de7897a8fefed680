// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/core/buffer.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/shape.hpp>
#include <dovetail/core/shard.hpp>

namespace dovetail {

/// What is known of a tensor before it has memory.
struct named_shape {
  std::string name;
  dovetail::shape shape;
  friend bool operator==(named_shape const&, named_shape const&) = default;
};

/// A view of one trainable tensor, or of a part of one, in anyone's memory: its name, its weights and, of the same
/// size, its gradients.
struct parameter {
  std::string name;  ///< unique; PyTorch's form where there is one: "0.weight"
  std::span<float> weight;
  std::span<float> gradient;
  dovetail::shape shape;          ///< row-major
  std::size_t first = 0;          ///< of a part of a tensor: the tensor's element that it begins with
  dovetail::shape whole = shape;  ///< of a part of a tensor: the tensor's shape

  std::size_t size() const { return static_cast<std::size_t>(shape.size()); }
  /// True if the numbers are not in fp32, or not in this process's memory.
  bool elsewhere() const { return weight.size() != size(); }
};

/// An ordered list of parameters, in forward order. Concatenated without gaps they form the *flat index space*:
/// parameter i occupies [offset(i), offset(i) + size). Optimizer slots, buckets and shards are ranges of it.
class parameter_list {
 public:
  parameter_list() = default;

  /// Registers a tensor. Throws argument_error on a repeated name or sizes that do not agree.
  DOVETAIL_COLD void add(std::string name, std::span<float> weight, std::span<float> gradient, dovetail::shape shape) {
    require(weight.size() == static_cast<std::size_t>(shape.size()), "parameter '", name, "': shape ", shape, " has ",
            shape.size(), " elements, its weight ", weight.size(), ": pass the whole tensor");
    require(gradient.size() == weight.size(), "parameter '", name, "': the weight has ", weight.size(),
            " elements, the gradient ", gradient.size(), ": they must be equal");
    insert({std::move(name), weight, gradient, shape});
  }
  /// One-dimensional form.
  void add(std::string name, std::span<float> weight, std::span<float> gradient) {
    add(std::move(name), weight, gradient, dovetail::shape{static_cast<std::int64_t>(weight.size())});
  }
  /// Form for tensors of libraries that know strides (in elements): a view that is not contiguous and row-major
  /// is refused here, because an update through it would silently touch other elements.
  void add(std::string name, float* weight, std::span<std::int64_t const> weight_strides, float* gradient,
           std::span<std::int64_t const> gradient_strides, dovetail::shape shape) {
    check_contiguous(name, "weight", weight_strides, shape);
    check_contiguous(name, "gradient", gradient_strides, shape);
    auto const n = static_cast<std::size_t>(shape.size());
    add(std::move(name), {weight, n}, {gradient, n}, shape);
  }

  /// A tensor whose numbers are not in fp32, or not in this process's memory: weight and gradient are empty spans. For
  /// optimizers that are told where they are (optim::stored with split_weights, a gradient source).
  DOVETAIL_COLD void add_elsewhere(std::string name, dovetail::shape shape) {
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
    if (!of.elsewhere()) {
      p.weight = of.weight.subspan(r.begin, r.size());
      p.gradient = of.gradient.subspan(r.begin, r.size());
    }
    insert(std::move(p));
  }
  bool has_elsewhere() const { return has_elsewhere_; }

  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  parameter& operator[](std::size_t i) { return items_[i]; }
  parameter const& operator[](std::size_t i) const { return items_[i]; }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

  /// First flat index of parameter i; offset(size()) is flat_size().
  std::size_t offset(std::size_t i) const { return i < offsets_.size() ? offsets_[i] : flat_size_; }
  /// Number of weights.
  std::size_t flat_size() const { return flat_size_; }
  /// Position of the parameter called `name`; throws argument_error if there is none.
  std::size_t find(std::string const& name) const {
    auto const place = place_of(name);
    require(place != by_name_.end() && items_[*place].name == name, "no parameter is called '", name, "'");
    return *place;
  }
  bool contains(std::string const& name) const {
    auto const place = place_of(name);
    return place != by_name_.end() && items_[*place].name == name;
  }

  /// The gradients (weights) of the whole list as one span when they lie in memory as in the flat index space,
  /// as an arena's do; an empty span otherwise.
  std::span<float> flat_gradients() const { return flat(&parameter::gradient); }
  std::span<float> flat_weights() const { return flat(&parameter::weight); }

 private:
  DOVETAIL_COLD void insert(parameter p) {
    auto const place = place_of(p.name);
    require(place == by_name_.end() || items_[*place].name != p.name, "parameter '", p.name,
            "' is registered twice: names must be unique, state is kept by name");
    by_name_.insert(place, items_.size());
    offsets_.push_back(flat_size_);
    flat_size_ += p.size();
    has_elsewhere_ = has_elsewhere_ || p.elsewhere();
    items_.push_back(std::move(p));
  }
  std::vector<std::size_t>::const_iterator place_of(std::string const& name) const {
    return std::lower_bound(by_name_.begin(), by_name_.end(), name,
                            [&](std::size_t i, std::string const& n) { return items_[i].name < n; });
  }
  static void check_contiguous(std::string const& name, char const* what, std::span<std::int64_t const> strides,
                               dovetail::shape const& shape) {
    require(strides.size() == static_cast<std::size_t>(shape.rank), "parameter '", name, "': ", what, " has ",
            strides.size(), " strides for shape ", shape);
    std::int64_t expected = 1;
    for (int i = shape.rank; i-- > 0; expected *= shape[i])
      require(shape[i] == 1 || strides[static_cast<std::size_t>(i)] == expected, "parameter '", name, "': the ", what,
              " of shape ", shape, " has stride ", strides[static_cast<std::size_t>(i)], " in dimension ", i,
              " where a contiguous tensor has ", expected, ": make it contiguous before it is registered");
  }
  std::span<float> flat(std::span<float> parameter::*member) const {
    if (items_.empty() || has_elsewhere_) return {};
    float* const first = (items_.front().*member).data();
    for (std::size_t i = 0; i < items_.size(); ++i)
      if ((items_[i].*member).data() != first + offsets_[i]) return {};
    return {first, flat_size_};
  }

  std::vector<parameter> items_;
  std::vector<std::size_t> offsets_;
  std::size_t flat_size_ = 0;
  bool has_elsewhere_ = false;
  std::vector<std::size_t> by_name_;  // positions in the order of names
};

/// Owns weights and gradients of a list of tensors in forward order: two 64-byte aligned blocks, each laid out
/// as the flat index space, so that a bucket of gradients is a plain range. A value: copies own copies.
class arena {
 public:
  using tensor = named_shape;

  arena() = default;
  DOVETAIL_COLD explicit arena(std::vector<tensor> layout) : layout_(std::move(layout)) {
    std::size_t n = 0;
    for (auto const& t : layout_) n += static_cast<std::size_t>(t.shape.size());
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
