// The last product of an FFN, the sum of its neurons' down columns, for neurons
// that arrive in runs which begin and end anywhere.
#ifndef FLASHELM_CORE_DOWN_COLUMNS_H_
#define FLASHELM_CORE_DOWN_COLUMNS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/scratch.h"
#include "kernels/weight_view.h"

namespace flashelm {

// sum[t] += factors[t][i] * row i of w, for all rows of a range of neurons, or
// for whole blocks of them (kQuantSumRows): encodings differ in the kernel.
//   factors    [num_tokens, num_rows]  token t begins at factors + t * stride
//   workspace  of the calling thread (Scratch::workspace())
//   sum        [num_tokens, num_cols]  likewise
//   next       as BatchProduct::Rows() has it
void AddDownColumns(const WeightView& w, size_t num_rows, size_t num_cols,
                    const float* factors, size_t factors_stride,
                    size_t num_tokens, std::byte* workspace, float* sum,
                    size_t sum_stride, std::span<const std::byte> next = {});

// The same for pieces of a range. Quantized columns are added in whole blocks:
// what has come of a block is kept until the rest of it comes. Owns nothing:
// scratch outlives it. Thread-compatible; threads may share the columns: each
// adds the pieces of its columns in order, and where the columns are shared out
// anew, all threads have come to the same piece.
class DownColumns {
 public:
  DownColumns(const Scratch& scratch, size_t model_dim)
      : scratch_(scratch), model_dim_(model_dim) {}

  // Neurons [first, last) of a layer, in one tile (FfnTile()), after all those
  // of their range before them.
  struct Piece {
    WeightView columns;  // From neuron `first` on; all columns.
    uint32_t first;
    uint32_t last;
    bool ends_range;
  };
  // Adds columns [begin, end) to `sum`, which begins at column `begin`, as the
  // part `part` of a loop of the pool.
  //   factors  [num_tokens, FfnTile()]  of the whole tile, also of what was
  //   kept
  void Add(const Piece& piece, size_t begin, size_t end, uint32_t part,
           const float* factors, size_t num_tokens, float* sum) const;

 private:
  void Keep(const WeightView& rows, size_t num_rows, size_t in_block,
            size_t begin, size_t end) const;

  const Scratch& scratch_;
  size_t model_dim_;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_DOWN_COLUMNS_H_
