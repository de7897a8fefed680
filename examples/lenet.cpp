// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A convolutional network on images in IDX files (MNIST, Fashion-MNIST), data parallel on threads, with the accuracy on
// the test split after every epoch.
//
//     lenet FOLDER [--ranks 2] [--batch 64] [--epochs 3] [--lr 0.02] [--compress]
//         [--optimizer adamw --set weight_decay=0.1]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <dovetail/data/gzip.hpp>
#include <dovetail/dovetail.hpp>

#include "number_in.hpp"
#include "optimizers.hpp"

using namespace dovetail;

using lenet = nn::network<nn::shape{1, 28, 28}, nn::conv<32, 3>, nn::relu, nn::max_pool<2>, nn::flatten, nn::dense<128>,
                          nn::relu, nn::dense<10>>;
static_assert(lenet::parameter_count == 693'962);

namespace {

constexpr float usual_lr = 0.02f;  // of the usual optimizer; others have their own

struct settings {
  std::string folder;
  int ranks = usable_cores();
  std::int64_t batch = 64, epochs = 3;
  std::optional<float> lr;
  std::string optimizer = "momentum";
  std::vector<std::string> set;
  bool compress = false;
};

optim::any_optimizer make_optimizer(settings const& s) {
  optim::settings given;
  if (s.lr || s.optimizer == settings{}.optimizer) given.push_back({"lr", s.lr.value_or(usual_lr)});
  return examples::make_optimizer(s.optimizer, std::move(given), s.set);
}

/// Trains with gradients exchanged by `sync`; one policy more would be one call more.
template <class Sync>
void train_with(Sync sync, settings const& s) {
  auto const optimizer = make_optimizer(s);  // one that cannot be is refused before anything is read
  data::idx_images const train{s.folder, {.unpack = data::gunzip}},
      test{s.folder, {.split = "test", .unpack = data::gunzip}};
  require<input_error>(train.image_shape() == lenet::input_shape && train.classes() <= 10, "'", s.folder,
                       "' holds images of shape ", train.image_shape(), " in ", train.classes(),
                       " classes: this network takes ", lenet::input_shape, " in 10");
  train::trainer trainer{lenet{}, nn::softmax_cross_entropy{}, optimizer, sync, comm::threads{s.ranks}};
  for (std::int64_t epoch = 1; epoch <= s.epochs; ++epoch) {
    auto const report = trainer.fit(train, {.batch = s.batch, .epochs = epoch});
    auto const found = trainer.evaluate(test);
    std::printf("epoch %lld  loss %.4f  test accuracy %.2f %%  %.0f images/s  %.2f MB sent per rank and step\n",
                static_cast<long long>(epoch), report.losses.empty() ? 0.0 : report.losses.back(),
                100.0 * static_cast<double>(found.correct) / static_cast<double>(found.count),
                static_cast<double>(report.samples) / report.seconds,
                static_cast<double>(report.traffic.bytes_sent) / 1e6 /
                    static_cast<double>(std::max<std::size_t>(report.losses.size(), 1)));
    examples::check_output();
    bool const all_skipped = report.skipped == static_cast<std::int64_t>(report.losses.size());
    if (epoch == s.epochs || !std::isfinite(found.mean()))
      examples::check_learned(found.mean(), std::log(10), all_skipped);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  using examples::number_in;
  settings s;
  CLI::App app{"Trains a convolutional network on images in IDX files"};
  app.add_option("folder", s.folder, "Folder with train-images-idx3-ubyte and its companions")->required();
  app.add_option("--ranks", s.ranks, "Threads that train side by side")
      ->capture_default_str()
      ->check(number_in(1, 1024));
  app.add_option("--batch", s.batch, "Images per rank and step")
      ->capture_default_str()
      ->check(number_in<std::int64_t>(1, 1'000'000));
  app.add_option("--epochs", s.epochs, "Passes over the images")
      ->capture_default_str()
      ->check(number_in<std::int64_t>(1, 1'000'000));
  app.add_option("--lr", s.lr, "Learning rate; 0.02 with momentum, otherwise the optimizer's own")
      ->check(number_in(1e-12f, 1e6f));
  app.add_option("--optimizer", s.optimizer, "Rule by name; 'list' shows which there are")->capture_default_str();
  app.add_option("--set", s.set, "A hyperparameter of the rule, key=value; may be given again")
      ->allow_extra_args(false);
  app.add_flag("--compress", s.compress, "Exchange 1 % of the gradients, with error feedback");
  if (examples::wants_list(argc, argv)) {
    std::printf("%s", examples::list_optimizers().c_str());
    examples::check_output();
    return 0;
  }
  CLI11_PARSE(app, argc, argv);
  if (s.compress)
    train_with(sync::all_reduce{compress::error_feedback{compress::top_k{.ratio = 0.01f}}}, s);
  else
    train_with(sync::all_reduce{}, s);
} catch (std::exception const& e) {
  std::fprintf(stderr, "lenet: %s\n", e.what());
  return 1;
}
