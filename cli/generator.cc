#include "cli/generator.h"

#include <cstdio>
#include <random>

namespace flashelm::cli {

Status WriteOut(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() ||
      std::fflush(stdout) != 0) {
    return ResourceExhausted("cannot write to standard output");
  }
  return OkStatus();
}

Status CheckStopStrings(const std::vector<std::string>& strings) {
  size_t total = 0;
  for (const std::string& stop : strings) {
    total += stop.size();
    if (stop.empty()) {
      return InvalidArgument("--stop: an empty text appears everywhere");
    }
  }
  if (total > kMaxStopBytes) {
    return InvalidArgument("--stop: ", total,
                           " bytes in all, expected at most ", kMaxStopBytes);
  }
  return OkStatus();
}

uint64_t StopBytes(const std::vector<std::string>& strings) {
  uint64_t total = 0;
  for (const std::string& stop : strings) total += stop.size();
  return 8 * total;
}

uint64_t ChooseSeed(int64_t seed) {
  if (seed >= 0) return static_cast<uint64_t>(seed);
  std::random_device device;
  return device();
}

Status Generator::Run(const CancelToken& cancel) {
  StreamDecoder decoder(tokenizer_, options_.at_start);
  Status status = Decode(decoder, cancel);
  if (!status.ok()) {
    stop_reason_ =
        status.code() == StatusCode::kCancelled ? "cancelled" : "error";
  }
  // What is still held back is shown, however it ended.
  FLASHELM_RETURN_IF_ERROR(WriteOut(stop_.Push(decoder.Finish())));
  FLASHELM_RETURN_IF_ERROR(WriteOut(stop_.Finish()));
  return status;
}

Status Generator::Decode(StreamDecoder& decoder, const CancelToken& cancel) {
  const TokenId eos = tokenizer_.eos_id();
  for (int64_t n = 0; n != options_.n_predict; ++n) {
    const TokenId token = sampler_.Sample(session_.logits(0));
    if (token == eos && !options_.ignore_eos) {
      stop_reason_ = "eos";
      return OkStatus();
    }
    sampler_.Accept(token);
    if (hooks_.accepted) hooks_.accepted(token);
    FLASHELM_RETURN_IF_ERROR(WriteOut(stop_.Push(decoder.Push(token))));
    if (hooks_.shown) hooks_.shown();
    if (stop_.stopped()) {
      stop_reason_ = "stop_string";
      return OkStatus();
    }
    if (!stop_.is_holding()) num_clean_ = static_cast<uint64_t>(n) + 1;
    // The last token needs no pass: nobody asks what follows it.
    if (n + 1 == options_.n_predict) break;
    if (session_.position() == session_.context()) {
      bool has_room = false;
      if (hooks_.make_room) {
        FLASHELM_ASSIGN_OR_RETURN(has_room, hooks_.make_room(cancel));
      }
      if (!has_room) {
        stop_reason_ = "context_full";
        return OkStatus();
      }
    }
    constexpr uint32_t kOnly = 0;
    const Status status = session_.Run({&token, 1}, {&kOnly, 1}, cancel);
    if (!status.ok()) return status;
  }
  stop_reason_ = "n_predict";
  return OkStatus();
}

}  // namespace flashelm::cli
