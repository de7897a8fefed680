// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <unistd.h>

#include <dovetail/io/run_state.hpp>
#include <dovetail/optim/any_optimizer.hpp>

#include <doctest/doctest.h>

#include "small.hpp"

namespace train_resume {

using namespace dovetail;
namespace fs = std::filesystem;

namespace {

struct folder {
  fs::path path = fs::temp_directory_path() / ("dovetail-resume-" + std::to_string(getpid()));
  folder() { fs::create_directories(path); }
  ~folder() { fs::remove_all(path); }
};

template <class Net, class Sync>
auto make_trainer(Sync const& sync, comm::threads const& world) {
  return train::trainer{
      test::initialized<Net>(), nn::softmax_cross_entropy{},
      optim::chain{optim::clip_by_global_norm{1.f}, optim::scale_by_adam{}, optim::add_decayed_weights{0.01f},
                   optim::scale_by_learning_rate{
                       optim::warmup{.steps = 4, .then = optim::cosine{.initial = 0.01f, .steps = 30}}}},
      sync, world};
}

/// Eleven steps in one go, and the same in three parts through files; everything that is kept must agree bit for bit.
template <class Net, class Sync, class Data>
void check_resume(Sync const& sync, int ranks, Data const& data, std::int64_t accumulate) {
  CAPTURE(ranks);
  folder const at;
  auto const file = at.path / "run.safetensors";
  comm::threads const world(ranks);
  train::fit_options options{.batch = 3, .steps = 11, .accumulate = accumulate, .seed = 9};
  auto whole = make_trainer<Net>(sync, world);
  auto const expected = whole.fit(data, options);

  std::vector<double> losses;
  for (std::int64_t stop : {4, 9, 11}) {
    auto part = make_trainer<Net>(sync, world);
    part.model().network.initialize(1234);  // the file must bring the weights
    if (stop == 4) part.model().network.initialize(3);
    if (fs::exists(file)) part.restore(io::load_state(file));
    options.steps = stop;
    options.on_save = [&](io::saved_state& s) { io::save_state(file, s); };
    auto const r = part.fit(data, options);
    CHECK(r.step == stop);
    losses.insert(losses.end(), r.losses.begin(), r.losses.end());
    if (stop == 11) {
      CHECK(test::digest(part.model().parameters()) == test::digest(whole.model().parameters()));
      CHECK(part.state() == whole.state());  // optimizer, residuals, position
    }
  }
  CHECK(losses == expected.losses);
}

}  // namespace

TEST_CASE("interrupted and resumed equals uninterrupted, bit for bit") {
  sync::all_reduce const dense{.bucket_bytes = 1500};
  sync::all_reduce const sparse{.codec = compress::error_feedback{compress::top_k{.ratio = 0.05f}},
                                .bucket_bytes = 1500};
  sync::all_reduce const signs{.codec = compress::error_feedback{compress::sign{}},
                               .plan = sync::exchange::reduce_scatter_all_gather{},
                               .bucket_bytes = 1500};
  for (int ranks : {1, 2, 3}) {
    check_resume<test::images_net>(dense, ranks, test::images(), 1);
    check_resume<test::images_net>(sparse, ranks, test::images(), 2);  // an epoch ends in the middle of a step
    check_resume<test::images_net>(signs, ranks, test::images(), 1);
    check_resume<test::text_net>(sparse, ranks, test::text(), 1);
    check_resume<test::images_net>(sync::fully_sharded{.bucket_bytes = 400, .give_back_memory = false}, ranks,
                                   test::images(), 2);
  }
}

TEST_CASE("on other numbers of ranks state that was divided is divided anew") {
  // All of each array, from the ranks' pieces.
  auto const whole = [](io::saved_state const& s) {
    std::map<std::string, std::map<std::size_t, std::vector<std::byte>>> parts;
    for (auto const& [name, piece] : s.pieces())
      if (auto const at = name.find('@'); at != std::string::npos)
        parts[name.substr(name.find('.'), at - name.find('.'))][std::stoul(name.substr(at + 1))].insert(
            parts[name.substr(name.find('.'), at - name.find('.'))][std::stoul(name.substr(at + 1))].end(),
            piece.bytes.begin(), piece.bytes.end());
    std::map<std::string, std::vector<std::byte>> all;
    for (auto const& [name, pieces] : parts)
      for (auto const& [first, bytes] : pieces) {
        CHECK(all[name].size() == 4 * first);
        all[name].insert(all[name].end(), bytes.begin(), bytes.end());
      }
    return all;
  };
  std::map<int, comm::threads> worlds;  // which trainers refer to
  auto const trainer = [&](int ranks, std::size_t bytes) {
    return make_trainer<test::images_net>(sync::fully_sharded{.bucket_bytes = bytes},
                                          worlds.try_emplace(ranks, ranks).first->second);
  };
  io::saved_state saved;
  trainer(4, 400).fit(test::images(), {.batch = 3, .steps = 6, .on_save = [&](io::saved_state& s) { saved = s; }});
  auto const expected = whole(saved);
  CHECK(expected.size() == 2 * test::initialized<test::images_net>().parameters().size());
  for (auto const& [ranks, bytes] : {std::pair{3, 400}, {5, 400}, {1, 400}, {4, 1}, {4, 1 << 20}, {2, 1}, {2, 2000}}) {
    CAPTURE(ranks);  // twice the same number, which cuts buckets otherwise
    CAPTURE(bytes);
    auto next = trainer(ranks, static_cast<std::size_t>(bytes));
    {
      next.restore(saved);
      next.fit(test::images(), {.batch = 12 / ranks, .steps = 6, .on_save = [&](io::saved_state& s) { saved = s; }});
      CHECK(whole(saved) == expected);
    }
  }
  // A piece is missing, or twice there while another one is missing.
  for (bool const twice : {false, true}) {
    auto third = trainer(3, 400);
    io::saved_state damaged;
    for (auto const& [name, piece] : saved.pieces())
      if (name.find("rank1.optimizer.0.weight.exp_avg@") == std::string::npos)
        damaged.add(name, piece);
      else if (twice)
        damaged.add("rank1.optimizer.0.weight.exp_avg@0", piece);
    third.restore(damaged);
    CHECK_THROWS_WITH_AS(third.fit(test::images(), {.batch = 4, .steps = 6}), doctest::Contains("each once"),
                         checkpoint_error);
  }
}

TEST_CASE("on another number of ranks a run goes on, and residuals keep their sum") {
  sync::all_reduce const sparse{.codec = compress::error_feedback{compress::top_k{.ratio = 0.05f}},
                                .plan = sync::exchange::all_gather{},
                                .bucket_bytes = 1500};
  io::saved_state saved;
  comm::threads const four(4), two(2);
  auto first = make_trainer<test::images_net>(sparse, four);
  first.fit(test::images(), {.batch = 3, .steps = 6, .on_save = [&](io::saved_state& s) { saved = s; }});
  auto second = make_trainer<test::images_net>(sparse, two);
  second.restore(saved);
  second.fit(test::images(), {.batch = 6, .steps = 6});  // no step is left: the state is taken over as it is
  auto const sum_of = [](io::saved_state const& s, std::string const& name, int ranks) {
    double sum = 0, size = 0;
    for (int r = 0; r < ranks; ++r) {
      auto const* p = s.find("rank" + std::to_string(r) + "." + name);
      REQUIRE(p);
      auto const* f = reinterpret_cast<float const*>(p->bytes.data());
      for (std::size_t i = 0; i < p->bytes.size() / 4; ++i) {
        sum += static_cast<double>(f[i]) * static_cast<double>(i % 7 + 1);  // weighed: positions must not move either
        size += std::abs(static_cast<double>(f[i]));
      }
    }
    CHECK(size > 0);
    return sum;
  };
  int residuals = 0;
  for (auto const& [name, piece] : saved.pieces())
    if (name.starts_with("rank0.") && piece.type == dtype::f32) {
      ++residuals;
      CHECK(sum_of(second.state(), name.substr(6), 2) ==
            doctest::Approx(sum_of(saved, name.substr(6), 4)).epsilon(1e-4));
    }
  CHECK(residuals >= 2);
}

TEST_CASE("another batch size goes on in the same place of the same epoch, short last batches counted as they are") {
  comm::threads world(1);
  io::saved_state saved;
  train::trainer first{test::initialized<test::images_net>(), nn::softmax_cross_entropy{}, optim::sgd{},
                       sync::all_reduce{}, world};
  auto const keep = [&](io::saved_state& s) { saved = s; };
  // 61 samples are 13 batches of 5: after them a new epoch begins, also for batches of 10, of which there are 7.
  first.fit(test::images(), {.batch = 5, .steps = 13, .on_save = keep});
  train::trainer second{test::images_net{}, nn::softmax_cross_entropy{}, optim::sgd{}, sync::all_reduce{}, world};
  second.restore(saved);
  std::vector<std::int64_t> epochs;
  second.fit(test::images(),
             {.batch = 10, .steps = 21, .on_step = [&](train::step_record const& r) { epochs.push_back(r.epoch); }});
  CHECK(epochs == std::vector<std::int64_t>{1, 1, 1, 1, 1, 1, 1, 2});
}

TEST_CASE("a checkpoint of something else is refused before anything changes") {
  comm::threads const world(2);
  sync::all_reduce const dense{};
  auto images = make_trainer<test::images_net>(dense, world);
  io::saved_state saved;
  images.fit(test::images(), {.batch = 3, .steps = 2, .on_save = [&](io::saved_state& s) { saved = s; }});

  auto text = make_trainer<test::text_net>(dense, world);
  auto const before = test::digest(text.model().parameters());
  CHECK_THROWS_AS(text.restore(saved), checkpoint_error);
  CHECK(test::digest(text.model().parameters()) == before);

  train::trainer other{test::initialized<test::images_net>(), nn::softmax_cross_entropy{}, optim::momentum{}, dense,
                       world};
  other.restore(saved);
  CHECK_THROWS_AS(other.fit(test::images(), {.batch = 3, .steps = 3}),
                  checkpoint_error);  // Adam's moments for momentum
  auto reseeded = make_trainer<test::images_net>(dense, world);
  reseeded.restore(saved);
  CHECK_THROWS_WITH_AS(reseeded.fit(test::images(), {.batch = 3, .steps = 3, .seed = 77}),
                       doctest::Contains("give the same seed"), checkpoint_error);
}

TEST_CASE("a checkpoint says what its run trained with, and who goes on with something else is told what") {
  folder const at;
  auto const file = at.path / "run.safetensors";
  comm::threads const world(2);
  auto const trainer = [&](auto const& optimizer, auto const& sync) {
    return train::trainer{test::initialized<test::images_net>(), nn::softmax_cross_entropy{}, optimizer, sync, world};
  };
  auto const sparse = [](float ratio) {
    return sync::all_reduce{.codec = compress::error_feedback{compress::top_k{.ratio = ratio}}};
  };
  optim::adamw const rule{.lr = 0.01f, .beta2 = 0.99f};
  auto first = trainer(rule, sparse(0.05f));
  first.fit(test::images(), {.batch = 3, .steps = 2, .on_save = [&](io::saved_state& s) {
                               io::save_state(file, s, {{"note", "mine"}});
                             }});
  auto const metadata = io::checkpoint_file::open(file).metadata();
  CHECK(metadata.at("note") == "mine");
  CHECK(metadata.at("optimizer") == "adamw");
  CHECK(metadata.at("synchronizer") == "all_reduce");
  CHECK(metadata.at("codec").starts_with("error feedback + top"));
  CHECK(metadata.at("hyperparameter.adamw.beta2") == "0.99");
  CHECK(metadata.at("hyperparameter.top_k.ratio") == "0.05");
  CHECK(metadata.at("hyperparameter.learning rate.in step 1") == "0.01");
  auto const saved = io::load_state(file);
  CHECK(saved.notes() == metadata);

  using words = std::vector<std::string>;
  CHECK(trainer(rule, sparse(0.05f)).restore(saved) == words{});
  // The same rule by name is no other rule.
  CHECK(trainer(optim::any_optimizer(rule), sparse(0.05f)).restore(saved) == words{});
  CHECK(trainer(optim::adamw{.lr = 0.01f, .beta2 = 0.999f}, sparse(0.1f)).restore(saved) ==
        words{"adamw.beta2 was 0.99 and is 0.999", "scale_by_adam.beta2 was 0.99 and is 0.999",
              "top_k.ratio was 0.05 and is 0.1"});
  auto const scheduled =
      trainer(optim::adamw{.lr = optim::step_decay{.initial = 0.01f, .factor = 0.5f, .every = 10}, .beta2 = 0.99f},
              sparse(0.05f))
          .restore(saved);
  CHECK(scheduled == words{"learning rate.in step 100 was 0.01 and is 1.953125e-05"});
  auto dense = trainer(optim::sgd{}, sync::all_reduce{});
  auto const other = dense.restore(saved);
  REQUIRE(other.size() >= 2);
  CHECK(other[0] == "the optimizer was adamw and is sgd");
  CHECK(other[1].starts_with("the codec was error feedback + top"));
  CHECK(other[1].ends_with(" and is identity"));
  CHECK_THROWS_AS(dense.fit(test::images(), {.batch = 3, .steps = 3}), checkpoint_error);  // the state does not fit

  // A state that says nothing, as those of earlier versions.
  io::saved_state silent;
  for (auto const& [name, piece] : saved.pieces()) silent.add(name, piece);
  CHECK(trainer(optim::sgd{}, sync::all_reduce{}).restore(silent) == words{});
}

TEST_CASE("what ranks send each other of their state survives the trip, and a truncated message is refused") {
  std::vector<float> f{1, 2, 3};
  std::int64_t n = 5;
  io::saved_state s({make_named_tensor("values", std::span<float>(f), shape{3, 1}), make_named_tensor("count", n)});
  auto packed = s.pack();
  CHECK(io::saved_state::unpack(packed) == s);
  for (std::size_t cut = 1; cut < packed.size(); ++cut) {
    auto const part = std::span<std::byte const>(packed).first(packed.size() - cut);
    bool whole = false;
    try {
      whole = io::saved_state::unpack(part) == s;
    } catch (input_error const&) {
    }
    REQUIRE_FALSE(whole);
  }
}

}  // namespace train_resume
