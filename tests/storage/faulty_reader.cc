#include "tests/storage/faulty_reader.h"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <thread>
#include <utility>

namespace flashelm {
namespace {

// What a target holds that no read has filled.
constexpr std::byte kGarbage{0xA5};

}  // namespace

FaultyReader::FaultyReader(AsyncReader& inner, std::vector<FaultAt> faults,
                           CompletionOrder order)
    : inner_(inner), faults_(std::move(faults)), order_(order) {}

Status FaultyReader::Submit(std::span<const ReadRequest> requests) {
  if (requests.size() > depth() - num_in_flight()) {
    return ResourceExhausted("all ", depth(), " reads are in flight");
  }
  FLASHELM_RETURN_IF_ERROR(inner_.Submit(requests));
  for (const ReadRequest& request : requests) {
    in_flight_.push_back({request, asked_.size()});
    asked_.push_back({request.offset_bytes, request.target.size()});
  }
  return OkStatus();
}

uint32_t FaultyReader::num_in_flight() const {
  return inner_.num_in_flight() +
         static_cast<uint32_t>(held_.size() + late_.size() + never_.size());
}

const FaultAt* FaultyReader::FaultOf(uint64_t read) const {
  const auto it =
      std::find_if(faults_.begin(), faults_.end(),
                   [&](const FaultAt& fault) { return fault.read == read; });
  return it == faults_.end() ? nullptr : &*it;
}

bool FaultyReader::Take(std::chrono::nanoseconds timeout) {
  auto taken = inner_.Wait(timeout);
  if (!taken) return false;
  ReadCompletion completion = std::move(*taken);
  const auto it = std::find_if(
      in_flight_.begin(), in_flight_.end(),
      [&](const InFlight& read) { return read.request.tag == completion.tag; });
  assert(it != in_flight_.end());
  const InFlight read = *it;
  in_flight_.erase(it);
  const std::span<std::byte> target = read.request.target;
  const FaultAt* fault = FaultOf(read.read);
  if (fault == nullptr) {
    held_.push_back(std::move(completion));
    return true;
  }
  switch (fault->fault) {
    case Fault::kIoError:
      std::fill(target.begin(), target.end(), kGarbage);
      completion.num_bytes = 0;
      completion.status = Unavailable("injected: the device failed at byte ",
                                      read.request.offset_bytes);
      break;
    case Fault::kShort:
      completion.num_bytes = target.size() / 2;
      std::fill(target.begin() + target.size() / 2, target.end(), kGarbage);
      break;
    case Fault::kEmpty:
      completion.num_bytes = 0;
      std::fill(target.begin(), target.end(), kGarbage);
      break;
    case Fault::kFlipByte:
      // The first byte: behind the records there may be padding.
      target[0] ^= std::byte{1};
      break;
    case Fault::kLate:
      late_.push_back(std::move(completion));
      return true;
    case Fault::kNever:
      if (read.read < num_released_) break;
      never_.push_back(std::move(completion));
      return true;
  }
  held_.push_back(std::move(completion));
  return true;
}

void FaultyReader::Release() {
  std::move(never_.begin(), never_.end(), std::back_inserter(held_));
  never_.clear();
  num_released_ = asked_.size();
}

std::optional<ReadCompletion> FaultyReader::Wait(
    std::chrono::nanoseconds timeout) {
  if (num_in_flight() == 0) return std::nullopt;
  const bool all = order_ == CompletionOrder::kReversed;
  while (inner_.num_in_flight() > 0 && (all || held_.empty())) {
    if (!Take(timeout)) return std::nullopt;
  }
  // Who only looks has not waited for what is late.
  if (held_.empty() && (late_.empty() || timeout.count() == 0)) {
    std::this_thread::sleep_for(timeout);
    return std::nullopt;
  }
  std::vector<ReadCompletion>& from = held_.empty() ? late_ : held_;
  ReadCompletion completion = std::move(from.back());
  from.pop_back();
  return completion;
}

}  // namespace flashelm
