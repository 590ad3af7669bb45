#include "core/callback_file.h"

#include <algorithm>

namespace flashelm {

CallbackFile::~CallbackFile() {
  if (source_.release != nullptr) source_.release(source_.user);
}

Result<size_t> CallbackFile::ReadAt(uint64_t offset,
                                    std::span<std::byte> target) const {
  if (offset >= source_.size_bytes) return 0;
  const size_t wanted =
      std::min<uint64_t>(target.size(), source_.size_bytes - offset);
  size_t done = 0;
  while (done < wanted) {
    const int64_t got = source_.read(source_.user, offset + done,
                                     target.data() + done, wanted - done);
    if (got == 0) break;
    if (got < 0) {
      return Unavailable(path_, ": reading ", wanted - done, " bytes at byte ",
                         offset + done, " gave ", got);
    }
    if (static_cast<uint64_t>(got) > wanted - done) {
      return Unavailable(path_, ": reading ", wanted - done, " bytes at byte ",
                         offset + done, " gave more than asked for, ", got);
    }
    done += static_cast<size_t>(got);
  }
  return done;
}

}  // namespace flashelm
