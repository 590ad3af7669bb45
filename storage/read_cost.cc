#include "storage/read_cost.h"

#include <algorithm>
#include <cstdint>
#include <map>

namespace flashelm {

std::optional<ReadCost> FitReadCost(const DeviceProfile& profile,
                                    IoBackend backend) {
  std::map<uint64_t, const DeviceRate*> fastest;  // By size of requests.
  for (const DeviceRate& rate : profile.rates) {
    if (rate.backend != backend || rate.order != ReadOrder::kRandom ||
        rate.bytes_per_second == 0) {
      continue;
    }
    const DeviceRate*& best = fastest[rate.shape.request_bytes];
    if (best == nullptr || rate.bytes_per_second > best->bytes_per_second) {
      best = &rate;
    }
  }
  if (fastest.size() < 2) return std::nullopt;
  // A request of b bytes took t ns; a + b / r is sought. Divided by t, so that
  // errors are relative: minimal is the sum of (a * u + s * v - 1)^2, with
  // u = 1 / t, v = b / t = rate, s = 1 / r.
  double uu = 0, uv = 0, vv = 0, u_sum = 0, v_sum = 0, v_max = 0;
  for (const auto& [request_bytes, rate] : fastest) {
    const double v = static_cast<double>(rate->bytes_per_second) * 1e-9;
    const double u = v / static_cast<double>(request_bytes);
    uu += u * u;
    uv += u * v;
    vv += v * v;
    u_sum += u;
    v_sum += v;
    v_max = std::max(v_max, v);
  }
  const double determinant = uu * vv - uv * uv;
  ReadCost cost;
  double ns_per_byte = 0;
  if (determinant > 0) {
    cost.request_ns = (u_sum * vv - v_sum * uv) / determinant;
    ns_per_byte = (v_sum * uu - u_sum * uv) / determinant;
  }
  // The best line that goes through 0 is the nearest one that is allowed.
  if (cost.request_ns < 0) {
    cost.request_ns = 0;
    ns_per_byte = v_sum / vv;
  }
  // Where larger requests took no longer, which a short measurement beside
  // other work can say: bytes come as fast as any came, the rest is requests.
  if (!(ns_per_byte > 0)) {
    ns_per_byte = 1 / v_max;
    cost.request_ns = (u_sum - ns_per_byte * uv) / uu;
  }
  cost.bytes_per_ns = 1 / ns_per_byte;
  if (const DeviceRate* best = profile.FindBest(backend)) {
    cost.sequential_bytes_per_ns =
        static_cast<double>(best->bytes_per_second) * 1e-9;
  }
  return cost;
}

}  // namespace flashelm
