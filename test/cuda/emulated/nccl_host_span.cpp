// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <span>
#include <vector>

#include <dovetail/comm/nccl.hpp>

void give_it_a_host_array(dovetail::comm::nccl& comm) {
  std::vector<float> v(10);
  comm.all_reduce(std::span(v));
}
