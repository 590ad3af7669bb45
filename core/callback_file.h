// A file whose bytes come from a function of the application.
#ifndef FLASHELM_CORE_CALLBACK_FILE_H_
#define FLASHELM_CORE_CALLBACK_FILE_H_

#include <string>

#include "include/flashelm/flashelm.h"
#include "storage/file.h"

namespace flashelm {

// Calls `source.read`, also from several threads at a time, and at its end
// `source.release`.
class CallbackFile : public RandomAccessFile {
 public:
  // `source` has FLASHELM_SOURCE_READ and a `read`.
  explicit CallbackFile(const flashelm_source& source) : source_(source) {}
  ~CallbackFile() override;
  CallbackFile(const CallbackFile&) = delete;
  CallbackFile& operator=(const CallbackFile&) = delete;

  Result<size_t> ReadAt(uint64_t offset,
                        std::span<std::byte> target) const override;
  uint64_t size_bytes() const override { return source_.size_bytes; }
  const std::string& path() const override { return path_; }
  bool direct_io() const override { return false; }

 private:
  const flashelm_source source_;
  const std::string path_ = "read callback";
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_CALLBACK_FILE_H_
