// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A character-level language model, trained on several ranks twice: with dense gradients, and with one gradient in a
// hundred. It is SINGA's char-RNN (Wang et al., arXiv 1603.07846) on the text it was shown on, the C sources of Linux,
// of which every machine with a compiler has the headers.
//
//     ./run demo                     two ranks on two cores: threads of one process
//     ./run demo --mpi 2             the same as processes, with the same losses, bit for bit
//     ./run demo --text ~/src        on text of your own
//     ./run demo --resume            goes on where an interrupted run stopped
//     ./run demo --optimizer lion --set weight_decay=0.1

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <limits>
#include <map>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <dovetail/dovetail.hpp>
#include <dovetail/io/folder_lock.hpp>
#include <dovetail/io/metrics.hpp>
#include <dovetail/io/plot.hpp>
#include <dovetail/io/run_state.hpp>
#include <dovetail/io/tensorboard.hpp>
#include <dovetail/io/trace.hpp>
#include <dovetail/train/progress.hpp>
#ifdef CHAR_RNN_MPI
#include <dovetail/comm/mpi.hpp>
#endif

#include "interruption.hpp"
#include "number_in.hpp"
#include "optimizers.hpp"

using namespace dovetail;
namespace fs = std::filesystem;

namespace {

// The network is a type: its shapes are checked, and its 887 thousand parameters counted, by the compiler.
constexpr int vocabulary = 96, window = 50;
constexpr float usual_lr = 4e-3f;
using network =
    nn::network<nn::shape{window}, nn::embedding<vocabulary, 64>, nn::lstm<256>, nn::lstm<256>, nn::dense<vocabulary>>;

struct settings {
  fs::path text = "/usr/include/linux";
  fs::path out = "runs/demo";
  int ranks = usable_cores();
  std::int64_t batch = 25;
  std::int64_t steps = 500;
  std::uint64_t seed = 1;
  std::optional<float> lr;
  std::string optimizer;         // empty: the chain of make_optimizer
  std::vector<std::string> set;  // its hyperparameters, "key=value"
  float ratio = 0.01f;
  bool resume = false, overlap = false;
};

struct stopped {
  std::string what;
};

// The optimizer is a chain of stages, which the engine fuses into two passes over memory: one for the norm, one for
// everything else. --optimizer has another one in its place.
optim::any_optimizer make_optimizer(settings const& s) {
  optim::warmup const rate{.steps = 20, .then = optim::cosine{.initial = s.lr.value_or(usual_lr), .steps = s.steps}};
  if (!s.optimizer.empty())
    return examples::make_optimizer(s.optimizer, s.lr ? optim::settings{{"lr", rate}} : optim::settings{}, s.set);
  require(s.set.empty(), "--set ", s.set.empty() ? "" : s.set[0], ": it sets a hyperparameter of --optimizer NAME");
  return optim::chain{optim::clip_by_global_norm{1.f}, optim::scale_by_adam{.beta2 = 0.99f},
                      optim::scale_by_learning_rate{rate}};
}

struct result {
  std::string name;
  double bits = 0;  // per character, held out
  double sequences_per_second = 0, bytes_per_step = 0, seconds = 0;
  std::vector<io::metrics_record> history;
};

// What a run leaves besides its checkpoint: a progress line, metrics as JSON lines and for TensorBoard.
struct logs {
  train::progress progress;
  io::metrics_log metrics;
  io::tensorboard_log tensorboard;

  logs(settings const& s, std::string const& name, std::int64_t resume_at)
      : progress(std::cerr, {.is_terminal = isatty(2) == 1}),
        metrics(s.out / (name + ".jsonl"), {.resume_at = resume_at}),
        tensorboard(s.out / "tensorboard" / name, resume_at) {}

