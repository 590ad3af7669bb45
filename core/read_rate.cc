#include "core/read_rate.h"

#include <memory>
#include <utility>

#include "core/base/memory.h"

namespace flashelm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kRequestBytes = uint64_t{1} << 20;
constexpr uint32_t kDepth = 16;
constexpr std::chrono::seconds kTimeout(30);

// Reads into `memory`, kDepth requests at a time, until `duration` is over;
// returns bytes per second.
Result<double> ReadFor(AsyncReader& reader, uint64_t file_bytes,
                       std::span<std::byte> memory,
                       std::chrono::nanoseconds duration,
                       const CancelToken& cancel) {
  uint64_t offset = 0;
  const auto submit = [&](uint32_t tag) {
    const ReadRequest request = {
        offset, memory.subspan(tag * kRequestBytes, kRequestBytes), tag};
    offset += kRequestBytes;
    if (offset >= file_bytes) offset = 0;
    return reader.Submit({&request, 1});
  };
  const auto begin = Clock::now();
  for (uint32_t tag = 0; tag < kDepth; ++tag) {
    FLASHELM_RETURN_IF_ERROR(submit(tag));
  }
  uint64_t num_bytes = 0;
  while (!cancel.IsCancelled()) {
    const auto done = reader.Wait(kTimeout);
    if (!done) {
      return Unavailable("a read was not answered for ", kTimeout.count(),
                         " seconds");
    }
    FLASHELM_RETURN_IF_ERROR(done->status);
    num_bytes += done->num_bytes;
    const auto elapsed = Clock::now() - begin;
    if (elapsed >= duration) {
      return static_cast<double>(num_bytes) /
             std::chrono::duration<double>(elapsed).count();
    }
    FLASHELM_RETURN_IF_ERROR(submit(done->tag));
  }
  return Cancelled("stopped while measuring how fast the file is read");
}

}  // namespace

Result<ReadRate> MeasureReadRate(const ModelFile& model, IoBackend io,
                                 std::chrono::nanoseconds duration,
                                 const CancelToken& cancel) {
  const auto file = model.weight_file().shared_file();
  MemoryBudget unlimited(UINT64_MAX);
  FLASHELM_ASSIGN_OR_RETURN(
      AlignedBuffer buffer,
      AlignedBuffer::Create(kRequestBytes * kDepth, unlimited, "reads"));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<AsyncReader> reader,
                            OpenReader(file, {io, kDepth}));
  reader->RegisterBuffer(buffer.bytes());
  auto rate =
      ReadFor(*reader, file->size_bytes(), buffer.bytes(), duration, cancel);
  if (!reader->Drain(kTimeout)) {
    // The device may still write there: the memory is lost.
    buffer.Leak();
    return Unavailable(file->path(), ": a read was not answered");
  }
  reader->RegisterBuffer({});
  if (!rate) return Unexpected(std::move(rate.error()));
  return ReadRate{*rate, std::string(reader->name()), file->direct_io()};
}

}  // namespace flashelm
