#include "storage/compression.h"

#include <zstd.h>

namespace flashelm {

Result<std::string> ZstdCompress(std::string_view bytes) {
  constexpr int kLevel = 12;
  std::string frame(ZSTD_compressBound(bytes.size()), '\0');
  const size_t size = ZSTD_compress(frame.data(), frame.size(), bytes.data(),
                                    bytes.size(), kLevel);
  if (ZSTD_isError(size)) {
    return Internal("zstd cannot compress ", bytes.size(),
                    " bytes: ", ZSTD_getErrorName(size));
  }
  frame.resize(size);
  return frame;
}

Result<std::string> ZstdDecompress(std::span<const std::byte> frame,
                                   uint64_t raw_bytes, std::string_view name) {
  std::string raw(raw_bytes, '\0');
  const size_t size =
      ZSTD_decompress(raw.data(), raw.size(), frame.data(), frame.size());
  if (ZSTD_isError(size)) {
    return DataLoss(name, ": zstd cannot decompress ", frame.size(),
                    " bytes: ", ZSTD_getErrorName(size));
  }
  if (size != raw_bytes) {
    return DataLoss(name, ": decompresses to ", size, " bytes, expected ",
                    raw_bytes);
  }
  return raw;
}

}  // namespace flashelm
