// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// Gradient -> bytes: everything that meets the `codec` concept of concepts.hpp.
#include <dovetail/compress/after.hpp>
#include <dovetail/compress/bits.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/cosine_tiles.hpp>
#include <dovetail/compress/count_sketch.hpp>
#include <dovetail/compress/demo.hpp>
#include <dovetail/compress/ef21.hpp>
#include <dovetail/compress/error_feedback.hpp>
#include <dovetail/compress/fetch_sgd.hpp>
#include <dovetail/compress/gram_schmidt.hpp>
#include <dovetail/compress/half.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/powersgd.hpp>
#include <dovetail/compress/sign.hpp>
#include <dovetail/compress/sketch.hpp>
#include <dovetail/compress/top_k.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/compress/without_feedback.hpp>
