// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/shape.hpp>

// What core/parameters.hpp's lists have in common, of whatever numbers they are: compiled once.

namespace dovetail {

namespace detail {

/// What a list knows of its tensors whatever numbers they have: places in the flat index space, and whose memory is
/// where.
class parameter_index {
 public:
  /// First flat index of parameter i; offset(size()) is flat_size().
  std::size_t offset(std::size_t i) const { return i < offsets_.size() ? offsets_[i] : flat_size(); }
  /// Number of weights.
  std::size_t flat_size() const {
    return offsets_.empty() ? 0 : flat_size_;
  }  // empty: another list was moved from this
  /// Position of the parameter called `name`; throws argument_error if there is none.
  std::size_t find(std::string const& name) const {
    auto const place = by_name_.find(name);
    require(place != by_name_.end(), "no parameter is called '", name, "'");
    return place->second;
  }
  bool contains(std::string const& name) const { return by_name_.contains(name); }
  bool has_opaque() const { return has_opaque_; }

 protected:
  struct area {
    void const* address;
    std::size_t bytes;
  };

  /// Notes a tensor, the last one; throws argument_error if its name is taken.
  DOVETAIL_COLD void enter(std::string const& name) {
    auto const [place, added] = by_name_.emplace(name, offsets_.size());
    require(added, "parameter '", name, "' is registered twice: names must be unique, state is kept by name");
  }
  void leave(std::string const& name) { by_name_.erase(name); }
  void entered(std::size_t size, bool opaque) {
    offsets_.push_back(offsets_.empty() ? 0 : flat_size_);
    flat_size_ = offsets_.back() + size;
    has_opaque_ = has_opaque_ || opaque;
  }
  /// Notes that the memory of parameter i is taken. Throws, and leaves everything as it was, if it cannot be.
  DOVETAIL_COLD void claim(std::string const& name, std::size_t i, area weight, area gradient, std::size_t number) {
    claim(name, i, weight, number, true);
    try {
      claim(name, i, gradient, number, false);
    } catch (...) {
      release(weight);
      throw;
    }
  }
  void release(area m) {
    if (m.bytes) taken_.erase(static_cast<std::byte const*>(m.address));
  }

  /// The number of elements; throws argument_error for a shape that no memory has.
  DOVETAIL_COLD static std::size_t size_of(std::string const& name, dovetail::shape const& shape, std::size_t number) {
    std::size_t n = 1;
    bool empty = false;
    for (int i = 0; i < shape.rank; ++i) {
      require(shape[i] >= 0, "parameter '", name, "': shape ", shape, " has the extent ", shape[i], " in dimension ",
              i);
      empty = empty || shape[i] == 0;
      auto const extent = static_cast<std::size_t>(std::max<std::int64_t>(shape[i], 1));
      require(n <= most / number / extent, "parameter '", name, "': shape ", shape,
              " has more elements than memory can hold");
      n *= extent;
    }
    return empty ? 0 : n;
  }
  static constexpr std::size_t most = std::numeric_limits<std::ptrdiff_t>::max();  // bytes
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
  DOVETAIL_COLD static void check_sizes(std::string const& name, dovetail::shape const& shape, std::size_t size,
                                        std::size_t weight, std::size_t gradient) {
    require(weight == size, "parameter '", name, "': shape ", shape, " has ", size, " elements, its weight ", weight,
            ": pass the whole tensor");
    require(gradient == weight, "parameter '", name, "': the weight has ", weight, " elements, the gradient ", gradient,
            ": they must be equal");
  }
  DOVETAIL_COLD static void check_rebound(std::string const& name, bool opaque, std::size_t size, std::size_t weight,
                                          std::size_t gradient) {
    require(!opaque, "parameter '", name, "' is not in this list's memory: tell its optimizer where it is");
    require(weight == size && gradient == size, "parameter '", name, "' has ", size, " elements, its new weight ",
            weight, ", its new gradient ", gradient,
            ": a tensor of another size is another one, register it in a new list");
  }

 private:
  struct block {
    std::byte const* end;
    std::size_t owner;
    bool weight;
  };
  DOVETAIL_COLD void claim(std::string const& name, std::size_t i, area m, std::size_t number, bool weight) {
    if (m.bytes == 0) return;
    char const* const what = weight ? "weight" : "gradient";
    require(m.address != nullptr, "parameter '", name, "': its ", what, " is a null pointer, its size ",
            m.bytes / number, ": pass the memory of its elements");
    require(reinterpret_cast<std::uintptr_t>(m.address) % number == 0, "parameter '", name, "': its ", what,
            " is not aligned as ", number == sizeof(float) ? "floats" : "doubles", " are");
    auto const* const begin = static_cast<std::byte const*>(m.address);
    auto const* const end = begin + m.bytes;
    auto const after = taken_.lower_bound(begin);
    auto const* other = after != taken_.end() && before(after->first, end) ? &after->second : nullptr;
    if (!other && after != taken_.begin() && before(begin, std::prev(after)->second.end))
      other = &std::prev(after)->second;
    if (other) refuse_shared(name, i, weight, *other);
    taken_.emplace_hint(after, begin, block{end, i, weight});
  }
  [[noreturn]] DOVETAIL_COLD void refuse_shared(std::string const& name, std::size_t i, bool weight,
                                                block const& other) const {
    char const* const what = weight ? "weight" : "gradient";
    if (other.owner == i)
      throw argument_error(message("parameter '", name, "': its gradient is its weight's memory, or a part of it: ",
                                   "a step needs both, give the gradient memory of its own"));
    auto const owner = std::find_if(by_name_.begin(), by_name_.end(),
                                    [&other](auto const& entry) { return entry.second == other.owner; });
    throw argument_error(message(
        "parameter '", name, "': its ", what, " shares memory with the ", other.weight ? "weight" : "gradient", " of '",
        owner->first, "': ",
        weight && other.weight ? "tied weights are one parameter, registered once, with the sum of their gradients"
                               : "each needs memory of its own"));
  }
  /// Pointers into different arrays are ordered by std::less alone.
  static bool before(std::byte const* a, std::byte const* b) { return std::less<std::byte const*>()(a, b); }

  std::vector<std::size_t> offsets_;
  std::size_t flat_size_ = 0;
  bool has_opaque_ = false;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::map<std::byte const*, block, std::less<>> taken_;  // blocks of memory by their beginning, none of them empty
};

}  // namespace detail

}  // namespace dovetail
