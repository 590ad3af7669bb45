#include "core/batch_product.h"

#include <cassert>

#include "kernels/matmul.h"
#include "kernels/packed_matmul.h"
#include "kernels/quant_matmul.h"

namespace flashelm {

void BatchProduct::SetTokens(std::initializer_list<WeightType> types,
                             const float* x, size_t x_stride, size_t num_cols,
                             size_t num_tokens) {
  x_ = x;
  x_stride_ = x_stride;
  num_cols_ = num_cols;
  num_tokens_ = num_tokens;
  packed_type_.reset();
  is_quantized_ = false;
  for (const WeightType type : types) {
    if (IsQuantized(type)) {
      is_quantized_ = true;
    } else if (!packed_type_ && CanPackTokens(num_cols, num_tokens)) {
      packed_type_ = type;
    }
  }
  if (!is_quantized_ && !packed_type_) return;
  pool_.ParallelFor(num_tokens, 1, [&](size_t begin, size_t end) {
    if (is_quantized_) {
      QuantizeTokens(x, x_stride, num_cols, begin, end, num_tokens,
                     scratch_.quantized);
    }
    if (packed_type_) {
      PackTokens(*packed_type_, x, x_stride, num_cols, begin, end, num_tokens,
                 scratch_.packed);
    }
  });
}

void BatchProduct::Rows(const WeightView& w, size_t num_rows, uint32_t part,
                        float* out, size_t out_stride,
                        std::span<const std::byte> next) const {
  if (IsQuantized(w.type)) {
    assert(is_quantized_);
    QuantMatMul(w, num_rows, num_cols_, scratch_.quantized, num_tokens_,
                scratch_.workspace(part), out, out_stride, next);
  } else if (packed_type_ == w.type) {
    PackedMatMul(w, num_rows, num_cols_, scratch_.packed, num_tokens_, out,
                 out_stride);
  } else {
    MatMul(w, num_rows, num_cols_, x_, x_stride_, num_tokens_, out, out_stride,
           next);
  }
}

void BatchProduct::RowsAt(const std::byte* const* rows, size_t num_rows,
                          float* out, size_t out_stride) const {
  PackedMatMulAt(rows, *packed_type_, num_rows, num_cols_, scratch_.packed,
                 num_tokens_, out, out_stride);
}

void BatchProduct::RowsOfOneToken(const WeightView& w, size_t num_rows,
                                  uint32_t part, float* out, bool is_fetched,
                                  std::span<const std::byte> next) const {
  const size_t most = std::max<size_t>(1, kFirstBytes / w.stride_bytes);
  size_t step = is_fetched ? most : std::max<size_t>(1, most / 16);
  for (size_t r = 0; r < num_rows;) {
    const size_t end = std::min(r + step, num_rows);
    step = std::min(2 * step, most);
    const size_t next_end = std::min(end + step, num_rows);
    Rows(Submatrix(w, r, 0), end - r, part, out + r, 0,
         end < num_rows ? std::span(w.data + end * w.stride_bytes,
                                    (next_end - end) * w.stride_bytes)
                        : next);
    r = end;
  }
}

}  // namespace flashelm
