// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <dovetail/core/error.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/hyperparameters.hpp>
#include <dovetail/core/ranges.hpp>
#include <dovetail/optim/schedules/schedule.hpp>

// Hyperparameters by name, for programs that learn them when they run: from a command line or a file.

namespace dovetail::optim {

/// What a hyperparameter can be set to: a number, true or false, a schedule, or text, which is read as whichever of
/// these the hyperparameter is, or as the name of one of its choices.
class setting_value {
 public:
  setting_value(bool x) : value_(x) {}
  template <class Number>
  requires(std::is_arithmetic_v<Number> && !std::is_same_v<Number, bool>) setting_value(Number x)
      : value_(static_cast<double>(x)) {}
  setting_value(char const* text) : value_(std::string(text)) {}
  setting_value(std::string_view text) : value_(std::string(text)) {}
  setting_value(std::string text) : value_(std::move(text)) {}
  template <class Schedule>
  requires(std::convertible_to<Schedule, schedule> && !std::is_arithmetic_v<Schedule>) setting_value(Schedule x)
      : value_(schedule(std::move(x))) {}

  double const* number() const { return std::get_if<double>(&value_); }
  bool const* truth() const { return std::get_if<bool>(&value_); }
  schedule const* function() const { return std::get_if<schedule>(&value_); }
  std::string const* text() const { return std::get_if<std::string>(&value_); }
  /// For messages.
  DOVETAIL_COLD std::string words() const {
    if (number()) return message(*number());
    if (truth()) return *truth() ? "true" : "false";
    return text() ? message('\'', *text(), '\'') : "a schedule";
  }

