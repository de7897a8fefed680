// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_compress_pareto [--seeds N] [--steps N] [--out FOLDER]: what each codec sends and what it costs in loss, on the
// small network of test/sync/small_network.hpp, four ranks, means over seeds, as a table of Markdown; which codecs no
// other one beats in both; and a plot of all, those in color (FOLDER/compress_pareto.svg, by gnuplot where that is
// installed).
#include <dovetail/compress.hpp>
#include <dovetail/sync.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "../test/sync/small_network.hpp"
#include "peer_process.hpp"

using namespace dovetail;
using compress::error_feedback;

namespace {

struct point {
  std::string name{};
  double bytes = 0, loss = 0, low = 1e9, high = -1e9;
};
std::vector<point> points;
int seeds = 3;
std::int64_t steps = 400;

template <class Codec>
void add(std::string name, Codec const& codec, optim::sgd const& opt = {.lr = 0.2f}) {
  point p{std::move(name)};
  for (int s = 1; s <= seeds; ++s) {
    auto const t = test::train<test::small_network>(sync::all_reduce{codec}, opt, static_cast<std::uint64_t>(s), steps);
    p.loss += t.loss / seeds;
    p.low = std::min(p.low, t.loss);
    p.high = std::max(p.high, t.loss);
    p.bytes = static_cast<double>(t.bytes_sent) / static_cast<double>(steps);
  }
  points.push_back(std::move(p));
}

}  // namespace

int main(int argc, char** argv) {
  std::string out = ".";
  for (int i = 1; i + 1 < argc; i += 2) {
    std::string const a = argv[i];
    if (a == "--seeds") seeds = std::max(1, std::atoi(argv[i + 1]));
    if (a == "--steps") steps = std::max(10, std::atoi(argv[i + 1]));
    if (a == "--out") out = argv[i + 1];
  }
  add("dense", compress::identity{});
  add("bf16", compress::bf16{});
  add("stochastic bf16", compress::stochastic_bf16{});
  add("fp8_e4m3", compress::fp8_e4m3{});
  add("int8", compress::int8{});
  add("dynamic8", compress::dynamic8{});
  add("EF int4", error_feedback{compress::int4{}});
  add("QSGD 4 bits", compress::qsgd{.levels = 7, .norm = compress::norm::max});
  add("QSGD 2 bits", compress::qsgd{.levels = 1, .block = 64, .norm = compress::norm::max});
  add("natural", compress::natural{});
  add("natural dithering", compress::natural_dithering{});
  add("TernGrad", compress::terngrad{.block = 64, .packing = compress::packing::base3});
  add("EF sign", error_feedback{compress::sign{}});
  add("EF 1-bit", error_feedback{compress::one_bit{}});
  add("EF 3LC", error_feedback{compress::three_lc{}});
  add("EF 3LC 1.75", error_feedback{compress::three_lc{.sparsity = 1.75f}});
  add("majority vote", compress::majority_vote{.momentum = 0.9f}, {.lr = 1e-3f});
  add("EF top-k 10%", error_feedback{compress::top_k{.ratio = 0.1f}});
  add("EF top-k 1%", error_feedback{compress::top_k{.ratio = 0.01f}});
  add("EF top-k 0.3%", error_feedback{compress::top_k{.ratio = 0.003f}});
  add("EF packed top-k 1%", error_feedback{compress::packed_top_k{.ratio = 0.01f}});
  add("EF random-k 10%", error_feedback{compress::random_k{.ratio = 0.1f}});
  add("unbiased sparse 10%", compress::wangni{.ratio = 0.1f});
  add("PowerSGD 1", compress::powersgd{.rank = 1});
  add("PowerSGD 4", compress::powersgd{.rank = 4, .min_rate = 1});
  add("ATOMO 1", compress::atomo{.rank = 1, .min_rate = 1});
  add("ATOMO 3", compress::atomo{.min_rate = 1});
  add("DGC 1%", compress::dgc{.ratio = 0.01f, .momentum = 0.5f}, {.lr = 0.1f});
  add("EF21-SGDM top-k 5%", compress::ef21{compress::top_k{.ratio = 0.05f}, 0.8f}, {.lr = 0.1f});

  std::sort(points.begin(), points.end(), [](point const& a, point const& b) { return a.bytes > b.bytes; });
  auto const beaten = [](point const& p) {
    return std::any_of(points.begin(), points.end(), [&](point const& q) {
      return q.bytes <= p.bytes && q.loss <= p.loss && (q.bytes < p.bytes || q.loss < p.loss);
    });
  };
  std::printf("| codec | bytes a step | loss | of the seeds | nothing is better in both |\n|---|---|---|---|---|\n");
  std::filesystem::create_directories(out);
  std::ofstream data(out + "/compress_pareto.txt");
  data << "# bytes-a-step loss lowest highest name beaten\n";
  for (auto const& p : points) {
    std::printf("| %s | %.0f | %.4f | %.4f to %.4f | %s |\n", p.name.c_str(), p.bytes, p.loss, p.low, p.high,
                beaten(p) ? "" : "yes");
    data << p.bytes << ' ' << p.loss << ' ' << p.low << ' ' << p.high << " \"" << p.name << "\" " << beaten(p) << '\n';
  }
  data.close();
  double const top =
      std::max_element(points.begin(), points.end(), [](auto& a, auto& b) { return a.high < b.high; })->high;
  // Those that send nearly as much have one label, above the highest of them.
  std::ofstream labels(out + "/compress_pareto_labels.txt");
  for (std::size_t i = 0; i < points.size();) {
    point group = points[i];
    while (++i < points.size() && points[i].bytes > group.bytes / 1.08) {
      group.name += ", " + points[i].name;
      group.high = std::max(group.high, points[i].high);
    }
    labels << group.bytes << ' ' << group.high << " \"" << group.name << "\"\n";
  }
  labels.close();
  std::ofstream(out + "/compress_pareto.gp")
      << "set terminal svg noenhanced size 900,600 font ',11'\nset output '" << out
      << "/compress_pareto.svg'\nset logscale x\n"
      << "set xlabel 'bytes that a rank sends in a step'\nset ylabel 'training loss at the end'\nset grid\nunset key\n"
      << "set title 'Loss against bytes: 2,632 weights, 4 ranks, " << steps << " steps, " << seeds << " seeds'\n"
      << "set xrange [50:20000]\nset yrange [*:" << top + 0.08 << "]\n"
      << "plot '" << out << "/compress_pareto.txt' using 1:2:3:4 with yerrorbars pt 7 ps 0.5 lc rgb '#999999', "
      << "'' using 1:($6 > 0 ? 1/0 : $2) with points pt 7 lc rgb '#0060a0', '" << out
      << "/compress_pareto_labels.txt' using 1:2:3 with labels rotate by 90 left offset 0,0.4 font ',9'\n";
  bench::peer_process gnuplot({"gnuplot", out + "/compress_pareto.gp"});
  if (!gnuplot.end()) std::printf("no plot: gnuplot is not installed, or failed\n");
  return 0;
}
