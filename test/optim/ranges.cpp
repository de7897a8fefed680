// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every policy declares every field, and refuses what lies outside. That init and step ask is conformance's to show.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include <dovetail/compress.hpp>
#if __has_include(<zstd.h>)
#include <dovetail/compress/zstd.hpp>
#endif
#include <dovetail/core/hyperparameters.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/optim/low_precision/loss_scale.hpp>
#include <dovetail/optim/matrix.hpp>
#include <dovetail/optim/sam.hpp>
#include <dovetail/optim/schedules/plateau.hpp>
#include <dovetail/optim/second_order/conjugate_gradient.hpp>
#include <dovetail/optim/second_order/lbfgs.hpp>
#include <dovetail/optim/second_order/stochastic_lbfgs.hpp>
#include <dovetail/sync/one_bit_adam.hpp>
#include <dovetail/sync/one_bit_lamb.hpp>

#include <doctest/doctest.h>

#include "ranges.hpp"

namespace optim_ranges {

using namespace dovetail;

namespace {

struct no_model {};

/// Converts to the member that it stands for.
struct member {
  template <class T>
  operator T() const;
};
template <class T, class... Members>
consteval std::size_t members() {
  if constexpr (sizeof...(Members) > 0 && !requires { T{Members{}...}; })
    return sizeof...(Members) - 1;
  else
    return members<T, Members..., member>();
}

std::set<std::string>& seen() {
  static std::set<std::string> names;
  return names;
}

/// What a policy and its declaration say, compared where it costs a program no time to compile.
void judge(std::string const& name, char const* declared_as, std::size_t declared, std::size_t members,
           std::string const& problems) {
  CAPTURE(name);
  CHECK(seen().insert(name).second);
  CHECK(name == declared_as);
  CHECK(declared == members);
  CHECK(problems == "");
}
/// The words of the argument_error that check_policy throws.
template <class T>
std::string refusal(T const& x) {
  try {
    check_policy(x);
  } catch (argument_error const& e) {
    return e.what();
  }
  return "nothing was thrown";
}

/// `Others`: members that are no hyperparameters.
template <class T, std::size_t Others = 0>
void one(char const* name) {
  auto const& policy = detail::policy_of<T>;
  std::string problems;
  T const usual{};
  if (auto const words = refusal(usual); words != "nothing was thrown") problems += "default: " + words;
  for (auto const& f : policy) {
    if (!f.has_range()) continue;
    for (double const x : outside::of(f)) {
      T wrong = usual;
      f.set(wrong, x);
      if (auto const words = refusal(wrong); !words.starts_with(message(name, ": ", f.name(), " is ")))
        problems += message(f.name(), " = ", x, ": ", words, '\n');
    }
  }
  judge(name, policy.name, static_cast<std::size_t>(policy.end() - policy.begin()),
        std::is_empty_v<T> ? 0 : members<T>() - Others, problems);
}

template <class Stage>
void stage_of_a_rule() {
  if (auto const name = dovetail::detail::type_name<Stage>(); !seen().contains(name)) one<Stage>(name.c_str());
}
template <class... Stages>
void each_of(optim::chain<Stages...> const*) {
  (stage_of_a_rule<Stages>(), ...);
}

std::string contents(std::filesystem::path const& p) {
  std::ostringstream s;
  s << std::ifstream(p).rdbuf();
  return s.str();
}

}  // namespace

TEST_CASE("every stage that is in no rule refuses what it cannot work with") {
  one<optim::ema_weights>("ema_weights");
  one<optim::swa_weights>("swa_weights");
  one<optim::lookahead>("lookahead");
  one<optim::clip_adaptively>("clip_adaptively");
  one<optim::centralize>("centralize");
  one<optim::add_noise>("add_noise");
  one<optim::clip_by_global_norm>("clip_by_global_norm");
  one<optim::skip_non_finite>("skip_non_finite");
  one<optim::clip_by_value>("clip_by_value");
  one<optim::scale>("scale");
  one<optim::cautious>("cautious");
  one<optim::grams>("grams");
}
TEST_CASE("every rule and every stage of one refuses what it cannot work with") {
#define DOVETAIL_RULE(family, name) \
  one<optim::name>(#name);          \
  each_of(static_cast<optim::name::rule const*>(nullptr));
#include <dovetail/optim/rules/list.inc.hpp>
#define DOVETAIL_RULE(family, name) \
  one<optim::name>(#name);          \
  each_of(static_cast<optim::name::rule const*>(nullptr));
#include <dovetail/optim/matrix/list.inc.hpp>
  one<optim::stochastic_lbfgs>("stochastic_lbfgs");
}
TEST_CASE("every schedule refuses what it cannot work with, as a rate and when it is called") {
  one<optim::relative_step>("relative_step");
  one<optim::constant>("constant");
  one<optim::step_decay>("step_decay");
  one<optim::linear>("linear");
  one<optim::cosine>("cosine");
  one<optim::exponential>("exponential");
  one<optim::polynomial>("polynomial");
  one<optim::inverse_time>("inverse_time");
  one<optim::inverse_sqrt>("inverse_sqrt");
  one<optim::warm_restarts>("warm_restarts");
  one<optim::cyclical>("cyclical");
  one<optim::one_cycle>("one_cycle");
  one<optim::warmup<>>("warmup");
  one<optim::constant_warmup<>>("constant_warmup");
  CHECK_THROWS_AS(optim::schedule(optim::step_decay{.every = 0}), argument_error);
  CHECK_THROWS_AS(optim::schedule(optim::warmup{.steps = 3, .then = optim::exponential{.every = 0}}), argument_error);
  CHECK_THROWS_AS(optim::schedule(optim::constant_warmup{.steps = 3, .then = optim::cosine{.initial = -1}, .rate = 1}),
                  argument_error);
  CHECK_THROWS_AS(optim::schedule(optim::cyclical{.low = 2, .high = 1}), argument_error);
  // What ended the process, or never ended.
  CHECK_THROWS_AS(optim::step_decay{.every = 0}(7), argument_error);
  CHECK_THROWS_AS(optim::exponential{.every = 0}(7), argument_error);
  CHECK_THROWS_AS(optim::cyclical{.up = 0}(7), argument_error);
  CHECK_THROWS_AS((optim::warm_restarts{.steps = 0, .growth = 2}(7)), argument_error);
  CHECK_THROWS_AS((optim::warm_restarts{.steps = 0}(7)), argument_error);
}
TEST_CASE("every option and codec refuses what it cannot work with") {
  one<compress::top_k>("top_k");
  one<compress::packed_top_k>("packed_top_k");
  one<compress::chunked_top_k>("chunked_top_k");
  one<compress::sampled_top_k>("sampled_top_k");
  one<compress::random_k>("random_k");
  one<compress::scaled_random_k>("scaled_random_k");
  one<compress::block_random_k>("block_random_k");
  one<compress::scaled_block_random_k>("scaled_block_random_k");
  one<compress::threshold>("threshold");
  one<compress::adacomp>("adacomp");
  one<compress::wangni>("wangni");
  one<compress::dgc>("dgc");
  one<compress::qsgd>("qsgd");
  one<compress::terngrad>("terngrad");
  one<compress::integers<7>>("integers");
  one<compress::fp16>("half");
  one<compress::fp8_e4m3>("fp8");
  one<compress::stochastic_bf16>("stochastic_bf16");
  one<compress::natural>("natural");
  one<compress::natural_dithering>("natural_dithering");
  one<compress::sign>("sign");
  one<compress::one_bit>("one_bit");
  one<compress::three_lc>("three_lc");
  one<compress::dynamic8>("dynamic8");
  one<compress::majority_vote>("majority_vote");
  one<compress::powersgd>("powersgd");
  one<compress::atomo>("atomo");
  one<compress::count_sketch>("count_sketch");
  one<compress::fetch_sgd>("fetch_sgd");
  one<compress::demo>("demo");
  one<compress::automatic_options, 1>("automatic");  // and the log
  one<compress::by_size<compress::identity, compress::identity>>("by_size");
  one<compress::ef21<compress::identity>>("ef21");
  one<compress::after<compress::identity, compress::identity>>("after");
  one<compress::adaptive_ratio<compress::top_k>>("adaptive_ratio");
#if __has_include(<zstd.h>)
  one<compress::zstd<compress::identity>>("zstd");
#else
  seen().insert("zstd");
#endif
  one<sync::scale_by_one_bit_adam>("scale_by_one_bit_adam");
  one<sync::one_bit_adam>("one_bit_adam");
  one<sync::scale_by_one_bit_lamb>("scale_by_one_bit_lamb");
  one<sync::one_bit_lamb>("one_bit_lamb");
  one<optim::linear_scaling>("linear_scaling");
  one<optim::sqrt_scaling>("sqrt_scaling");
  one<optim::legw>("legw");
  one<optim::increase_batch>("increase_batch");
  one<optim::noise_batch>("noise_batch");
  one<optim::coupled_batch>("coupled_batch");
  one<optim::loss_scale_options>("loss_scale");
  one<optim::plateau_options>("reduce_on_plateau");
  one<optim::stop_when>("stop_when");
  one<optim::strong_wolfe>("strong_wolfe");
  one<optim::lbfgs>("lbfgs");
  one<optim::conjugate_gradient>("conjugate_gradient");
  one<optim::sam<no_model>, 2>("sam");  // and two buffers
  CHECK_THROWS_AS(optim::increase_batch{.every = 0}({}), argument_error);
  CHECK(optim::increase_batch{.initial = 3, .factor = std::int64_t{1} << 62, .every = 1}({.step = 5}) == 1 << 20);
  CHECK(optim::increase_batch{.factor = 1, .every = 1}({.step = std::int64_t{1} << 62}) == 1);
  CHECK_THROWS_AS(optim::noise_scale(1), argument_error);
  CHECK_THROWS_AS(optim::noise_scale().add(1, 1, std::numeric_limits<double>::infinity(), 1), argument_error);
  CHECK_THROWS_AS(optim::noise_scale{std::numeric_limits<double>::quiet_NaN()}, argument_error);
  CHECK_THROWS_AS(optim::linear_scaling{.rate = -1}(64), argument_error);
  CHECK_THROWS_AS(optim::legw{.epochs = -1}.steps(64, 1000), argument_error);
  CHECK_THROWS_AS(compress::sign{.block = 17}.init({}), argument_error);
}
TEST_CASE("several fields together") {
  CHECK_THROWS_WITH_AS(check_policy(optim::scale_by_trust_ratio{.min_norm = 2, .max_norm = 1}),
                       doctest::Contains("scale_by_trust_ratio: the lower bound is 2"), argument_error);
  CHECK_THROWS_AS(check_policy(optim::strong_wolfe{.decrease = 0.5, .curvature = 0.4}), argument_error);
  CHECK_THROWS_AS(check_policy(optim::scale_by_lans{.min_norm = 2, .max_norm = 1}), argument_error);
  CHECK_THROWS_AS(check_policy(optim::scale_by_rprop{.smallest_step = 2, .largest_step = 1}), argument_error);
  CHECK_NOTHROW(check_policy(optim::clip_by_global_norm{std::numeric_limits<float>::infinity()}));
}
TEST_CASE("a range in words") {
  CHECK(refusal(optim::adam{.beta1 = 1}) == "adam: beta1 is 1: it must be at least 0 and below 1");
  CHECK(refusal(optim::clip_by_value{-1}) == "clip_by_value: limit is -1: it must be above 0");
  CHECK(refusal(optim::adam{.epsilon = std::numeric_limits<float>::infinity()}) ==
        "adam: epsilon is inf: it must be at least 0, and finite");
  CHECK(refusal(optim::shampoo{.block = 0}) == "shampoo: block is 0: it must be at least 1");
}
TEST_CASE("no policy of the headers is missing above") {
  std::set<std::string> described, policies;
  auto const word_at = [](std::string const& text, std::size_t at) {
    std::size_t end = at;
    while (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '_') ++end;
    return text.substr(at, end - at);
  };
  for (auto const& e : std::filesystem::recursive_directory_iterator(DOVETAIL_HEADERS)) {
    if (!e.is_regular_file() || e.path().extension() != ".hpp" || e.path().filename() == "ranges.hpp") continue;
    auto const text = contents(e.path());
    for (auto at = text.find("policy"); at != text.npos; at = text.find("policy", at + 1)) {  // policy{"name" …
      auto next = at + 6;
      if (text[next] == '<') next = std::min(text.find('>', next), text.size() - 1) + 1;
      if (text[next] != '{') continue;
      next = text.find_first_not_of(" \n", next + 1);
      if (next != text.npos && text[next] == '"') described.insert(word_at(text, next + 1));
    }
    // A struct at the left margin, up to its end: a rule or a stage.
    for (auto at = text.find("\nstruct "); at != text.npos; at = text.find("\nstruct ", at + 1)) {
      auto const body = text.substr(at, text.find("\n};", at) - at);
      if (body.find("DOVETAIL_OPTIMIZER") != body.npos || body.find(" prepare(std::int64_t") != body.npos ||
          body.find("using kind = tensorwise") != body.npos)
        policies.insert(word_at(text, at + 8));
    }
  }
  CHECK(policies.size() > 120);
  for (auto const& name : policies) {
    CAPTURE(name);
    CHECK(described.contains(name));
  }
  for (auto const& name : seen()) CHECK_MESSAGE(described.contains(name), name);
  for (auto const& name : described) CHECK_MESSAGE(seen().contains(name), name);
  CHECK(described == seen());
}

}  // namespace optim_ranges
