#include "core/forecast.h"

#include <algorithm>

namespace flashelm {

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
  forecast.token_ms = std::max(*forecast.read_ms, forecast.compute_ms);
  forecast.gen_tps = 1000 / *forecast.token_ms;
  forecast.sweep_ms =
      std::max(*forecast.sweep_read_ms, forecast.sweep_compute_ms);
  forecast.prompt_tps = 1000 * input.batch / *forecast.sweep_ms;
  return forecast;
}

}  // namespace flashelm