 private:
  std::variant<double, bool, schedule, std::string> value_;
};

/// A hyperparameter's name and its value: {"weight_decay", 0.1}.
struct setting {
  std::string name;
  setting_value value;
};
using settings = std::vector<setting>;

/// "key=value", as a command line gives it. Throws argument_error for text without a name.
DOVETAIL_COLD inline setting parse_setting(std::string_view text) {
  auto const at = text.find('=');
  require(at != text.npos && at > 0, "'", text, "' is no setting: write key=value, such as lr=0.001");
  return {std::string(text.substr(0, at)), text.substr(at + 1)};
}

namespace detail {

/// Changes of single letters, and swaps of neighbors, that make `b` of `a`.
DOVETAIL_COLD inline std::size_t letters_apart(std::string_view a, std::string_view b) {
  std::size_t const width = b.size() + 1;
  std::vector<std::size_t> d((a.size() + 1) * width);
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      auto& here = d[i * width + j];
      here = i + j;  // of a or b alone
      if (i == 0 || j == 0) continue;
      auto const before = [&](std::size_t di, std::size_t dj) { return d[(i - di) * width + j - dj]; };
      here = std::min({before(1, 0) + 1, before(0, 1) + 1, before(1, 1) + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) here = std::min(here, before(2, 2) + 1);
    }
  return d.back();
}
/// " (did you mean 'adamw'?)", or nothing if no name comes near.
DOVETAIL_COLD inline std::string nearest(std::string_view wanted, std::vector<std::string> const& names) {
  std::string const* best = nullptr;
  std::size_t least = wanted.size() / 3 + 2;  // more letters wrong than that are another word
  for (auto const& n : names)
    if (auto const d = letters_apart(wanted, n); d < least) {
      least = d;
      best = &n;
    }
  return best ? message(" (did you mean '", *best, "'?)") : "";
}
DOVETAIL_COLD inline std::string comma_separated(std::vector<std::string> const& names) {
  std::string all;
  for (auto const& n : names) all += message(all.empty() ? "" : ", ", n);
  return all;
}
DOVETAIL_COLD inline bool read_number(std::string_view text, double& x) {
  if (text.starts_with('+')) text.remove_prefix(1);
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  return error == std::errc() && end == text.data() + text.size();
}
DOVETAIL_COLD inline bool read_truth(setting_value const& v, bool& x) {
  double const number = v.number() ? *v.number() : -1;
  std::string_view const text = v.text() ? std::string_view(*v.text()) : "";
  bool const yes = text == "true" || text == "1" || (number >= 1 && number <= 1),
             no = text == "false" || text == "0" || (number >= 0 && number <= 0);
  x = v.truth() ? *v.truth() : yes;
  return v.truth() || yes || no;
}
/// The number that a setting is, or an error that says what `what` takes.
DOVETAIL_COLD inline double number_for(std::string const& what, setting_value const& v, char const* takes) {
  if (v.number()) return *v.number();
  double x = 0;
  require(v.text() && read_number(*v.text(), x), what, " cannot be set to ", v.words(), ": it is ", takes);
  return x;
}
DOVETAIL_COLD inline long choice_for(std::string const& what, setting_value const& v, std::string_view choices) {
  std::vector<std::string> names;
  for (auto w = dovetail::detail::word_of(choices, 0); !w.empty();
       w = dovetail::detail::word_of(choices, static_cast<long>(names.size())))
    names.emplace_back(w);
  auto const at = v.text() ? std::find(names.begin(), names.end(), *v.text()) : names.end();
  require(at != names.end(), what, " cannot be set to ", v.words(),
          ": it is the name of one of these: ", comma_separated(names));
  return at - names.begin();
}

/// Sets one field. `what`: its name, for messages.
template <class T>
DOVETAIL_COLD void set_field(field<T> const& f, std::string const& what, T& of, setting_value const& v) {
  if (f.is_flag()) {
    bool x = false;
    require(read_truth(v, x), what, " cannot be set to ", v.words(), ": it is true or false");
    f.set(of, x ? 1 : 0);
  } else if (f.has_range()) {
    double const x = number_for(what, v, f.whole() ? "a whole number" : "a number");
    if (!f.represents(x) && !f.range().holds(x))
      dovetail::detail::refuse(dovetail::detail::policy_of<T>.name, f.name(), x, f.range());
    require(f.represents(x), what, " cannot be set to ", v.words(), ": ",
            f.whole() ? "it is a whole number of 64 bits at most" : "it is a number in single precision");
    f.set(of, x);
  } else if (auto* const rate = f.template as<schedule>(of)) {
    double const x = v.function() ? 0 : number_for(what, v, "a number or a schedule");
    if (is_finite(x) && (x > 0x1.fffffep127 || x < -0x1.fffffep127))  // no float
      dovetail::detail::refuse(dovetail::detail::policy_of<T>.name, f.name(), x, {.low = 0, .high = 0x1.fffffep127});
    *rate = v.function() ? *v.function() : schedule(x);
  } else {
    require(f.choices(), what, " cannot be set by name: assign it where the rule is made");
    f.choose(of, choice_for(what, v, f.choices()));
  }
}

/// Sets fields by name, then checks all of them. Throws argument_error, and leaves `x` as it was, for a name that it
/// does not have, a name given twice, a value of another kind, and what check_policy refuses.
template <class T>
DOVETAIL_COLD void apply_settings(T& x, settings const& given, char const* who) {
  auto const description = T::describe();
  T changed = x;
  for (std::size_t i = 0; i < given.size(); ++i) {
    auto const& [name, value] = given[i];
    auto const* const f = std::find_if(description.begin(), description.end(),
                                       [&](auto const& field) { return field.name() == std::string_view(name); });
    if (f == description.end()) {
      std::vector<std::string> names;
      for (auto const& known : description) names.emplace_back(known.name());
      throw argument_error(message(who, ": ", description.name, " has no hyperparameter '", name, '\'',
                                   nearest(name, names), ": it has ", comma_separated(names)));
    }
    for (std::size_t j = 0; j < i; ++j)
      require(given[j].name != name, who, ": ", description.name, ": ", name, " is given twice, as ",
              given[j].value.words(), " and as ", value.words(), ": give it once");
    set_field(*f, message(who, ": ", description.name, ": ", name), changed, value);
  }
  check_rule(changed);
  x = std::move(changed);
}

/// "lr=0.001 beta1=0.9": every hyperparameter with its value.
template <class T>
DOVETAIL_COLD std::string listed_settings(T x) {
  std::string all;
  for (auto const& f : T::describe()) {
    all += message(all.empty() ? "" : " ", f.name(), '=');
    if (f.is_flag())
      all += f.value(x) > 0 ? "true" : "false";
    else if (f.has_range())
      all += dovetail::detail::number_text(f.value(x));
    else if (auto* const rate = f.template as<schedule>(x))
      all += rate->varies() ? "(a schedule)" : dovetail::detail::number_text(static_cast<double>((*rate)(0)));
    else
      all += f.choices() ? std::string(dovetail::detail::word_of(f.choices(), f.chosen(x))) : "?";
  }
  return all;
}

}  // namespace detail

}  // namespace dovetail::optim
