// zstd, with the size of the result known and checked beforehand.
#ifndef FLASHELM_STORAGE_COMPRESSION_H_
#define FLASHELM_STORAGE_COMPRESSION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/base/status.h"

namespace flashelm {

// The bytes as one zstd frame. kInternal: zstd refused.
Result<std::string> ZstdCompress(std::string_view bytes);

// The `raw_bytes` bytes that the frame holds. Memory is taken for `raw_bytes`
// only, so the caller has bounded it. kDataLoss, beginning with `name`: not a
// frame, or one of another size.
Result<std::string> ZstdDecompress(std::span<const std::byte> frame,
                                   uint64_t raw_bytes, std::string_view name);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_COMPRESSION_H_
