// How fast a plan can be at best on a machine, from two measured rates.
#ifndef FLASHELM_CORE_FORECAST_H_
#define FLASHELM_CORE_FORECAST_H_

#include <cstdint>
#include <optional>

namespace flashelm {

struct ForecastInput {
  uint64_t weight_bytes = 0;    // M: what a token needs.
  uint64_t streamed_bytes = 0;  // M - P: of them, what is not resident.
  // Of both, the output head's part: only a prompt's last sweep needs it.
  uint64_t head_bytes = 0;
  uint64_t head_streamed_bytes = 0;
  double more_read_ms = 0;  // Per generated token, besides.
  uint32_t batch = 1;       // Prompt tokens per sweep.
  // S: sequential reads. Nothing: not measured.
  std::optional<double> read_bytes_per_second;
  // D: weights in RAM, multiplied with one token.
  double compute_bytes_per_second = 0;
  // The same with many tokens at once, in bytes of weights times tokens.
  double batch_compute_bytes_per_second = 0;
  // How many times longer each takes while the other goes on, too: what is read
  // goes through the same DRAM, and on many systems a core copies it. 1: it is
  // not known, so that the forecast is a bound.
  double read_slowdown = 1;
  double compute_slowdown = 1;
  // Weights of generated tokens that were read and computed in the plan's way,
  // where that was tried: it says what a token takes, and the rates above no
  // more than where its time goes.
  std::optional<double> streaming_bytes_per_second;
};

// Reading goes on through the end of a token, so that each of both is done at
// the rate it has next to the other until one has no more to do, and the other
// then ends alone, or one after the other where that is sooner. Nothing else
// takes time.
struct Forecast {
  // Per generated token: (M - P) / S and what is read besides, M / D, each as
  // if it were alone; and both. Without slowdowns, the larger of the two.
  std::optional<double> read_ms;
  double compute_ms = 0;
  std::optional<double> token_ms;
  std::optional<double> gen_tps;
  // Per sweep of a full batch of a prompt, in the same way.
  std::optional<double> sweep_read_ms;
  double sweep_compute_ms = 0;
  std::optional<double> sweep_ms;
  std::optional<double> prompt_tps;
};

// Where nothing streams, S is not needed. Where it is needed and not there,
// what depends on it is nothing.
Forecast MakeForecast(const ForecastInput& input);

}  // namespace flashelm

#endif  // FLASHELM_CORE_FORECAST_H_
