// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A program that says `using namespace dovetail` keeps the names that programs of this kind have. What it cannot keep
// is a name of the folders' namespaces, which `train::trainer` is to find: it writes `::train`.
// With -DAMBIGUOUS it does not compile: then that has changed, and docs/design.md has to say so.
#include <dovetail/dovetail.hpp>

#include <string>
#include <vector>
using namespace dovetail;

int refused = 0, accepted = 0, epochs = 3, epoch = 0, step = 0, steps = 10, rank = 0, ranks = 1, threads = 1, size = 4;
int batch = 32, samples = 0, labels = 0, targets = 0, inputs = 0, outputs = 0, features = 0, classes = 10, layers = 0;
float loss = 0, rate = 0, lr = 0.1f, accuracy = 0, momentum = 0.9f, gradient = 0, gradients = 0, weight = 0,
      weights = 0;
std::string name = "run", path, file, log_file, device = "cpu";
std::vector<float> state, buffer_of_mine, values, scores, update, result, history;
struct config {
  int batch_size = batch;
  unsigned long seed = 1;
};
config options;

struct dataset {
  std::vector<float> values;
  int size() const { return static_cast<int>(values.size()); }
};
dataset training, test, images, data_set;
int train(int of) { return of + epochs; }
int evaluate(dataset const& d) { return d.size() + batch; }
int init(int seed) { return seed; }
int save(std::string const& to) { return static_cast<int>(to.size()); }
int load(std::string const& from) { return static_cast<int>(from.size()); }
int forward(int x) { return x + layers; }
int backward(int x) { return x - layers; }
int run() { return init(step) + forward(size) + backward(steps) + save(name) + load(path); }

int main() {
  parameter_list list;
  list.add("weight", state, values);
  optim::adamw const opt{.lr = lr};
  auto kept = opt.init(list);
  opt.step(list, kept);
  data::batch const view{};
  loss_sums const sums{};
  int const data = epoch + rank + ranks + threads + samples + labels;  // a local name hides the namespace
#ifdef AMBIGUOUS
  return train(data);
#else
  refused += ::train(data) + run() + evaluate(training) + evaluate(test) + evaluate(images) + evaluate(data_set);
  weights = weight + gradient + gradients + momentum + rate + loss + accuracy + static_cast<float>(sums.count);
  scores = update = result = history = buffer_of_mine;
  file = log_file = path + device;
  accepted = targets + inputs + outputs + features + classes + options.batch_size + static_cast<int>(view.size);
  return refused + accepted;
#endif
}
