#include "core/neuron_use.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "storage/json.h"
#include "tests/core/calibrated_sample.h"

namespace flashelm::test {
namespace {

Segment SegmentOf(uint64_t stride_bytes, uint64_t num_records) {
  Segment segment;
  segment.stride_bytes = stride_bytes;
  segment.num_records = num_records;
  return segment;
}

// The planner merges reads for ids; what that comes to on average is said
// without any.
TEST(ReadNsTest, IsWhatThePlannerComesTo) {
  std::mt19937 random(7);
  for (const uint64_t stride : {1024, 3456, 12288}) {
    for (const double request_ns : {1e3, 1e4, 1e5}) {
      for (const double part : {0.01, 0.05, 0.2, 0.5, 0.8}) {
        SCOPED_TRACE(testing::Message()
                     << stride << " bytes, " << request_ns << " ns, " << part);
        constexpr uint64_t kRecords = 8192;
        const Segment segment = SegmentOf(stride, kRecords);
        ReadCost cost;
        cost.request_ns = request_ns;
        cost.bytes_per_ns = 2;
        std::vector<uint32_t> ids;
        for (uint32_t i = 0; i < kRecords; ++i) {
          if (random() < part * 0x1p32) ids.push_back(i);
        }
        const double planned =
            std::min(ReadPlanner(segment, cost, 1 << 20).PredictNs(ids),
                     static_cast<double>(kRecords * stride) / 2);
        const double predicted =
            ReadNs(segment, static_cast<double>(ids.size()), 1, cost);
        EXPECT_NEAR(predicted, planned, 0.15 * planned);
      }
    }
  }
}

// Neighbours that are used together, as co-activation order has them.
TEST(ReadNsTest, RunsAreReadTogether) {
  std::mt19937 random(8);
  constexpr uint64_t kRecords = 8192;
  const Segment segment = SegmentOf(3456, kRecords);
  ReadCost cost;
  cost.bytes_per_ns = 2;
  for (const double request_ns : {1e3, 1e4, 1e5}) {
    cost.request_ns = request_ns;
    for (const double run_length : {1.5, 4.0, 12.0}) {
      for (const double part : {0.01, 0.05, 0.2, 0.5}) {
        SCOPED_TRACE(testing::Message() << request_ns << " ns, runs of "
                                        << run_length << ", " << part);
        // A run goes on, or begins, with these probabilities.
        const double goes_on = 1 - 1 / run_length;
        const double begins = part / run_length / (1 - part);
        if (goes_on < part) continue;
        std::vector<uint32_t> ids;
        bool is_wanted = false;
        for (uint32_t i = 0; i < kRecords; ++i) {
          is_wanted = random() < (is_wanted ? goes_on : begins) * 0x1p32;
          if (is_wanted) ids.push_back(i);
        }
        uint32_t num_runs = 0;
        for (size_t i = 0; i < ids.size(); ++i) {
          if (i == 0 || ids[i] != ids[i - 1] + 1) ++num_runs;
        }
        const double planned =
            std::min(ReadPlanner(segment, cost, 1 << 20).PredictNs(ids),
                     static_cast<double>(segment.num_bytes()) / 2);
        const auto count = static_cast<double>(ids.size());
        EXPECT_NEAR(ReadNs(segment, count, count / num_runs, cost), planned,
                    0.15 * planned);
        // If they lay anywhere, most would be a read each.
        if (part == 0.01 && run_length > 2) {
          EXPECT_GT(ReadNs(segment, count, 1, cost), 1.5 * planned);
        }
      }
    }
  }
}

TEST(ReadNsTest, TakesNoLongerThanTheWholeSegment) {
  const Segment segment = SegmentOf(4096, 1000);
  ReadCost cost;
  cost.request_ns = 1e6;
  cost.bytes_per_ns = 1;
  EXPECT_EQ(ReadNs(segment, 0, 1, cost), 0);
  EXPECT_DOUBLE_EQ(ReadNs(segment, 900, 1, cost), 4096e3);
  cost.sequential_bytes_per_ns = 4;
  EXPECT_DOUBLE_EQ(ReadNs(segment, 900, 1, cost), 1024e3);
  EXPECT_LE(ReadNs(segment, 1, 1, cost), 1e6 + 4096);
  EXPECT_DOUBLE_EQ(ReadNs(segment, 1000, 1, cost), 1024e3);
  EXPECT_DOUBLE_EQ(ReadNs(segment, 1000, 50, cost), 1024e3);
}

TEST(ExpectedMissesTest, TheSameNeuronsStayCached) {
  const Segment segment = SegmentOf(4096, 1000);
  const NeuronUse half = {.kept = 500, .frequency = {}};
  EXPECT_DOUBLE_EQ(ExpectedMisses(half, segment, 0, false), 500);
  EXPECT_DOUBLE_EQ(ExpectedMisses(half, segment, 400, false), 300);
  EXPECT_DOUBLE_EQ(ExpectedMisses(half, segment, 400, true), 100);
  EXPECT_DOUBLE_EQ(ExpectedMisses(half, segment, 1000, false), 0);
}

TEST(NeuronUseTest, NeighboursGoTogetherAsTheCalibrationFound) {
  const auto tenth = [](uint32_t, uint32_t) { return 0.1f; };
  const auto run_of = [&](const Json& runs, Selector selector) {
    Json calibration;
    calibration["layers"]["run_length_after"] = runs;
    const CalibratedSample sample("tiny-stories-relu", tenth, /*rows=*/false,
                                  calibration);
    SparsityOptions options;
    options.selector = selector;
    options.kept_fraction = 0.1;
    const std::vector<float> frequency(sample.model->config().layers[1].ffn_dim,
                                       0.1f);
    const auto use = UseOf(*sample.model, options, 1, frequency);
    EXPECT_TRUE(use);
    return use ? use->run_length : 0;
  };
  const Json runs = {1, 3.5, 1, 1, 1, 1};
  EXPECT_EQ(run_of(runs, Selector::kGate), 3.5);
  EXPECT_EQ(run_of(runs, Selector::kRandom), 1);
  EXPECT_EQ(run_of(runs, Selector::kMagnitude), 1);
  // Not what a calibration writes.
  EXPECT_EQ(run_of({1, 0.5, 1, 1, 1, 1}, Selector::kGate), 1);
  EXPECT_EQ(run_of({1, 1e9, 1, 1, 1, 1}, Selector::kGate), 1);
  EXPECT_EQ(run_of({1, "3", 1, 1, 1, 1}, Selector::kGate), 1);
  EXPECT_EQ(run_of({1, 3.5}, Selector::kGate), 1);
  EXPECT_EQ(run_of("none", Selector::kGate), 1);
}

TEST(NeuronUseTest, TokensResembleThoseBeforeAsTheCalibrationFound) {
  const auto tenth = [](uint32_t, uint32_t) { return 0.1f; };
  const auto misses_of = [&](const Json& fresh, uint64_t num_cached) {
    Json calibration;
    calibration["layers"]["fresh_fractions"] = fresh;
    const CalibratedSample sample("tiny-stories-relu", tenth, /*rows=*/false,
                                  calibration);
    SparsityOptions options;
    options.selector = Selector::kGate;
    const std::vector<float> frequency(sample.model->config().layers[1].ffn_dim,
                                       0.1f);
    const auto use = UseOf(*sample.model, options, 1, frequency);
    EXPECT_TRUE(use);
    if (!use) return 0.0;
    // 32 of 320 by each token.
    Segment segment;
    segment.num_records = 320;
    return ExpectedMisses(*use, segment, num_cached, false);
  };
  const auto of_layer_1 = [](const Json& of_layer) {
    return Json{{}, of_layer, {}, {}, {}, {}};
  };
  // One token's neurons fit in 32, those of two in 32 + 16 more.
  const Json fresh = of_layer_1({0.5, 0.25});
  EXPECT_NEAR(misses_of(fresh, 0), 32, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 16), 24, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 32), 16, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 40), 12, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 48), 8, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 100), 8, 1e-3);
  // With room for most neurons, which token used them does not matter.
  EXPECT_NEAR(misses_of(fresh, 300), 2, 1e-3);
  EXPECT_NEAR(misses_of(fresh, 320), 0, 1e-3);
  // Without, and with what no calibration writes.
  const double unknown = misses_of(of_layer_1(Json::array()), 48);
  EXPECT_GT(unknown, 27);
  EXPECT_EQ(misses_of("none", 48), unknown);
  EXPECT_EQ(misses_of(of_layer_1({0.5, "0.2"}), 48), unknown);
  EXPECT_EQ(misses_of(of_layer_1({0.25, 0.5}), 48), unknown);
  EXPECT_EQ(misses_of(of_layer_1({1.5}), 48), unknown);
}

}  // namespace
}  // namespace flashelm::test
