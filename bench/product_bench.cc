#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "bench/kernel_bench.h"
#include "core/base/checked_math.h"
#include "core/base/thread_pool.h"
#include "kernels/activation.h"
#include "kernels/bundle_steps.h"
#include "kernels/matmul.h"
#include "kernels/packed_matmul.h"
#include "kernels/prefetch.h"
#include "kernels/quant_matmul.h"
#include "kernels/quant_sum.h"
#include "kernels/weight_view.h"

namespace flashelm {
namespace {

// As in core/: where parts of a loop begin.
constexpr size_t kGrain = 32;

// Rows of a layer's matrix, `parts` of which lie side by side in a record: 3
// where they are those of a bundle.
struct Matrix {
  std::string name;
  size_t num_rows;
  size_t num_cols;
  size_t parts = 1;

  uint64_t stride_bytes(WeightType type) const {
    return parts * RowBytes(type, num_cols);
  }
  // As many rows as the memory has room for, all of them if it is large enough.
  size_t RowsIn(WeightType type, uint64_t num_bytes) const {
    return std::min<size_t>(num_rows, num_bytes / stride_bytes(type));
  }
};

// One part of records that begin at `records`.
WeightView PartOf(const std::byte* records, const Matrix& matrix,
                  WeightType type, size_t part) {
  return ViewOfRows(records + part * RowBytes(type, matrix.num_cols),
                    matrix.stride_bytes(type), type, matrix.num_cols);
}

// A batch in the form that the kernels of an encoding take.
class Tokens {
 public:
  Tokens(WeightType type, size_t num_cols, size_t num_tokens)
      : num_cols_(num_cols),
        num_tokens_(num_tokens),
        is_packed_(!IsQuantized(type) && CanPackTokens(num_cols, num_tokens)),
        x_(num_cols * num_tokens * sizeof(float)),
        packed_(is_packed_ ? num_cols * num_tokens * sizeof(float) : 0),
        quantized_(QuantizedTokensBytes(num_cols, num_tokens)),
        workspace_bytes_(RoundUp(std::max(QuantMatMulWorkspaceBytes(num_cols),
                                          QuantSumWorkspaceBytes()),
                                 64)),
        workspaces_(workspace_bytes_ * TheSetting().pool->num_threads()) {
    FillRandom(x_.floats(), num_cols * num_tokens);
    if (IsQuantized(type)) {
      QuantizeTokens(x_.floats(), num_cols, num_cols, 0, num_tokens, num_tokens,
                     quantized_.bytes());
    }
    if (is_packed_) {
      PackTokens(type, x_.floats(), num_cols, num_cols, 0, num_tokens,
                 num_tokens, packed_.floats());
    }
  }

  void Multiply(const WeightView& w, size_t num_rows, uint32_t thread,
                float* out, size_t out_stride,
                std::span<const std::byte> next = {}) const {
    if (IsQuantized(w.type)) {
      QuantMatMul(w, num_rows, num_cols_, quantized_.bytes(), num_tokens_,
                  workspace(thread), out, out_stride, next);
    } else if (is_packed_) {
      PackedMatMul(w, num_rows, num_cols_, packed_.floats(), num_tokens_, out,
                   out_stride);
    } else {
      MatMul(w, num_rows, num_cols_, x_.floats(), num_cols_, num_tokens_, out,
             out_stride, next);
    }
  }

  // The columns of w, which may be fewer than a token's, to `sums`.
  void AddDown(const WeightView& w, size_t num_rows, size_t num_cols,
               const float* factors, size_t factors_stride, uint32_t thread,
               float* sums, std::span<const std::byte> next = {}) const {
    if (IsQuantized(w.type)) {
      AddQuantRows(w, num_rows, num_cols, factors, factors_stride, num_tokens_,
                   workspace(thread), sums, num_cols_, next);
    } else {
      AddScaledRows(w, num_rows, num_cols, factors, factors_stride, num_tokens_,
                    sums, num_cols_, next);
    }
  }

