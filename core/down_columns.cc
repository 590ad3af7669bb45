#include "core/down_columns.h"

#include <algorithm>
#include <cstring>

#include "kernels/matmul.h"
#include "kernels/quant_sum.h"

namespace flashelm {

void AddDownColumns(const WeightView& w, size_t num_rows, size_t num_cols,
                    const float* factors, size_t factors_stride,
                    size_t num_tokens, std::byte* workspace, float* sum,
                    size_t sum_stride, std::span<const std::byte> next) {
  if (IsQuantized(w.type)) {
    AddQuantRows(w, num_rows, num_cols, factors, factors_stride, num_tokens,
                 workspace, sum, sum_stride, next);
  } else {
    AddScaledRows(w, num_rows, num_cols, factors, factors_stride, num_tokens,
                  sum, sum_stride, next);
  }
}

void DownColumns::Add(const Piece& piece, size_t begin, size_t end,
                      uint32_t part, const float* factors, size_t num_tokens,
                      float* sum) const {
  const uint32_t tile = FfnTile(num_tokens);
  const auto add = [&](const WeightView& w, uint32_t first, uint32_t last) {
    AddDownColumns(Submatrix(w, 0, begin), last - first, end - begin,
                   factors + first % tile, tile, num_tokens,
                   scratch_.workspace(part), sum, model_dim_);
  };
  if (!IsQuantized(piece.columns.type)) {
    add(piece.columns, piece.first, piece.last);
    return;
  }
  constexpr uint32_t kBlock = kQuantSumRows;
  uint32_t neuron = piece.first;
  const auto rows = [&] {
    return Submatrix(piece.columns, neuron - piece.first, 0);
  };
  if (const uint32_t in_block = neuron % kBlock; in_block > 0) {
    const uint32_t block = neuron - in_block;
    const uint32_t next = std::min(block + kBlock, piece.last);
    Keep(rows(), next - neuron, in_block, begin, end);
    neuron = next;
    const bool is_whole =
        next == block + kBlock || (next == piece.last && piece.ends_range);
    if (is_whole) {
      add(ViewOfRows(scratch_.kept_rows,
                     RowBytes(piece.columns.type, model_dim_),
                     piece.columns.type, model_dim_),
          block, next);
    }
  }
  if (neuron == piece.last) return;
  const uint32_t last_whole =
      piece.ends_range ? piece.last : piece.last - piece.last % kBlock;
  if (neuron < last_whole) {
    add(rows(), neuron, last_whole);
    neuron = last_whole;
  }
  if (neuron < piece.last) Keep(rows(), piece.last - neuron, 0, begin, end);
}

// Copies columns [begin, end) of rows to where row `in_block` of a block lies.
void DownColumns::Keep(const WeightView& rows, size_t num_rows, size_t in_block,
                       size_t begin, size_t end) const {
  const WeightType type = rows.type;
  const WeightView from = Submatrix(rows, 0, begin);
  const size_t row_bytes = RowBytes(type, model_dim_);
  for (size_t i = 0; i < num_rows; ++i) {
    std::byte* to = scratch_.kept_rows + (in_block + i) * row_bytes;
    std::memcpy(to + ElementsBytes(type, begin),
                from.data + i * from.stride_bytes,
                ElementsBytes(type, end - begin));
    std::memcpy(to + ElementsBytes(type, model_dim_) + ScalesBytes(type, begin),
                from.scales + i * from.stride_bytes,
                ScalesBytes(type, end - begin));
  }
}

}  // namespace flashelm
