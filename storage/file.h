// Files read at any offset.
#ifndef FLASHELM_STORAGE_FILE_H_
#define FLASHELM_STORAGE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/base/status.h"

namespace flashelm {

// Owns a file descriptor. Move-only.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd();
  UniqueFd(UniqueFd&& other) noexcept;
  UniqueFd& operator=(UniqueFd&& other) noexcept;

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// An open file of fixed size. Thread-safe: reads may overlap.
class RandomAccessFile {
 public:
  virtual ~RandomAccessFile() = default;

  // Fills `target` from byte `offset`. Returns the bytes read, fewer than
  // asked only where the file ends. With direct_io(), offset, size and address
  // are multiples of kIoAlignment. kUnavailable: the device failed.
  virtual Result<size_t> ReadAt(uint64_t offset,
                                std::span<std::byte> target) const = 0;

  // As it was when opened.
  virtual uint64_t size_bytes() const = 0;
  virtual const std::string& path() const = 0;

  // Whether reads go past the operating system's cache.
  virtual bool direct_io() const = 0;

  // For readers that do not go through ReadAt(): the descriptor, or -1 where
  // there is none, the byte of it where this file begins, and what to do after
  // a read by it, as ReadAt() does.
  virtual int fd() const { return -1; }
  virtual uint64_t fd_offset() const { return 0; }
  virtual void DropPages(uint64_t /*offset*/, uint64_t /*num_bytes*/) const {}
};

enum class CacheMode {
  kBuffered,  // Through the cache: for small files and for headers.
  kDropped,   // Through the cache, and the pages are dropped again.
  kDirect,    // Past the cache where the file system can, which is tried with
              // a few reads; elsewhere as kDropped.
};

// Reads as ReadAt() does.
using ReadFunction =
    std::function<Result<size_t>(uint64_t offset, std::span<std::byte> target)>;

// Whether direct reads of a file of so many bytes give what buffered reads do,
// at its begin, middle and end. Some file systems accept the flag and then
// refuse, ignore alignment, or keep the last bytes elsewhere.
bool DirectReadsWork(const ReadFunction& direct, const ReadFunction& buffered,
                     uint64_t size_bytes);

// Opens a regular file for reading. kNotFound: no such file.
// kInvalidArgument: not a regular file, or no permission.
Result<std::unique_ptr<RandomAccessFile>> OpenFile(const std::string& path,
                                                   CacheMode mode);

inline constexpr uint64_t kToTheEnd = UINT64_MAX;

// The `size_bytes`, or kToTheEnd, from byte `offset` of a regular file that is
// open for reading, as a file of their own: one that is packed into another.
// `fd` stays the caller's, who may close it after this call, and its position
// does not move. `name` stands for a path in messages. Past the cache only
// where `offset` is a multiple of kIoAlignment. kInvalidArgument: not such a
// descriptor, or fewer bytes there.
Result<std::unique_ptr<RandomAccessFile>> OpenDescriptor(int fd,
                                                         uint64_t offset,
                                                         uint64_t size_bytes,
                                                         std::string name,
                                                         CacheMode mode);

// Lets the operating system forget what it has cached of a file and written to
// the device.
void DropCachedPages(int fd);

// kUnavailable, for a read that gave this errno.
ErrorStatus ReadFailed(const std::string& path, uint64_t offset,
                       uint64_t num_bytes, int error);

// Reads all of `target` or says why not: kDataLoss when the file ends before,
// with `what` being read in the message.
Status ReadExactly(const RandomAccessFile& file, uint64_t offset,
                   std::span<std::byte> target, std::string_view what);

// A whole file as text. kDataLoss: larger than `max_bytes`.
Result<std::string> ReadWholeFile(const std::string& path, uint64_t max_bytes);

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_FILE_H_