 private:
  std::byte* workspace(uint32_t thread) const {
    return workspaces_.bytes() + thread * workspace_bytes_;
  }

  size_t num_cols_;
  size_t num_tokens_;
  bool is_packed_;
  Buffer x_;
  Buffer packed_;
  Buffer quantized_;
  size_t workspace_bytes_;
  Buffer workspaces_;
};

// Products of rows: of a whole matrix, or, with bundles, of gate and up.
void RunRows(benchmark::State& state, const Matrix& matrix, WeightType type,
             size_t num_tokens) {
  Setting& setting = TheSetting();
  const size_t num_rows = matrix.RowsIn(type, setting.memory.size());
  const size_t num_parts = std::max<size_t>(1, matrix.parts - 1);
  const Tokens tokens(type, matrix.num_cols, num_tokens);
  const Buffer out(num_parts * num_rows * num_tokens * sizeof(float));
  // What a thread does to one part before the other: of bundles little, so
  // that they pass through its caches once.
  const size_t step = num_parts == 1    ? num_rows
                      : num_tokens == 1 ? BundleStepsOf(type).bundles
                                        : kTileNeurons / 2;
  const uint64_t stride = matrix.stride_bytes(type);
  for (auto _ : state) {
    const std::byte* records = setting.Take(num_rows * stride);
    setting.pool->ParallelFor(
        num_rows, kGrain, [&](size_t begin, size_t end, uint32_t thread) {
          for (size_t r = begin; r < end; r += step) {
            for (size_t p = 0; p < num_parts; ++p) {
              tokens.Multiply(PartOf(records + r * stride, matrix, type, p),
                              std::min(step, end - r), thread,
                              out.floats() + p * num_rows * num_tokens + r,
                              num_rows);
            }
          }
        });
  }
  const uint64_t rows = num_parts * num_rows;
  SetBytes(state, rows * RowBytes(type, matrix.num_cols));
  SetMacs(state, static_cast<double>(rows * matrix.num_cols * num_tokens));
}

// The down columns of bundles. Threads share neurons where there is one token,
// each with a sum of its own, else the columns of a tile of neurons.
void RunDown(benchmark::State& state, const Matrix& matrix, WeightType type,
             size_t num_tokens) {
  Setting& setting = TheSetting();
  const size_t num_rows = matrix.RowsIn(type, setting.memory.size());
  const size_t cols = matrix.num_cols;
  const Buffer scale(kTileNeurons * num_tokens * sizeof(float));
  FillRandom(scale.floats(), kTileNeurons * num_tokens);
  const Tokens tokens(type, cols, num_tokens);
  const size_t step = BundleStepsOf(type).bundles;
  const size_t num_sums =
      num_tokens == 1 ? setting.pool->num_threads() : num_tokens;
  const Buffer sums(num_sums * cols * sizeof(float));
  const uint64_t stride = matrix.stride_bytes(type);
  for (auto _ : state) {
    const std::byte* records = setting.Take(num_rows * stride);
    const WeightView down = PartOf(records, matrix, type, matrix.parts - 1);
    if (num_tokens == 1) {
      setting.pool->ParallelFor(
          num_rows, kGrain, [&](size_t begin, size_t end, uint32_t thread) {
            for (size_t r = begin; r < end; r += step) {
              tokens.AddDown(Submatrix(down, r, 0), std::min(step, end - r),
                             cols, scale.floats(), 0, thread,
                             sums.floats() + thread * cols);
            }
          });
    } else {
      for (size_t r = 0; r < num_rows; r += kTileNeurons) {
        const size_t count = std::min(kTileNeurons, num_rows - r);
        setting.pool->ParallelFor(
            cols, kGrain, [&](size_t begin, size_t end, uint32_t thread) {
              tokens.AddDown(Submatrix(down, r, begin), count, end - begin,
                             scale.floats(), kTileNeurons, thread,
                             sums.floats() + begin);
            });
      }
    }
  }
  SetBytes(state, num_rows * RowBytes(type, cols));
  SetMacs(state, static_cast<double>(num_rows * cols * num_tokens));
}

// The whole FFN of one token: a thread goes through its bundles a few at a
// time, from gate to down.
void RunFfn(benchmark::State& state, const Matrix& matrix, WeightType type,
            size_t /*num_tokens*/) {
  Setting& setting = TheSetting();
  const size_t num_rows = matrix.RowsIn(type, setting.memory.size());
  const size_t cols = matrix.num_cols;
  const Tokens tokens(type, cols, 1);
  const BundleSteps steps = BundleStepsOf(type);
  const Buffer sums(setting.pool->num_threads() * cols * sizeof(float));
  const uint64_t stride = matrix.stride_bytes(type);
  for (auto _ : state) {
    const std::byte* records = setting.Take(num_rows * stride);
    setting.pool->ParallelFor(
        num_rows, kGrain, [&](size_t begin, size_t end, uint32_t thread) {
          // As in core/dense_ffn.cc.
          float gate[kMaxBundlesOfStep], up[kMaxBundlesOfStep];
          const uint64_t third = stride / 3;
          FetchCursor ahead({records + begin * stride, (end - begin) * stride},
                            BundleBytesAhead(steps, third, 3));
          for (size_t r = begin; r < end; r += steps.bundles) {
            const std::byte* at = records + r * stride;
            const size_t count = std::min(steps.bundles, end - r);
            for (size_t i = 0; i < count; i += steps.gates) {
              const size_t rows = std::min(steps.gates, count - i);
              const auto multiply = [&](size_t part, float* out) {
                tokens.Multiply(PartOf(at + i * stride, matrix, type, part),
                                rows, thread, out + i, 0,
                                ahead.Advance(rows * third));
              };
              multiply(0, gate);
              multiply(1, up);
            }
            GluActivate(Activation::kSilu, gate, up, count, gate);
            tokens.AddDown(PartOf(at, matrix, type, 2), count, cols, gate, 0,
                           thread, sums.floats() + thread * cols,
                           ahead.Advance(count * third));
          }
        });
  }
  SetBytes(state, num_rows * stride);
  SetMacs(state, static_cast<double>(3 * num_rows * cols));
}

}  // namespace

void RegisterProducts(const char* kind, size_t num_tokens) {
  struct Layer {
    int index;
    size_t num_heads;
    size_t ffn_dim;
  };
  constexpr Layer kLayers[] = {{0, 12, 1536}, {18, 20, 7168}, {35, 24, 12288}};
  constexpr std::pair<const char*, WeightType> kTypes[] = {
      {"f32", WeightType::kF32},
      {"bf16", WeightType::kBf16},
      {"q8", WeightType::kQ8},
      {"q4", WeightType::kQ4}};
  for (const auto& [type_name, type] : kTypes) {
    const std::string prefix =
        std::string("BM_") + kind + "/" + type_name + "/";
    const auto add = [&](const Matrix& matrix, auto run) {
      benchmark::RegisterBenchmark((prefix + matrix.name).c_str(), run, matrix,
                                   type, num_tokens)
          ->UseRealTime();
    };
    for (const Layer& layer : kLayers) {
      const std::string suffix = "/layer:" + std::to_string(layer.index);
      const size_t query_dim = layer.num_heads * kHeadDim;
      add({"qkv" + suffix, query_dim + query_dim / 2, kModelDim}, RunRows);
      add({"attention_out" + suffix, kModelDim, query_dim}, RunRows);
      add({"gate_up" + suffix, layer.ffn_dim, kModelDim, 3}, RunRows);
      add({"down" + suffix, layer.ffn_dim, kModelDim, 3}, RunDown);
      if (num_tokens > 1) continue;
      add({"ffn" + suffix, layer.ffn_dim, kModelDim, 3}, RunFfn);
    }
    add({"head", 32000, kModelDim}, RunRows);
  }
}

}  // namespace flashelm
