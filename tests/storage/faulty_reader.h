// A reader on a device that fails where a test says.
#ifndef FLASHELM_TESTS_STORAGE_FAULTY_READER_H_
#define FLASHELM_TESTS_STORAGE_FAULTY_READER_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "storage/async_reader.h"

namespace flashelm {

enum class Fault {
  kIoError,   // kUnavailable, and nothing useful in the target.
  kShort,     // Ends half way, as where a file was cut off.
  kEmpty,     // Gives no byte.
  kFlipByte,  // Succeeds with one wrong bit.
  kLate,      // Seen by who waits for it, when no other read is left.
  kNever,     // Not seen until Release().
};

struct FaultAt {
  uint64_t read = 0;  // Counted from 0 in the order of Submit().
  Fault fault = Fault::kIoError;
};

// In which order completions come.
enum class CompletionOrder {
  kAsTheyCome,
  kReversed,  // All reads in flight end, then the last one is seen first.
};

// Wraps a reader, which outlives it.
class FaultyReader : public AsyncReader {
 public:
  struct Asked {
    uint64_t offset_bytes = 0;
    uint64_t num_bytes = 0;
    friend bool operator==(const Asked&, const Asked&) = default;
  };

  FaultyReader(AsyncReader& inner, std::vector<FaultAt> faults,
               CompletionOrder order = CompletionOrder::kAsTheyCome);

  Status Submit(std::span<const ReadRequest> requests) override;
  std::optional<ReadCompletion> Wait(std::chrono::nanoseconds timeout) override;
  void RegisterBuffer(std::span<std::byte> memory) override {
    inner_.RegisterBuffer(memory);
  }
  void Stop() override { inner_.Stop(); }
  std::string_view name() const override { return inner_.name(); }
  uint32_t depth() const override { return inner_.depth(); }
  uint32_t num_in_flight() const override;
  ReaderStats stats() const override { return inner_.stats(); }

  // Lets the device answer all reads until now, also those that it would hold
  // back when their bytes arrive.
  void Release();

  // Every read so far, in the order of Submit().
  const std::vector<Asked>& asked() const { return asked_; }

 private:
  struct InFlight {
    ReadRequest request;
    uint64_t read = 0;
  };

  const FaultAt* FaultOf(uint64_t read) const;
  // Takes one completion from `inner_`, damaged as asked, and keeps it; false
  // when there is none in time.
  bool Take(std::chrono::nanoseconds timeout);

  AsyncReader& inner_;
  const std::vector<FaultAt> faults_;
  const CompletionOrder order_;
  uint64_t num_released_ = 0;  // The first so many reads are answered.
  std::vector<Asked> asked_;
  std::vector<InFlight> in_flight_;
  std::vector<ReadCompletion> held_;  // The next one to be seen is the last.
  std::vector<ReadCompletion> late_;
  std::vector<ReadCompletion> never_;
};

// A FaultyReader that owns what it wraps.
struct ReaderOwner {
  std::unique_ptr<AsyncReader> inner;
};
class OwningFaultyReader : private ReaderOwner, public FaultyReader {
 public:
  OwningFaultyReader(std::unique_ptr<AsyncReader> reader, FaultAt fault)
      : ReaderOwner{std::move(reader)}, FaultyReader(*inner, {fault}) {}
};

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORAGE_FAULTY_READER_H_
