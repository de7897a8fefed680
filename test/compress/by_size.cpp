// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tools.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <dovetail/comm.hpp>
#include <dovetail/optim.hpp>
#include <dovetail/sync.hpp>

namespace compress_by_size {

using namespace dovetail;
using compress::by_size;
using compress::error_feedback;

// A bias of 5, a matrix of 30 x 40, 3 elements of no tensor, a bias of 7, a matrix of 20 x 20.
std::vector<compress::bucket_tensor> const tensors{
    {0, shape{5}}, {5, shape{30, 40}}, {1208, shape{7}}, {1215, shape{20, 20}}};
constexpr std::size_t n = 1615;

template <class Codec>
std::vector<std::byte> encoded(Codec const& codec, std::vector<float> const& x, typename Codec::state& s,
                               compress::context const& where = {}) {
  std::vector<std::byte> payload(codec.wire_size(compress::bucket{x, tensors}));
  payload.resize(codec.encode({x, tensors}, s, payload, where));
  return payload;
}

TEST_CASE("small tensors come back exactly, and the rest is what the other codec makes of it alone") {
  auto const x = test::normal(n, 1);
  by_size const codec{100, compress::identity{}, compress::int8{}};
  auto s = codec.init({x, tensors});
  auto const payload = encoded(codec, x, s);
  CHECK(payload.size() == 4 * 12 + compress::int8{}.wire_size(n - 12));
  std::vector<float> out(n, 1.0f);
  codec.decode_add(payload, out, 2, s, {});
  std::vector<float> rest;
  for (std::size_t i = 0; i < n; ++i)
    if (i < 5 || (i >= 1208 && i < 1215))
      CHECK(out[i] == 1 + 2 * x[i]);
    else
      rest.push_back(x[i]);
  auto const alone = test::decode(compress::int8{}, test::encode(compress::int8{}, rest), rest.size());
  std::size_t at = 0;
  for (std::size_t i = 0; i < n; ++i)
    if (!(i < 5 || (i >= 1208 && i < 1215))) REQUIRE(out[i] == 1 + 2 * alone[at++]);
}

TEST_CASE("all may be small, or all large, or nothing there") {
  auto const x = test::normal(n, 2);
  for (std::int64_t const elements : {0, 1, 6, 401, 100000}) {
    by_size const codec{elements, compress::identity{}, compress::identity{}};
    static_assert(decltype(codec)::summable && decltype(codec)::fixed_size);
    auto s = codec.init({x, tensors});
    std::vector<float> out(n);
    codec.decode_add(encoded(codec, x, s), out, 1, s, {});
    CHECK(out == x);
  }
  by_size const codec{100, compress::identity{}, error_feedback{compress::top_k{.ratio = 0.1f}}};
  auto s = codec.init({});
  std::vector<std::byte> payload(codec.wire_size(compress::bucket{}));
  CHECK(codec.encode({}, s, payload, {}) == 0);
  codec.decode_add(payload, {}, 1, s, {});
}

TEST_CASE("what the large ones lose is kept, taken back, and saved under its name; sizes may vary") {
  auto const x = test::normal(n, 3);
  by_size const codec{100, compress::identity{}, error_feedback{compress::three_lc{}}};
  static_assert(!decltype(codec)::fixed_size && !decltype(codec)::wants_error_feedback);
  auto s = codec.init({x, tensors});
  auto const first = encoded(codec, x, s);
  codec.commit(s);
  auto const before = s;
  encoded(codec, x, s, {.step = 1});
  CHECK_FALSE(s == before);
  codec.rollback(s);
  CHECK(s == before);
  REQUIRE(s.tensors("b.").size() == 1);
  CHECK(s.tensors("b.")[0].name == "b.large.residual");
  CHECK(s.tensors("b.")[0].kind == state_kind::own);  // another number of ranks is refused
  // Sent and residual are the gradient.
  std::vector<float> out(n);
  codec.decode_add(first, out, 1, s, {});
  auto const residual = s.second.inner.state().residual.span();
  std::size_t at = 0;
  for (auto const& p : s.second.parts)
    for (std::size_t i = p.begin; i < p.end; ++i) CHECK(out[i] + residual[at++] == doctest::Approx(x[i]).epsilon(1e-5));
  CHECK(at == n - 12);
  for (auto const cut : {std::size_t{0}, std::size_t{7}, std::size_t{40}, first.size() - 1}) {
    std::vector<float> untouched(n, 3.0f);
    CHECK_THROWS_AS(codec.decode_add(std::span(first).first(cut), untouched, 1, s, {}), input_error);
    CHECK(untouched == std::vector<float>(n, 3.0f));
  }
}

TEST_CASE("ranks agree, and bytes are those predicted") {
  for (int const ranks : {1, 2, 3, 4}) {
    std::vector<std::vector<float>> results(static_cast<std::size_t>(ranks));
    comm::threads{ranks}.run([&](auto& c) {
      std::vector<float> w(n), g = test::normal(n, static_cast<std::uint64_t>(c.rank()));
      parameter_list list;
      list.add("b1", std::span(w).first(5), std::span(g).first(5));
      list.add("w1", std::span(w).subspan(5, 1200), std::span(g).subspan(5, 1200), shape{30, 40});
      list.add("rest", std::span(w).subspan(1205), std::span(g).subspan(1205));
      sync::all_reduce const sync{by_size{100, compress::identity{}, error_feedback{compress::top_k{.ratio = 0.05f}}}};
      auto session = sync.join(list, optim::sgd{.lr = 1}, c);
      auto const before = c.traffic();
      session.begin();
      session.ready(0);
      session.step();
      CHECK((c.traffic() - before).bytes_sent == sync.predict(list, ranks, c.rank()).bytes_sent);
      results[static_cast<std::size_t>(c.rank())] = w;
    });
    for (auto const& r : results) CHECK(r == results[0]);
    for (std::size_t i = 0; i < 5; ++i) CHECK(results[0][i] != 0);
  }
}

TEST_CASE("small and large tensors draw other random numbers, also where one lies where the other is renumbered to") {
  std::vector<float> const x(240, 1.00390625f);  // between two numbers of bf16
  std::vector<compress::bucket_tensor> const three{{0, {40}}, {40, {160}}, {200, {40}}};
  by_size const codec{100, compress::stochastic_bf16{}, compress::stochastic_bf16{}};
  compress::bucket const b{x, three};
  compress::context const where{.seed = 5};
  auto state = codec.init(b, where);
  std::vector<std::byte> payload(codec.wire_size(b));
  payload.resize(codec.encode(b, state, payload, where));
  std::vector<float> out(x.size());
  codec.decode_add(payload, out, 1, state, where);
  // The second small tensor has the numbers 40 to 79 of its codec, as the large one has.
  CHECK(!std::equal(out.begin() + 200, out.end(), out.begin() + 40));
}

TEST_CASE("codecs that keep what they decode have it on all ranks, also of shards that they do not encode") {
  by_size const codec{100, compress::identity{}, compress::ef21{compress::fp16{}}};
  auto const train = [&](auto const& policy) {
    std::vector<std::vector<float>> weights(3);
    comm::threads{3}.run([&](auto& c) {
      arena a({{"b", {30}}, {"w", {40, 30}}});
      auto session = policy.join(a.parameters(), optim::sgd{.lr = 0.1f}, c);
      for (std::uint64_t step = 0; step < 5; ++step) {
        session.begin();
        auto const g = test::normal(a.gradients().size(), 10 * step + static_cast<std::uint64_t>(c.rank()));
        std::copy(g.begin(), g.end(), a.gradients().begin());
        if (step == 2 && c.rank() == 1) a.gradients()[700] = std::numeric_limits<float>::infinity();
        session.ready(0);
        CHECK(session.step().skipped == (step == 2));
      }
      weights[static_cast<std::size_t>(c.rank())].assign(a.weights().begin(), a.weights().end());
    });
    CHECK(weights[1] == weights[0]);
    CHECK(weights[2] == weights[0]);
    return weights[0];
  };
  auto const by_default = train(sync::all_reduce{codec});
  auto const divided = train(sync::all_reduce{codec, sync::exchange::reduce_scatter_all_gather{}});
  CHECK(by_default == divided);
  train(sync::all_reduce{compress::after{1, compress::fp16{}, codec}});
}

TEST_CASE("tensors that do not lie in their bucket one behind the other are refused by whoever looks at them") {
  std::vector<float> const x(10);
  auto const refused = [&](auto const& codec, std::vector<compress::bucket_tensor> const& those) {
    compress::bucket const b{x, those};
    CHECK_THROWS_WITH_AS(compress::init(codec, b, {}),
                         doctest::Contains("tensors lie in the bucket, one behind the other"), argument_error);
  };
  for (std::vector<compress::bucket_tensor> const& those :
       {std::vector<compress::bucket_tensor>{{0, {5000}}}, {{0, {4}}, {3, {4}}}, {{4, {4}}, {0, {4}}}, {{11, {0}}}}) {
    refused(compress::dgc{}, those);
    refused(compress::adacomp{}, those);
    refused(compress::powersgd{}, those);
    refused(compress::atomo{}, those);
    refused(compress::demo{}, those);
    refused(by_size{8, compress::identity{}, compress::identity{}}, those);
  }
}

TEST_CASE("the number of elements that a sparsifier keeps is the ceiling, also of many") {
  CHECK(compress::detail::kept(0.5f, std::size_t{1} << 24) == std::size_t{1} << 23);
  CHECK(compress::detail::kept(0.1f, 100'000'000) == 10'000'000);
  CHECK(compress::detail::kept(0.1f, 10) == 1);
  CHECK(compress::detail::kept(0.1f, 11) == 2);
}

}  // namespace compress_by_size
