// Weights of a checkpoint as a model file has them.
#ifndef FLASHELM_CORE_CONVERT_ENCODE_H_
#define FLASHELM_CORE_CONVERT_ENCODE_H_

#include <cstddef>
#include <cstdint>

#include "core/convert/safetensors.h"
#include "storage/weight_format.h"

namespace flashelm {

// `count` elements of `type` at `in` as `encoding`, f32 or bf16, at `out`. They
// do not overlap, and both are aligned to their elements.
void Encode(ElementType type, const std::byte* in, size_t count,
            Encoding encoding, std::byte* out);

// The same for columns, each of which becomes a row.
//   in   [rows, columns]  row r begins at in + r * in_stride_bytes
//   out  [columns, rows]  column c goes to out + c * out_stride_bytes
// At most kEncodeColumns of them.
inline constexpr size_t kEncodeColumns = 64;
void EncodeColumns(ElementType type, const std::byte* in,
                   uint64_t in_stride_bytes, size_t rows, size_t columns,
                   Encoding encoding, std::byte* out,
                   uint64_t out_stride_bytes);

// How many of the elements are NaN, infinite, or become so as bf16.
uint64_t CountNonFiniteEncoded(ElementType type, const std::byte* in,
                               size_t count, Encoding encoding);

// How many of the elements are NaN or above kMaxQuantized: q8 and q4 have no
// place for them.
uint64_t CountUnquantizable(ElementType type, const std::byte* in,
                            size_t count);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_ENCODE_H_
