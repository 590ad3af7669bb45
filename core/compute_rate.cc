#include "core/compute_rate.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/checked_math.h"
#include "core/base/memory.h"
#include "core/base/process_memory.h"
#include "core/base/thread.h"
#include "core/base/thread_pool.h"
#include "core/base/types.h"
#include "core/batch_product.h"
#include "kernels/matmul.h"
#include "kernels/quant_matmul.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

// Large against the last-level cache that one process gets on most machines.
constexpr uint64_t kBufferBytes = uint64_t{256} << 20;
// Rows in one call, as a block of an FFN has them: its fork and join count.
constexpr uint64_t kRowsPerCall = 512;
// More tokens than this are computed in groups anyway.
constexpr uint32_t kMaxTokens = 64;
// Small numbers in both encodings: 0.0115.
constexpr int kWeightByte = 0x3c;

// The buffer, the threads and what kernels take of one encoding.
class Product {
 public:
  Product(std::span<const std::byte> weights, ThreadPool& pool,
          MemoryBudget& budget)
      : weights_(weights),
        pool_(pool),
        budget_(budget),
        out_(kRowsPerCall * kMaxTokens) {}

  Status SetType(WeightType type, size_t num_cols) {
    type_ = type;
    num_cols_ = num_cols;
    num_rows_ = weights_.size() / RowBytes(type, num_cols);
    x_.assign(num_cols * kMaxTokens, 1.0f);
    if (!IsQuantized(type)) return OkStatus();
    FLASHELM_ASSIGN_OR_RETURN(
        tokens_,
        AlignedBuffer::Create(QuantizedTokensBytes(num_cols, kMaxTokens),
                              budget_, "tokens to multiply with"));
    workspace_bytes_ =
        RoundUp(QuantMatMulWorkspaceBytes(num_cols), kIoAlignment);
    FLASHELM_ASSIGN_OR_RETURN(
        workspaces_,
        AlignedBuffer::Create(workspace_bytes_ * pool_.num_threads(), budget_,
                              "room to multiply in"));
    return OkStatus();
  }

  // Bytes of weights times tokens, per second.
  double Measure(uint32_t num_tokens, std::chrono::nanoseconds duration) {
    return Measure(num_tokens, [duration](Clock::duration elapsed) {
      return elapsed >= duration;
    });
  }
  // The same until is_done(the time that went by).
  double Measure(uint32_t num_tokens,
                 const std::function<bool(Clock::duration)>& is_done) {
    if (IsQuantized(type_)) {
      QuantizeTokens(x_.data(), num_cols_, num_cols_, 0, num_tokens, num_tokens,
                     tokens_.data());
    }
    // Once to wake the threads and the clock of the processor.
    Multiply(0, num_tokens);
    uint64_t row = 0;
    uint64_t num_bytes = 0;
    const auto begin = Clock::now();
    auto elapsed = Clock::duration::zero();
    do {
      num_bytes += Multiply(row, num_tokens);
      row += kRowsPerCall;
      if (row >= num_rows_) row = 0;
      elapsed = Clock::now() - begin;
    } while (!is_done(elapsed));
    return static_cast<double>(num_bytes * num_tokens) /
           std::chrono::duration<double>(elapsed).count();
  }

 private:
  uint64_t Multiply(uint64_t first_row, uint32_t num_tokens) {
    const uint64_t stride = RowBytes(type_, num_cols_);
    const uint64_t count = std::min(kRowsPerCall, num_rows_ - first_row);
    pool_.ParallelFor(
        count, GrainFor(stride, num_tokens),
        [&](size_t begin, size_t end, uint32_t part) {
          const WeightView rows =
              ViewOfRows(weights_.data() + (first_row + begin) * stride, stride,
                         type_, num_cols_);
          float* out = out_.data() + begin;
          if (IsQuantized(type_)) {
            QuantMatMul(rows, end - begin, num_cols_, tokens_.data(),
                        num_tokens,
                        workspaces_.data() + part * workspace_bytes_, out,
                        kRowsPerCall);
          } else {
            MatMul(rows, end - begin, num_cols_, x_.data(), num_cols_,
                   num_tokens, out, kRowsPerCall);
          }
        });
    return count * stride;
  }

  const std::span<const std::byte> weights_;
  ThreadPool& pool_;
  MemoryBudget& budget_;
  WeightType type_ = WeightType::kF32;
  size_t num_cols_ = 0;
  uint64_t num_rows_ = 0;
  std::vector<float> x_;
  std::vector<float> out_;
  AlignedBuffer tokens_;  // Where weights are quantized.
  AlignedBuffer workspaces_;
  uint64_t workspace_bytes_ = 0;  // Of a thread.
};

