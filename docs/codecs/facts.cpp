// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What codecs say of themselves and do, printed for make.py as JSON, an object a line. make.py writes list.inc:
// CODEC(name) for each that needs no other codec. Of each there is a line with its own settings, and one for each entry
// of the tests' registry.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <dovetail/compress.hpp>
#include <dovetail/core/buffer.hpp>
#include <dovetail/core/finite.hpp>
#include <dovetail/core/hyperparameters.hpp>
#include <dovetail/core/philox.hpp>

#define DOVETAIL_CODECS_ALONE
#include "../../test/compress/codec_of.hpp"
#include "../../test/compress/registry.hpp"
#if defined(WITH_ZSTD)
#include <dovetail/compress/zstd.hpp>
#endif

using namespace dovetail;

namespace {

// What is sent and lost is seen on a matrix of numbers that are nearly normal, as gradients are: sums of 12 uniform
// ones, the same on every machine.
constexpr std::int64_t side = 1024;
constexpr std::size_t n = side * side;
constexpr int ranks = 8;
buffer<float> const& noise() {
  static buffer<float> const values = [] {
    buffer<float> x(n);
    random_stream const random{1};
    for (std::size_t i = 0; i < n; ++i) {
      std::uint32_t sum = 0;
      for (std::size_t j = 0; j < 6; ++j) {
        auto const w = random.word(6 * i + j);
        sum += (w & 0xffffu) + (w >> 16);
      }
      x[i] = 1e-3f * (static_cast<float>(sum) / 65536 - 6);
    }
    return x;
  }();
  return values;
}
compress::bucket bucket_of(std::span<float const> x) {
  static compress::bucket_tensor const matrix{0, {side, side}};
  return {x, {&matrix, 1}};
}

std::string text(bool x) { return x ? "true" : "false"; }
std::string text(std::size_t x) { return std::to_string(x); }
std::string text(int x) { return std::to_string(x); }
std::string text(double const& x) { return dovetail::detail::number_text(x); }
std::string text(std::string_view s) { return '"' + std::string(s) + '"'; }
std::string text(char const* s) { return text(std::string_view(s)); }
std::string text(std::vector<std::string> const& parts) {
  std::string all;
  for (auto const& p : parts) all += (all.empty() ? "" : ", ") + p;
  return '[' + all + ']';
}
template <class... Pairs>
std::string object(Pairs const&... pairs) {
  std::string all;
  ((all += (all.empty() ? "" : ", ") + text(std::get<0>(pairs)) + ": " + std::get<1>(pairs)), ...);
  return '{' + all + '}';
}
template <class T>
std::pair<char const*, std::string> pair(char const* key, T const& value) {
  return {key, text(value)};
}
std::pair<char const*, std::string> verbatim(char const* key, std::string value) { return {key, std::move(value)}; }

/// A rank alone: what of x is sent in the first step, and what is decoded.
std::size_t first_step(test::known_codec const& c, std::span<float const> x, std::span<float> out) {
  auto const b = bucket_of(x);
  compress::context where{.seed = 1};
  auto const state = c.init(b, where);
  std::vector<std::byte> payload;
  std::size_t sent = 0;
  for (where.round = 0; where.round < c.rounds; ++where.round) {
    payload.assign(c.wire_size(b, where.round), {});
    payload.resize(state->encode(b, payload, where));
    sent += payload.size();
    if (where.round + 1 < c.rounds) state->absorb(payload, where);
  }
  where.round = c.rounds - 1;
  if (c.rounds > 1) where.rank = compress::context::sum_of_ranks;
  state->decode_add(payload, out, 1, where);
  return sent;
}

/// In these settings: bytes, what the tests hold it to, and the share of the square that is lost of noise.
void print_settings(std::string const& page, std::string const& settings, test::known_codec const& c) {
  auto const x = noise().span();
  auto const b = bucket_of(x);
  std::size_t bytes = 0;
  for (int r = 0; r < c.rounds; ++r) bytes += c.wire_size(b, r);
  buffer<float> out(n);
  std::size_t const sent = first_step(c, x, out.span());
  double lost = 0, all = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double const u = static_cast<double>(x[i]), v = static_cast<double>(out[i]);
    lost += (u - v) * (u - v);
    all += u * u;
  }
  std::cout << object(pair("page", page), pair("settings", settings), pair("bytes", bytes), pair("sent", sent),
                      pair("omega", c.promised.omega ? c.promised.omega(x) : -1),
                      pair("delta", c.promised.delta ? c.promised.delta(x) : -1), pair("lost", lost / all))
            << '\n';
}

char const* word(state_kind k) {
  return k == state_kind::replicated ? "replicated"
         : k == state_kind::summed   ? "summed"
         : k == state_kind::sharded  ? "sharded"
                                     : "own";
}

