// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <type_traits>

#include <dovetail/core/member_function.hpp>

// DOVETAIL_MEMBER_CONSTANT(name), for what a policy says as `static constexpr As name = …`, defines
//   has_name<T>             T has a member of this name, whatever it is (core/member_function.hpp)
//   name_fits<T, As>        it is a constant that an As holds as it is. A function or a pointer would be true
//                           whatever it gives; a member of objects has no value before there is one
//   name_misfits<T, As>     there is one, and it does not fit
//   name_or<T>(otherwise)   its value; `otherwise` if it does not fit

namespace dovetail::detail {
template <class T>
concept no_address = !std::is_pointer_v<std::decay_t<T>> && !std::is_member_pointer_v<std::decay_t<T>>;
}  // namespace dovetail::detail

#define DOVETAIL_MEMBER_CONSTANT(name)                          \
  DOVETAIL_MEMBER(name)                                         \
  template <class T>                                            \
  concept name##_of_objects = requires {                        \
    requires std::is_member_pointer_v<decltype(&T::name)>;      \
  };                                                            \
  template <class T, class As>                                  \
  concept name##_fits = !name##_of_objects<T> && requires {     \
    requires ::dovetail::detail::no_address<decltype(T::name)>; \
    typename std::integral_constant<As, As{T::name}>;           \
  };                                                            \
  template <class T, class As>                                  \
  consteval bool name##_misfits() {                             \
    if constexpr (name##_fits<T, As>)                           \
      return false;                                             \
    else                                                        \
      return has_##name<T>;                                     \
  }                                                             \
  template <class T, class As>                                  \
  consteval As name##_or(As otherwise) {                        \
    if constexpr (name##_fits<T, As>)                           \
      return As{T::name};                                       \
    else                                                        \
      return otherwise;                                         \
  }
