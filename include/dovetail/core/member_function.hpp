// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <type_traits>

// DOVETAIL_MEMBER(name) defines `has_name<T>`: true if T has a member of this name, whatever it is: a function of any
// arguments, a template, data, a type; private or inherited. So a policy whose member cannot be used as its contract
// says is refused, where asking only whether it can would leave it out in silence. A class that has the name as well
// makes it ambiguous in what is derived from both. Nothing can be derived from a final class or a union: of these the
// members are found that can be named by themselves, which are those that are no overloads, no templates, not private.
// A function whose constraints are not met is there as well: a policy around another one that has a member only where
// that one has it needs a specialization, or is asked for a name that is not looked for.
//
// DOVETAIL_MEMBER_FUNCTION(name) is the same of functions: data of the name are told apart by their address.

namespace dovetail::detail {
template <class T>
concept derivable = std::is_class_v<T> && !std::is_final_v<T>;
template <class Pointer>
inline constexpr bool points_to_data = std::is_member_object_pointer_v<Pointer> ||
                                       (std::is_pointer_v<Pointer> &&
                                        !std::is_function_v<std::remove_pointer_t<Pointer>>);
}  // namespace dovetail::detail

#define DOVETAIL_MEMBER_PROBE(name) \
  struct name##_probe {             \
    int name;                       \
  };                                \
  template <class T>                \
  struct name##_twice : T, name##_probe {};

#define DOVETAIL_MEMBER(name)                       \
  DOVETAIL_MEMBER_PROBE(name)                       \
  template <class T>                                \
  inline constexpr bool has_##name = requires {     \
    &T::name;                                       \
  }                                                 \
  || requires { T::name; }                          \
  || requires { typename T::name; };                \
  template <::dovetail::detail::derivable T>        \
  inline constexpr bool has_##name<T> = !requires { \
    &name##_twice<T>::name;                         \
  };

#define DOVETAIL_MEMBER_FUNCTION(name)                                \
  DOVETAIL_MEMBER_PROBE(name)                                         \
  template <class T>                                                  \
  inline constexpr bool has_##name = requires {                       \
    requires !::dovetail::detail::points_to_data<decltype(&T::name)>; \
  };                                                                  \
  template <::dovetail::detail::derivable T>                          \
  inline constexpr bool has_##name<T> = !requires {                   \
    &name##_twice<T>::name;                                           \
  }                                                                   \
  &&!requires { requires ::dovetail::detail::points_to_data<decltype(&T::name)>; };