void print_codec(std::string const& page, std::string const& example, char const* wire_type,
                 std::vector<std::string> const& fields, test::known_codec const& c) {
  auto const b = bucket_of(noise().span());
  std::vector<std::string> exchanges, state;
  for (auto const w : test::wishes)
    if (w != test::wish::automatic && c.legal(w)) exchanges.push_back(text(name_of(w)));
  auto const made = c.init(b, {.ranks = ranks});
  for (auto const& t : made->tensors())
    state.push_back(object(pair("name", t.name), pair("numbers", t.bytes.size() / size_of(t.type)),
                           pair("size", size_of(t.type)), pair("kind", word(t.kind))));
  buffer<float> x(n), out(n);
  std::copy(b.values.begin(), b.values.end(), x.begin());
  x[n / 3] = not_a_number<float>();
  first_step(c, x.span(), out.span());
  std::size_t bad = 0;
  for (float const v : out.span()) bad += !is_finite(v);
  std::cout << object(pair("page", page), pair("example", example), pair("name", c.name), pair("numbers", n),
                      pair("summable", c.summable), pair("fixed_size", c.fixed_size), pair("unbiased", c.unbiased),
                      pair("contraction", c.contraction), pair("wants_error_feedback", c.wants_error_feedback),
                      pair("may_have_feedback", c.feedback != nullptr), pair("rounds", c.rounds),
                      pair("wire_type", wire_type), verbatim("exchanges", text(exchanges)),
                      pair("chosen", c.plan(test::wish::automatic, b, ranks)),
                      pair("step_bytes", c.cost(test::wish::automatic, b, ranks, 0).bytes_sent), pair("ranks", ranks),
                      verbatim("state", text(state)), pair("not_finite", bad), pair("in_place", !is_finite(out[n / 3])),
                      verbatim("fields", text(fields)))
            << '\n';
}

/// What a policy says of its fields: range and value, or names and the one that is chosen.
template <class Policy>
std::vector<std::string> fields_of(Policy const& p, std::string const& prefix = "") {
  std::vector<std::string> all;
  for (auto const& f : Policy::describe()) {
    auto const& r = f.range();
    bool const from = f.has_range() && r.low > std::numeric_limits<double>::lowest(),
               to = f.has_range() && r.high < std::numeric_limits<double>::max();
    std::string const value = f.has_range()      ? dovetail::detail::number_text(f.value(p))
                              : f.is_flag()      ? text(f.value(p) > 0)
                              : f.chosen(p) >= 0 ? std::string(dovetail::detail::word_of(f.choices(), f.chosen(p)))
                                                 : "";
    all.push_back(object(pair("name", prefix + f.name()), pair("value", value),
                         pair("choices", f.choices()   ? f.choices()
                                         : f.is_flag() ? "false true"
                                                       : ""),
                         pair("low", from ? dovetail::detail::number_text(r.low) : ""),
                         pair("high", to ? dovetail::detail::number_text(r.high) : ""), pair("above", r.above),
                         pair("below", r.below), pair("unbounded", r.unbounded)));
  }
  return all;
}
template <class Codec>
std::vector<std::string> fields(Codec const& c) {
  if constexpr (dovetail::detail::described<Codec>)
    return fields_of(c);
  else if constexpr (requires { c.options; })
    return fields_of(c.options, "options.");
  else
    return {};
}
/// The fields that differ from the codec's own: ".block = 64".
template <class Codec>
std::string settings(Codec const& c) {
  std::string all;
  if constexpr (dovetail::detail::described<Codec>) {
    Codec const usual{};
    for (auto const& f : Codec::describe()) {
      if (f.value(c) == f.value(usual) && f.chosen(c) == f.chosen(usual)) continue;
      all += std::string(all.empty() ? "." : ", .") + f.name() + " = ";
      all += f.chosen(c) >= 0 ? std::string(dovetail::detail::word_of(f.choices(), f.chosen(c)))
             : f.is_flag()    ? text(f.value(c) > 0)
                              : dovetail::detail::number_text(f.value(c));
    }
  }
  return all;
}

template <class Wire>
char const* name_of_type() {
  return std::is_same_v<Wire, float>  ? "fp32"
         : std::is_same_v<Wire, fp16> ? "fp16"
         : std::is_same_v<Wire, bf16> ? "bf16"
                                      : "";
}
template <class Codec>
void add(std::string const& page, std::string const& example, Codec const& c) {
  test::codec_of<Codec> const known(page.c_str(), c, {});
  print_codec(page, example, name_of_type<compress::wire_type_of<Codec>>(), fields(c), known);
  print_settings(page, "", known);
}

/// A codec that needs no other one by its name, of which several may be one template; of the others that of the
/// template.
template <class Codec>
std::string page_of() {
#define CODEC(name) \
  if constexpr (std::is_same_v<Codec, compress::name>) return #name;
#include "list.inc"
#undef CODEC
  return dovetail::detail::type_name<Codec>();
}
template <class Codec>
void add_entry(test::entry<Codec> const& e) {
  // The names of those around others are made of theirs.
  if constexpr (requires { e.codec.name().size(); })
    std::cout << object(pair("page", page_of<Codec>()), pair("around", e.label)) << '\n';
  else
    print_settings(page_of<Codec>(), settings(e.codec), test::codec_of<Codec>(e.label, e.codec, e.promised));
}

}  // namespace

int main() {
#define CODEC(name) add(#name, "compress::" #name "{}", compress::name{});
#include "list.inc"
#undef CODEC
  // Those around others, as their pages show them.
#define AROUND(...)                                                                                \
  {                                                                                                \
    auto const codec = __VA_ARGS__;                                                                \
    add(dovetail::detail::type_name<std::remove_const_t<decltype(codec)>>(), #__VA_ARGS__, codec); \
  }
  AROUND(compress::error_feedback{compress::top_k{}})
  AROUND(compress::ef21{compress::top_k{}})
  AROUND(compress::adaptive_ratio{compress::error_feedback{compress::top_k{}}, 0.1f, 500, 0.5f})
  AROUND(compress::by_size{16384, compress::identity{}, compress::error_feedback{compress::top_k{}}})
  AROUND(compress::after{500, compress::identity{}, compress::error_feedback{compress::sign{}}})
  AROUND(compress::without_feedback{compress::sign{}})
  AROUND(compress::automatic{compress::bf16{}, compress::int8{}})
#if defined(WITH_ZSTD)
  AROUND(compress::zstd{compress::three_lc{}})
#endif
  std::apply([](auto const&... entries) { (add_entry(entries), ...); }, test::codec_registry());
}
