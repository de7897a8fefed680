// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include <dovetail/core/config.hpp>
#include <dovetail/core/error.hpp>
#include <dovetail/core/parameters.hpp>

namespace dovetail {

/// The tensors that a state was made for: what sized its memory. A state keeps this and compares it with the list of
/// every step, because a list of other shapes would have it read and written beyond its end. A value.
class tensor_layout {
 public:
  tensor_layout() = default;
  template <class T, class Space>
  DOVETAIL_COLD explicit tensor_layout(basic_parameter_list<T, Space> const& list) {
    tensors_.reserve(list.size());
    for (auto const& p : list) tensors_.push_back({p.name, p.shape});
  }

  std::size_t size() const { return tensors_.size(); }
  named_shape const& operator[](std::size_t i) const { return tensors_[i]; }
  auto begin() const { return tensors_.begin(); }
  auto end() const { return tensors_.end(); }

  /// Throws argument_error unless `list` has the same tensors: their number, order, names and shapes. `whose` begins
  /// the message: "optimizer state".
  template <class T, class Space>
  void check(basic_parameter_list<T, Space> const& list, char const* whose) const {
    if (tensors_.size() != list.size()) [[unlikely]]
      refuse_size(list.size(), whose);
    for (std::size_t i = 0; i < tensors_.size(); ++i) check_tensor(list[i].name, list[i].shape, i, whose);
  }
  /// The same of one tensor.
  template <class T, class Space>
  void check(basic_parameter_list<T, Space> const& list, std::size_t i, char const* whose) const {
    if (tensors_.size() != list.size()) [[unlikely]]
      refuse_size(list.size(), whose);
    if (i < tensors_.size()) check_tensor(list[i].name, list[i].shape, i, whose);
  }

  friend bool operator==(tensor_layout const&, tensor_layout const&) = default;

 private:
  [[noreturn]] DOVETAIL_COLD void refuse_size(std::size_t now, char const* whose) const {
    throw argument_error(
        message(whose, " was made for ", tensors_.size(), " parameters, the list has ", now, ": call init() again"));
  }
  void check_tensor(std::string const& name, dovetail::shape const& shape, std::size_t i, char const* whose) const {
    auto const& was = tensors_[i];
    if (was.name != name || was.shape != shape) [[unlikely]]
      refuse_tensor(was, name, shape, i, whose);
  }
  [[noreturn]] DOVETAIL_COLD static void refuse_tensor(named_shape const& was, std::string const& name,
                                                       dovetail::shape const& shape, std::size_t i, char const* whose) {
    require(was.name == name, whose, ": parameter ", i, " was '", was.name, "' at init() and is '", name,
            "' now: state is kept by name and order, call init() again");
    throw argument_error(message(whose, ": parameter '", name, "' had shape ", was.shape, " at init() and has ", shape,
                                 " now: state is sized by shapes, call init() again"));
  }

  std::vector<named_shape> tensors_;
};

}  // namespace dovetail
