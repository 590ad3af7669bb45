// Sample models with calibrations as a test likes them.
#ifndef FLASHELM_TESTS_CORE_CALIBRATED_SAMPLE_H_
#define FLASHELM_TESTS_CORE_CALIBRATED_SAMPLE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/convert/calibrated_file.h"
#include "core/memory_plan.h"
#include "core/model_file.h"
#include "storage/json.h"
#include "tests/core/test_model.h"
#include "tests/temp_directory.h"

namespace flashelm::test {

using FrequencyOf = std::function<float(uint32_t layer, uint32_t neuron)>;

// A sample model with its gates split off, and frequencies as they come.
class CalibratedSample {
 public:
  CalibratedSample(const std::string& sample, const FrequencyOf& frequency_of,
                   bool rows = false,
                   const Json& calibration = Json::object()) {
    const ConvertedModel converted(SampleModelDirectory(sample),
                                   Encoding::kBf16, rows);
    const auto in = ModelFile::Open(converted.path());
    EXPECT_TRUE(in) << in.error().message();
    CalibratedFileOptions options;
    options.calibration = calibration;
    for (uint32_t i = 0; i < in->config().num_layers(); ++i) {
      const uint32_t ffn_dim = in->config().layers[i].ffn_dim;
      auto& order = options.neuron_order.emplace_back(ffn_dim);
      std::iota(order.begin(), order.end(), 0u);
      if (!frequency_of) continue;
      auto& frequency = options.frequency.emplace_back();
      for (uint32_t n = 0; n < ffn_dim; ++n) {
        frequency.push_back(frequency_of(i, n));
      }
    }
    const std::string path = directory_.path() + "/calibrated.felm";
    const auto written = WriteCalibratedFile(*in, path, options);
    EXPECT_TRUE(written) << written.error().message();
    auto opened = ModelFile::Open(path);
    EXPECT_TRUE(opened) << opened.error().message();
    model.emplace(std::move(*opened));
  }

  // With no layer streamed, unless there is a cost to decide by.
  MemoryPlan Plan(uint64_t budget, double kept_fraction = 0,
                  const std::optional<ReadCost>& cost = {}) const {
    const auto plan = TryPlan(budget, kept_fraction, cost);
    EXPECT_TRUE(plan) << plan.error().message();
    return plan ? *plan : MemoryPlan();
  }
  Result<MemoryPlan> TryPlan(uint64_t budget, double kept_fraction,
                             const std::optional<ReadCost>& cost) const {
    PlanOptions options;
    if (!cost) options.sparsity.reads = NeuronReads::kSingle;
    options.read_cost = cost.value_or(ReadCost());
    // Without threads that read: their stacks are large under sanitizers.
    options.io = IoBackend::kUring;
    options.budget_bytes = budget;
    options.context = 64;
    options.max_batch = 8;
    options.whole_process = false;
    options.sparsity.selector = Selector::kGate;
    options.sparsity.kept_fraction = kept_fraction;
    return MakePlan(*model, options);
  }

  std::optional<ModelFile> model;

 private:
  TempDirectory directory_;
};

// The budget with which all but the bundles is resident, at least.
inline uint64_t WithoutBundles(const CalibratedSample& sample,
                               double kept_fraction = 0) {
  const MemoryPlan all = sample.Plan(kUnlimitedBytes, kept_fraction);
  for (const PlanLine& line : all.lines) {
    if (line.name == "cache of bundles") return all.total_bytes - line.bytes;
  }
  ADD_FAILURE() << "no cache";
  return 0;
}

inline uint64_t Sum(const std::vector<uint32_t>& values) {
  return std::accumulate(values.begin(), values.end(), uint64_t{0});
}

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CORE_CALIBRATED_SAMPLE_H_
