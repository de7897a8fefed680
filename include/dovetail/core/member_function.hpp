// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <type_traits>

// DOVETAIL_MEMBER_FUNCTION(name) defines `has_name<T>`: true if T has a member function of this name, whatever its
// arguments, or a template of some. So a policy whose function cannot be called as its contract says is refused, where
// asking only whether it can be called would leave it out in silence. A class that has the name as well makes it
// ambiguous in what is derived from both; data of the name is told apart by its address.

namespace dovetail::detail {
template <class Pointer>
inline constexpr bool points_to_data = std::is_member_object_pointer_v<Pointer> ||
                                       (std::is_pointer_v<Pointer> &&
                                        !std::is_function_v<std::remove_pointer_t<Pointer>>);
}  // namespace dovetail::detail

#define DOVETAIL_MEMBER_FUNCTION(name)                                                                  \
  struct name##_probe {                                                                                 \
    int name;                                                                                           \
  };                                                                                                    \
  template <class T>                                                                                    \
  struct name##_twice : T, name##_probe {};                                                             \
  template <class T>                                                                                    \
  inline constexpr bool has_##name = false;                                                             \
  template <class T>                                                                                    \
  requires(std::is_class_v<T> && !std::is_final_v<T>) inline constexpr bool has_##name<T> = !requires { \
    &name##_twice<T>::name;                                                                             \
  }                                                                                                     \
  &&!requires { requires ::dovetail::detail::points_to_data<decltype(&T::name)>; };
