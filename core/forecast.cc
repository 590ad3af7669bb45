#include "core/forecast.h"

#include <algorithm>

namespace flashelm {
namespace {

// What both take at once that would take so long alone.
double TogetherMs(const ForecastInput& input, double read_ms,
                  double compute_ms) {
  const double slow_read_ms = read_ms * std::max(1.0, input.read_slowdown);
  const double slow_compute_ms =
      compute_ms * std::max(1.0, input.compute_slowdown);
  if (slow_read_ms == 0 || slow_compute_ms == 0) return read_ms + compute_ms;
  const double both_ms = std::min(slow_read_ms, slow_compute_ms);
  // Of one of the two nothing is left.
  const double together_ms = both_ms + read_ms * (1 - both_ms / slow_read_ms) +
                             compute_ms * (1 - both_ms / slow_compute_ms);
  // No worse than one after the other.
  return std::min(together_ms, read_ms + compute_ms);
}

}  // namespace

Forecast MakeForecast(const ForecastInput& input) {
  const auto ms = [](double bytes, double bytes_per_second) {
    return 1000 * bytes / bytes_per_second;
  };
  const auto weights = static_cast<double>(input.weight_bytes);
  Forecast forecast;
  forecast.compute_ms = ms(weights, input.compute_bytes_per_second);
  forecast.sweep_compute_ms =
      ms((weights - static_cast<double>(input.head_bytes)) * input.batch,
         input.batch_compute_bytes_per_second);
  if (input.streamed_bytes == 0) {
    forecast.read_ms = input.more_read_ms;
    forecast.sweep_read_ms = 0;
  } else if (input.read_bytes_per_second) {
    forecast.read_ms = ms(static_cast<double>(input.streamed_bytes),
                          *input.read_bytes_per_second) +
                       input.more_read_ms;
    forecast.sweep_read_ms = ms(
        static_cast<double>(input.streamed_bytes - input.head_streamed_bytes),
        *input.read_bytes_per_second);
  } else {
    return forecast;
  }
  forecast.token_ms = TogetherMs(input, *forecast.read_ms, forecast.compute_ms);
  if (input.streamed_bytes > 0 && input.streaming_bytes_per_second) {
    forecast.token_ms = ms(weights, *input.streaming_bytes_per_second);
  }
  forecast.gen_tps = 1000 / *forecast.token_ms;
  forecast.sweep_ms =
      TogetherMs(input, *forecast.sweep_read_ms, forecast.sweep_compute_ms);
  forecast.prompt_tps = 1000 * input.batch / *forecast.sweep_ms;
  return forecast;
}

}  // namespace flashelm
