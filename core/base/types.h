// Small types that more than one room names.
#ifndef FLASHELM_CORE_BASE_TYPES_H_
#define FLASHELM_CORE_BASE_TYPES_H_

#include <cstdint>

namespace flashelm {

using TokenId = uint32_t;

// What direct reads align to: offsets, lengths and buffers. Also the page
// granularity of the model file. Larger than, or equal to, the logical block
// of every device in use.
inline constexpr uint64_t kIoAlignment = 4096;

}  // namespace flashelm

#endif  // FLASHELM_CORE_BASE_TYPES_H_