// Bytes of the model's matrices in each encoding.
std::map<WeightType, uint64_t> BytesByType(const ModelFile& model) {
  std::map<WeightType, uint64_t> bytes;
  for (const Segment& segment : model.weight_file().segments()) {
    if (segment.kind == SegmentKind::kNorms ||
        segment.kind == SegmentKind::kFinalNorm ||
        segment.kind == SegmentKind::kPredictor) {
      continue;
    }
    for (const Part& part : segment.parts) {
      bytes[WeightTypeOf(part.encoding)] +=
          segment.num_records * part.num_bytes();
    }
  }
  return bytes;
}

// What products of a model are measured with.
struct Bench {
  std::unique_ptr<MemoryBudget> unlimited;  // Goes last: the others charge it.
  AlignedBuffer buffer;
  uint64_t num_bytes = 0;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Product> product;
};

Result<Bench> MakeBench(const ModelFile& model,
                        const ComputeRateOptions& options) {
  Bench bench;
  bench.num_bytes = std::min(kBufferBytes, model.weight_file().weight_bytes());
  if (const auto available = AvailableMemoryBytes()) {
    bench.num_bytes = std::min(bench.num_bytes, *available / 4);
  }
  // A row of any encoding.
  bench.num_bytes =
      std::max(bench.num_bytes, model.config().model_dim * sizeof(float));
  bench.unlimited = std::make_unique<MemoryBudget>(UINT64_MAX);
  FLASHELM_ASSIGN_OR_RETURN(
      bench.buffer, AlignedBuffer::Create(bench.num_bytes, *bench.unlimited,
                                          "weights to multiply"));
  // Pages that were never written are all the same one.
  std::memset(bench.buffer.data(), kWeightByte, bench.buffer.size());
  FLASHELM_ASSIGN_OR_RETURN(bench.pool,
                            ThreadPool::Create(options.num_threads));
  bench.product = std::make_unique<Product>(
      std::span<const std::byte>(bench.buffer.data(), bench.num_bytes),
      *bench.pool, *bench.unlimited);
  return bench;
}

WeightType MainType(const ModelFile& model) {
  const auto bytes = BytesByType(model);
  return std::ranges::max_element(
             bytes, {}, [](const auto& entry) { return entry.second; })
      ->first;
}

}  // namespace

Result<ComputeRate> MeasureComputeRate(const ModelFile& model,
                                       const ComputeRateOptions& options) {
  FLASHELM_ASSIGN_OR_RETURN(Bench bench, MakeBench(model, options));
  const size_t num_cols = model.config().model_dim;
  double num_bytes = 0;
  double seconds = 0;
  double batch_seconds = 0;
  for (const auto& [type, type_bytes] : BytesByType(model)) {
    FLASHELM_RETURN_IF_ERROR(bench.product->SetType(type, num_cols));
    const auto bytes = static_cast<double>(type_bytes);
    num_bytes += bytes;
    seconds += bytes / bench.product->Measure(1, options.duration);
    batch_seconds += bytes / bench.product->Measure(
                                 std::clamp(options.batch, 1u, kMaxTokens),
                                 options.duration);
  }
  ComputeRate rate;
  rate.buffer_bytes = bench.num_bytes;
  rate.bytes_per_second = num_bytes / seconds;
  rate.batch_bytes_per_second = num_bytes / batch_seconds;
  return rate;
}

Result<double> MeasureComputeSlowdown(const ModelFile& model,
                                      const ComputeRateOptions& options,
                                      const std::function<Status()>& action) {
  FLASHELM_ASSIGN_OR_RETURN(Bench bench, MakeBench(model, options));
  Product& product = *bench.product;
  FLASHELM_RETURN_IF_ERROR(
      product.SetType(MainType(model), model.config().model_dim));
  const double alone = product.Measure(1, options.duration);
  std::atomic<bool> is_done = false;
  double during = 0;
  Status status;
  {
    FLASHELM_ASSIGN_OR_RETURN(
        const Thread thread, Thread::Start([&] {
          during = product.Measure(
              1, [&is_done](Clock::duration) { return is_done.load(); });
        }));
    status = action();
    is_done = true;
  }
  FLASHELM_RETURN_IF_ERROR(status);
  return alone / during;
}

}  // namespace flashelm
