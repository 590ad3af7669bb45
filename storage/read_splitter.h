// Reads on their way through requests to a device: what readers share.
#ifndef FLASHELM_STORAGE_READ_SPLITTER_H_
#define FLASHELM_STORAGE_READ_SPLITTER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "storage/async_reader.h"

namespace flashelm {

// Cuts reads into pieces, which are what a device gets, in the order in which
// reads came, and notices when all pieces of a read have ended. Allocates
// nothing after it was made, unless a read fails. Not thread-safe.
class ReadSplitter {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Piece {
    uint32_t slot = 0;  // Of the read.
    size_t at = 0;      // Where in the read it begins.
    uint64_t offset_bytes = 0;
    std::span<std::byte> target;
  };

  explicit ReadSplitter(uint32_t max_reads);

  // All or none. kResourceExhausted: more than max_reads would be inside.
  Status Add(std::span<const ReadRequest> requests);

  // Whether a piece waits, and the next one, of at most so many bytes.
  bool has_piece() const { return num_waiting_ > 0; }
  Piece Begin(uint64_t max_bytes, TimePoint now);
  // A piece has ended; with fewer bytes than asked, the file ends there.
  void End(const Piece& piece, size_t num_bytes, Status status, TimePoint now);

  // Whether a read has ended, and the one that did so first; then its place is
  // free.
  bool has_ended() const { return num_ended_ > 0; }
  ReadCompletion PopEnded();

  uint32_t max_reads() const { return static_cast<uint32_t>(reads_.size()); }
  // Added and not popped.
  uint32_t num_reads() const { return num_reads_; }
  // Begun and not ended.
  uint32_t num_pieces() const { return num_pieces_; }
  bool is_idle() const { return num_pieces_ == 0 && num_waiting_ == 0; }
  ReaderStats stats(TimePoint now) const;

 private:
  struct Read {
    ReadRequest request;
    size_t next = 0;          // Where its next piece begins.
    size_t num_bytes = 0;     // Up to the first place where the file ended.
    uint32_t num_pieces = 0;  // Begun and not ended.
    bool has_begun = false;
    Status status;         // Of the first piece that failed,
    size_t failed_at = 0;  // which begins here.
    TimePoint begin;
    TimePoint end;
  };

  void PopWaiting();

  std::vector<Read> reads_;
  std::vector<uint32_t> free_;     // Slots; the first max - num_reads_ count.
  std::vector<uint32_t> waiting_;  // Slots of reads with pieces left: a ring.
  uint32_t first_waiting_ = 0;
  uint32_t num_waiting_ = 0;
  std::vector<uint32_t> ended_;  // Slots: a ring.
  uint32_t first_ended_ = 0;
  uint32_t num_ended_ = 0;
  uint32_t num_reads_ = 0;
  uint32_t num_pieces_ = 0;
  uint32_t num_begun_ = 0;  // Reads begun and not ended.
  TimePoint busy_since_;    // While num_begun_ is not 0.
  ReaderStats stats_;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_READ_SPLITTER_H_