  void flush() {
    metrics.flush();
    tensorboard.flush();
  }
  // `with`: what the run trains with, beside the first record.
  void operator()(train::step_record const& r, std::int64_t sequences, std::map<std::string, std::string>& with) {
    double const bits = r.loss / std::numbers::ln2;
    metrics.write(r.step, r.epoch,
                  {{"loss", r.loss},
                   {"bits_per_character", bits},
                   {"accuracy", r.accuracy},
                   {"learning_rate", r.lr},
                   {"gradient_norm", r.gradient_norm},
                   {"sequences_per_second", r.samples_per_second},
                   {"bytes_sent", static_cast<double>(r.bytes_sent)}},
                  std::exchange(with, {}));
    tensorboard.write(r.step, "train/bits_per_character", bits);
    tensorboard.write(r.step, "train/learning_rate", r.lr);
    tensorboard.write(r.step, "speed/sequences_per_second", r.samples_per_second);
    tensorboard.write(r.step, "speed/bytes_sent", static_cast<double>(r.bytes_sent));
    progress.update({.step = r.step, .steps = r.total_steps, .loss = r.loss}, sequences);
  }
};

// Trains one model; `sync` is the only thing in which the two runs differ.
template <class Sync, class World>
result train_one(settings const& s, std::string const& name, Sync sync, World& world, bool root,
                 data::text_corpus const& text, data::text_corpus const& held_out, network& trained, trace* recorder) {
  network fresh;
  fresh.initialize(s.seed);
  train::trainer trainer{std::move(fresh), nn::softmax_cross_entropy{}, make_optimizer(s), sync, world};

  auto const checkpoint = s.out / (name + ".safetensors");
  std::int64_t done = 0;
  if (s.resume && fs::exists(checkpoint)) {
    auto const changed = trainer.restore(io::load_state(checkpoint));
    done = trainer.steps();
    if (root) std::cerr << name << ": goes on at step " << done << " of " << s.steps << '\n';
    for (auto const& what : changed)
      if (root) std::cerr << name << ": unlike the saved run: " << what << '\n';
  } else if (root) {
    std::cerr << name << ":\n";
    if (s.resume) std::cerr << "there is no " << checkpoint.string() << " to go on from: begins at step 0\n";
  }

  auto notes = trainer.trained_with();
  std::optional<logs> log;  // opened by the first step: a run that cannot begin leaves the files of the last one alone
  auto const report = trainer.fit(
      text,
      {.batch = s.batch,
       .steps = s.steps,
       .seed = s.seed,
       .log_every = 1,
       .save_every = 100,
       .stop = &examples::interrupted,
       .trace = recorder,
       .on_step =
           [&](train::step_record const& r) {
             if (!log) log.emplace(s, name, done == 0 ? 0 : done + 1);
             (*log)(r, s.batch * s.ranks, notes);
           },
       .on_save =
           [&](io::saved_state& state) {
             io::save_state(checkpoint, state);
             if (log) log->flush();
           },
       .on_give_up = [&](io::saved_state& state) { io::save_state(s.out / (name + ".diverged.safetensors"), state); }});
  if (report.stopped)
    throw stopped{message(name, ": stopped at step ", report.step, " of ", s.steps, ", saved in ", checkpoint.string(),
                          ": go on with --resume")};

  trained = trainer.model().network;
  auto const sums = trainer.evaluate(held_out, s.batch);
  examples::check_learned(sums.mean(), std::log(vocabulary),
                          !report.losses.empty() && report.skipped == static_cast<std::int64_t>(report.losses.size()));
  double const made = std::max<double>(static_cast<double>(report.losses.size()), 1);
  return {.name = name,
          .bits = sums.mean() / std::numbers::ln2,
          .sequences_per_second = static_cast<double>(report.samples) / std::max(report.seconds, 1e-9),
          .bytes_per_step = static_cast<double>(report.traffic.bytes_sent) / made,
          .seconds = report.seconds,
          .history = root ? io::read_metrics(s.out / (name + ".jsonl")) : std::vector<io::metrics_record>{}};
}

// Lets the model write: the last `window` characters in, the distribution of the next one out.
std::string write_passage(network& net, data::text_corpus const& corpus, std::uint64_t seed, std::size_t length) {
  std::vector<std::int32_t> tokens(corpus.tokens().begin(), corpus.tokens().begin() + window);
  random_stream const random{seed, 1000};
  for (std::size_t i = 0; i < length; ++i) {
    data::batch const last{.size = 1, .values = {}, .tokens = std::span(tokens).last(window), .targets = {}};
    // The text may have fewer characters than the network has room for.
    auto const logits =
        net.predict(last, 1).last(vocabulary).first(static_cast<std::size_t>(corpus.vocabulary().size()));
    double const largest = *std::max_element(logits.begin(), logits.end());
    std::vector<double> chances;
    double sum = 0;
    for (float l : logits) chances.push_back(sum += std::exp((l - largest) / 0.7));  // temperature 0.7
    double const at = random.uniform(i) * sum;
    auto const token = std::upper_bound(chances.begin(), chances.end(), at) - chances.begin();
    tokens.push_back(static_cast<std::int32_t>(std::min<std::ptrdiff_t>(token, std::ssize(chances) - 1)));
  }
  return corpus.decode(std::span<std::int32_t const>(tokens).subspan(window));
}

void print_table(std::vector<result> const& results, double bigram) {
  std::printf("\n%-24s", "");
  for (auto const& r : results) std::printf("%14s", r.name.c_str());
  std::printf("\n%-24s", "bits per character");
  for (auto const& r : results) std::printf("%14.3f", r.bits);
  std::printf("   held-out text; a bigram model needs %.3f", bigram);
  std::printf("\n%-24s", "sequences/s");
  for (auto const& r : results) std::printf("%14.1f", r.sequences_per_second);
  std::printf("\n%-24s", "bytes/(rank and step)");
  for (auto const& r : results) std::printf("%14.0f", r.bytes_per_step);
  std::printf("\n%-24s", "seconds");
  for (auto const& r : results) std::printf("%14.1f", r.seconds);
  std::printf("\n");
}

void plot(settings const& s, std::vector<result> const& results) {
  std::vector<io::curve> curves;
  for (auto const& r : results) {
    auto& c = curves.emplace_back(io::curve{r.name, {}});
    double smooth = 0;
    for (auto const& record : r.history)
      for (auto const& m : record.values)
        if (m.name == "bits_per_character") {
          smooth = c.points.empty() ? m.value : 0.9 * smooth + 0.1 * m.value;
          c.points.emplace_back(static_cast<double>(record.step), smooth);
        }
  }
  io::write_gnuplot(s.out / "loss", curves,
                    {.title = "char-RNN on " + s.text.string(), .y = "bits per character (smoothed)"});
  if (auto const drawn = io::run_gnuplot(s.out / "loss"); !drawn.drawn)
    std::cerr << "no plot: " << drawn.reason << '\n';
}

// Of a folder, the files that hold text worth learning; a file is taken as it is.
std::vector<std::string> sources(fs::path const& text) {
  if (!fs::is_directory(text)) return {};
  return {".h", ".c", ".hpp", ".cpp", ".cc", ".py", ".rs", ".txt", ".md"};
}

template <class World>
void run(settings const& s, World& world, int process) {
  bool const root = process == 0;
  make_optimizer(s);  // one that cannot be is refused before anything is read or written
  data::text_corpus const corpus(s.text, {.window = window, .vocabulary = vocabulary, .extensions = sources(s.text)});
  auto const [text, held_out] = corpus.split(0.02);
  double const bigram = data::bigram_bits_per_character(text, held_out);
  std::optional<io::folder_lock> out;  // two runs that write the same files would leave a mixture
  if (root) {
    out.emplace(s.out);
    if (!out->holds())
      std::cerr << s.out.string() << " is on a file system without locks: nothing keeps another run out of it\n";
    std::cerr << "text: " << s.text.string() << ", " << text.tokens().size() << " characters; " << s.ranks << " ranks; "
              << network::parameter_count << " parameters\n";
  }
  trace recorder;
  std::vector<result> results;
  network model;
  auto const by = s.overlap ? comm::progress::thread : comm::progress::automatic;
  sync::all_reduce const dense{.bucket_bytes = 1 << 20, .progress = by};
  results.push_back(train_one(s, "dense", dense, world, root, text, held_out, model, &recorder));
  std::string const passage = root ? write_passage(model, held_out, s.seed, 600) : "";
  sync::all_reduce const sparse{.codec = compress::error_feedback{compress::top_k{.ratio = s.ratio}},
                                .bucket_bytes = 1 << 20,
                                .progress = by};
  results.push_back(train_one(s, "top_k", sparse, world, root, text, held_out, model, &recorder));
  io::write_trace(s.out / (root ? "trace.json" : "trace." + std::to_string(process) + ".json"), recorder);
  if (!root) return;
  plot(s, results);
  print_table(results, bigram);
  std::printf(
      "\nwhat the dense model writes:\n\n%s\n\nin %s: checkpoints, metrics (*.jsonl, tensorboard/), loss.svg, "
      "loss.png, trace.json (for ui.perfetto.dev)\n",
      passage.c_str(), s.out.c_str());
  examples::check_output();
}

// mpirun tells its processes so in their environment.
bool under_mpi() { return std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("PMI_SIZE") || std::getenv("PMIX_RANK"); }

void dispatch(settings& s, bool ranks_given) {
  if (under_mpi()) {
#ifdef CHAR_RNN_MPI
    require(!ranks_given, "--ranks is for threads of one process: under mpirun its -n says how many ranks there are");
    comm::mpi world;
    s.ranks = world.size();
    run(s, world, world.rank());
#else
    throw argument_error("started by mpirun, but built without MPI: install libopenmpi-dev");
#endif
  } else {
    comm::threads world(s.ranks);
    run(s, world, 0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  using examples::number_in;
  settings s;
  CLI::App app{"Trains a character-level language model twice, with dense and with sparse gradients."};
  app.add_option("--text", s.text, "file, or folder of sources, to learn from")->capture_default_str();
  app.add_option("--out", s.out, "folder for what the run leaves")->capture_default_str();
  auto const* ranks = app.add_option("--ranks", s.ranks, "ranks, as threads of this process")
                          ->capture_default_str()
                          ->check(number_in(1, 1024));
  app.add_option("--batch", s.batch, "sequences per rank and step")
      ->capture_default_str()
      ->check(number_in<std::int64_t>(1, 1'000'000));
  app.add_option("--steps", s.steps, "steps of each of the two runs")
      ->capture_default_str()
      ->check(number_in<std::int64_t>(1, 1'000'000'000));
  app.add_option("--seed", s.seed, "of weights, shuffle and passage")
      ->capture_default_str()
      ->check(number_in<std::uint64_t>(0, std::numeric_limits<std::uint64_t>::max()));
  app.add_option("--lr", s.lr, "peak learning rate; 0.004, or --optimizer's own, which then stays")
      ->check(number_in(1e-12f, 1e6f));
  app.add_option("--optimizer", s.optimizer, "rule by name instead of clipped Adam; 'list' shows which there are");
  app.add_option("--set", s.set, "a hyperparameter of the rule, key=value; may be given again")
      ->allow_extra_args(false);
  app.add_option("--ratio", s.ratio, "share of the gradients that the second run sends")
      ->capture_default_str()
      ->check(number_in(1e-6f, 1.f));
  app.add_flag("--resume", s.resume, "go on from the checkpoints in --out");
  app.add_flag("--overlap", s.overlap, "exchange while backward computes, also where ranks have all cores at work");
  if (examples::wants_list(argc, argv)) {
    std::cout << examples::list_optimizers() << std::flush;
    return 0;
  }
  CLI11_PARSE(app, argc, argv);
  examples::wait_for_interruption();
  try {
    dispatch(s, ranks->count() > 0);
  } catch (stopped const& e) {
    std::cerr << '\n' << e.what << '\n';
    return 130;
  } catch (std::exception const& e) {
    std::cerr << "char_rnn: " << e.what() << '\n';
    return 1;
  }
}
