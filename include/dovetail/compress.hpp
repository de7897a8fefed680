// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// Gradient -> bytes: everything that meets the `codec` concept of concepts.hpp.
#include <dovetail/compress/adacomp.hpp>
#include <dovetail/compress/after.hpp>
#include <dovetail/compress/bits.hpp>
#include <dovetail/compress/bucket.hpp>
#include <dovetail/compress/chunked_top_k.hpp>
#include <dovetail/compress/context.hpp>
#include <dovetail/compress/dgc.hpp>
#include <dovetail/compress/ef21.hpp>
#include <dovetail/compress/error_feedback.hpp>
#include <dovetail/compress/half.hpp>
#include <dovetail/compress/identity.hpp>
#include <dovetail/compress/indices.hpp>
#include <dovetail/compress/packed_top_k.hpp>
#include <dovetail/compress/random_k.hpp>
#include <dovetail/compress/sampled_top_k.hpp>
#include <dovetail/compress/sign.hpp>
#include <dovetail/compress/threshold.hpp>
#include <dovetail/compress/top_k.hpp>
#include <dovetail/compress/traits.hpp>
#include <dovetail/compress/wangni.hpp>
#include <dovetail/compress/without_feedback.hpp>
