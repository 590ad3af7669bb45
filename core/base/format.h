// Text with numbers in given widths and precisions: fmt, for rooms that do not
// include libraries themselves.
#ifndef FLASHELM_CORE_BASE_FORMAT_H_
#define FLASHELM_CORE_BASE_FORMAT_H_

#include <fmt/format.h>

#endif  // FLASHELM_CORE_BASE_FORMAT_H_
