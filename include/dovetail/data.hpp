// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// All of data/: what is trained on. Needs nothing but the core.
#include <dovetail/data/dataset.hpp>
#include <dovetail/data/epoch_order.hpp>
#include <dovetail/data/idx_images.hpp>
#include <dovetail/data/loader.hpp>
#include <dovetail/data/memory.hpp>
#include <dovetail/data/text_corpus.hpp>
#include <dovetail/data/vocabulary.hpp>
