#include "core/compute_rate.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "core/base/memory.h"
#include "core/base/process_memory.h"
#include "core/base/thread_pool.h"
#include "kernels/matmul.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

// Large against the last-level cache that one process gets on most machines.
constexpr uint64_t kBufferBytes = uint64_t{256} << 20;
// Rows in one call, as a block of an FFN has them: its fork and join count.
constexpr uint64_t kRowsPerCall = 512;
constexpr uint64_t kMinBytesPerThread = uint64_t{128} << 10;
// More tokens than this are computed in groups anyway.
constexpr uint32_t kMaxTokens = 64;
// Small numbers in both encodings: 0.0115.
constexpr int kWeightByte = 0x3c;

class Product {
 public:
  Product(std::span<const std::byte> weights, WeightType type, size_t num_cols,
          ThreadPool& pool)
      : weights_(weights),
        type_(type),
        num_cols_(num_cols),
        num_rows_(weights.size() / RowBytes(type, num_cols)),
        pool_(pool),
        x_(num_cols * kMaxTokens, 1.0f),
        out_(kRowsPerCall * kMaxTokens) {}

  // Bytes of weights times tokens, per second.
  double Measure(uint32_t num_tokens, std::chrono::nanoseconds duration) {
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
    } while (elapsed < duration);
    return static_cast<double>(num_bytes * num_tokens) /
           std::chrono::duration<double>(elapsed).count();
  }

 private:
  uint64_t Multiply(uint64_t first_row, uint32_t num_tokens) {
    const uint64_t stride = RowBytes(type_, num_cols_);
    const uint64_t count = std::min(kRowsPerCall, num_rows_ - first_row);
    const size_t grain =
        std::max<uint64_t>(16, kMinBytesPerThread / (stride * num_tokens));
    pool_.ParallelFor(count, grain, [&](size_t begin, size_t end) {
      MatMul(ViewOfRows(weights_.data() + (first_row + begin) * stride, stride,
                        type_, num_cols_),
             end - begin, num_cols_, x_.data(), num_cols_, num_tokens,
             out_.data() + begin, kRowsPerCall);
    });
    return count * stride;
  }

  const std::span<const std::byte> weights_;
  const WeightType type_;
  const size_t num_cols_;
  const uint64_t num_rows_;
  ThreadPool& pool_;
  const std::vector<float> x_;
  std::vector<float> out_;
};

}  // namespace

Result<ComputeRate> MeasureComputeRate(const ModelFile& model,
                                       const ComputeRateOptions& options) {
  const WeightType type = WeightTypeOf(model.weights().embedding.encoding);
  const size_t num_cols = model.config().model_dim;
  uint64_t num_bytes =
      std::min(kBufferBytes, model.weight_file().weight_bytes());
  if (const auto available = AvailableMemoryBytes()) {
    num_bytes = std::min(num_bytes, *available / 4);
  }
  num_bytes = std::max(num_bytes, RowBytes(type, num_cols));
  MemoryBudget unlimited(UINT64_MAX);
  FLASHELM_ASSIGN_OR_RETURN(
      const AlignedBuffer buffer,
      AlignedBuffer::Create(num_bytes, unlimited, "weights to multiply"));
  // Pages that were never written are all the same one.
  std::memset(buffer.data(), kWeightByte, buffer.size());
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadPool> pool,
                            ThreadPool::Create(options.num_threads));
  Product product({buffer.data(), num_bytes}, type, num_cols, *pool);
  ComputeRate rate;
  rate.buffer_bytes = num_bytes;
  rate.bytes_per_second = product.Measure(1, options.duration);
  rate.batch_bytes_per_second = product.Measure(
      std::clamp(options.batch, 1u, kMaxTokens), options.duration);
  return rate;
}

}  // namespace flashelm
