// What the system has of a file in its page cache.
#ifndef FLASHELM_CLI_PAGE_CACHE_H_
#define FLASHELM_CLI_PAGE_CACHE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "core/base/cancel.h"
#include "core/base/status.h"

namespace flashelm::cli {

// Bytes of a file that are cached, in whole pages. Nothing where the system
// does not tell: Linux tells those who own the file or may write to it.
std::optional<uint64_t> CachedBytes(const std::string& path);

// Nothing where there is no such file.
std::optional<uint64_t> FileBytes(const std::string& path);

// Asks the system to forget what it has cached of a file, once all of it is
// written. Pages that are mapped stay. Errors as ErrnoStatus().
Status DropPageCache(const std::string& path);

// Reads a file through once, so that as much of it is cached as fits. Errors as
// ErrnoStatus(). kCancelled: as asked.
Status FillPageCache(const std::string& path, const CancelToken& cancel);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_PAGE_CACHE_H_
