#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "cli/device_table.h"
#include "cli/engine_setup.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "core/base/format.h"
#include "core/device.h"
#include "core/text_file.h"

namespace flashelm::cli {
namespace {

// "64K": requests come in whole units.
std::string ShortBytes(uint64_t bytes) {
  if (bytes % (1 << 20) == 0) return fmt::format("{}M", bytes >> 20);
  return fmt::format("{}K", bytes >> 10);
}

// MB/s by queue depth (down) and size of requests (across).
void PrintTable(const DeviceProfile& profile, IoBackend backend,
                ReadOrder order) {
  std::set<uint64_t> sizes;
  std::set<uint32_t> depths;
  const auto is_wanted = [&](const DeviceRate& rate) {
    return rate.backend == backend && rate.order == order;
  };
  for (const DeviceRate& rate : profile.rates) {
    if (!is_wanted(rate)) continue;
    sizes.insert(rate.shape.request_bytes);
    depths.insert(rate.shape.queue_depth);
  }
  if (sizes.empty()) return;
  fmt::print("\n{}, {}, MB/s\n\n| queue depth |", IoName(backend),
             order == ReadOrder::kSequential ? "sequential" : "random");
  std::string rule = "|------------:|";
  for (const uint64_t size : sizes) {
    fmt::print(" {:>6} |", ShortBytes(size));
    rule += "-------:|";
  }
  fmt::print("\n{}\n", rule);
  for (const uint32_t depth : depths) {
    fmt::print("| {:>11} |", depth);
    for (const uint64_t size : sizes) {
      std::string cell = "-";
      for (const DeviceRate& rate : profile.rates) {
        if (is_wanted(rate) && rate.shape == ReadShape{size, depth}) {
          cell = fmt::format("{:.0f}",
                             static_cast<double>(rate.bytes_per_second) / 1e6);
        }
      }
      fmt::print(" {:>6} |", cell);
    }
    fmt::print("\n");
  }
}

}  // namespace

void PrintDeviceProfile(const DeviceProfile& profile) {
  fmt::print("{}: {}\n", profile.path,
             profile.direct_io ? "O_DIRECT"
                               : "no O_DIRECT here, so caches had a part");
  for (const IoBackend backend : {IoBackend::kUring, IoBackend::kPread}) {
    for (const ReadOrder order : {ReadOrder::kSequential, ReadOrder::kRandom}) {
      PrintTable(profile, backend, order);
    }
  }
  fmt::print("\n");
  for (const IoBackend backend : {IoBackend::kUring, IoBackend::kPread}) {
    const DeviceRate* best = profile.FindBest(backend);
    if (best == nullptr) continue;
    fmt::print("Best with {}: {:.2f} GB/s, {} requests of {} at a time\n",
               IoName(backend),
               static_cast<double>(best->bytes_per_second) / 1e9,
               best->shape.queue_depth, ShortBytes(best->shape.request_bytes));
  }
  if (!profile.uring_refusal.empty()) {
    fmt::print("No io_uring: {}\n", profile.uring_refusal);
  }
}

Status RunBenchIo(const BenchIoArgs& args) {
  if (!args.save.empty()) {
    FLASHELM_RETURN_IF_ERROR(CheckOutputPath(args.save, {args.file}));
  }
  MeasureOptions options;
  options.time_per_rate = std::chrono::milliseconds(args.time_ms);
  options.cancel = &InterruptToken();
  ProgressBar bar;
  FLASHELM_ASSIGN_OR_RETURN(
      const DeviceProfile profile,
      MeasureDeviceOf(args.file, options, [&](uint32_t done, uint32_t total) {
        bar.Show("measuring", done, total);
      }));
  bar.Clear();
  if (!args.save.empty()) {
    FLASHELM_RETURN_IF_ERROR(WriteTextFile(args.save, ToJson(profile)));
  }
  if (args.format == "json") {
    fmt::print("{}", ToJson(profile));
  } else {
    PrintDeviceProfile(profile);
  }
  return OkStatus();
}

}  // namespace flashelm::cli
