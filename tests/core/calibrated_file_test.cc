#include "core/convert/calibrated_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/base/format.h"
#include "core/calibration.h"
#include "core/engine.h"
#include "core/model_layout.h"
#include "kernels/reference.h"
#include "predictor/predictor_file.h"
#include "storage/checksum.h"
#include "storage/weight_file.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/test_model.h"
#include "tests/storage/felm_image.h"

namespace flashelm {
namespace {

using test::CheckpointOptions;
using test::ConvertedModel;
using test::ReadFile;
using test::TempDirectory;
using test::WriteFile;

using Orders = std::vector<std::vector<uint32_t>>;

// A few bundles of the test models.
constexpr uint64_t kSmallBlock = 10'000;

ModelFile Open(const std::string& path) {
  auto model = ModelFile::Open(path);
  if (!model) ADD_FAILURE() << model.error().message();
  return std::move(model).value();
}

Orders RandomOrders(const ModelConfig& config, uint32_t seed) {
  std::mt19937 random(seed);
  Orders orders;
  for (const LayerConfig& layer : config.layers) {
    std::vector<uint32_t>& order = orders.emplace_back(layer.ffn_dim);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
  }
  return orders;
}

// Bytes of a model file by segment, padding of the last page left out.
class Image {
 public:
  explicit Image(const ModelFile& model)
      : model_(model), bytes_(ReadFile(model.path())) {}

  std::string_view SegmentBytes(uint32_t index) const {
    const Segment& segment = model_.weight_file().segments()[index];
    return std::string_view(bytes_).substr(segment.offset_bytes,
                                           segment.num_bytes());
  }
  std::string_view Record(uint32_t index, uint64_t record) const {
    const uint64_t stride = model_.weight_file().segments()[index].stride_bytes;
    return SegmentBytes(index).substr(record * stride, stride);
  }
  // The part of a record that `ref` is, of `cols` elements.
  std::string_view PartBytes(const PartRef& ref, uint64_t record,
                             uint64_t cols) const {
    return Record(ref.segment, record)
        .substr(ref.offset_bytes, ElementsBytes(ref.encoding, cols) +
                                      ScalesBytes(ref.encoding, cols));
  }
  double Norm(const PartRef& ref, uint64_t record, uint64_t cols) const {
    const std::string_view part = PartBytes(ref, record, cols);
    const WeightView view =
        ViewOfRows(reinterpret_cast<const std::byte*>(part.data()), 0,
                   WeightTypeOf(ref.encoding), cols);
    double sum = 0;
    for (size_t k = 0; k < cols; ++k) {
      const double weight = reference::WeightAt(view, 0, k);
      sum += weight * weight;
    }
    return std::sqrt(sum);
  }

 private:
  const ModelFile& model_;
  std::string bytes_;
};

// The segments that no calibration changes.
std::vector<uint32_t> OtherSegments(const ModelFile& model) {
  std::vector<uint32_t> indices;
  const auto& segments = model.weight_file().segments();
  for (uint32_t i = 0; i < segments.size(); ++i) {
    if (!HasNeurons(segments[i].kind) &&
        segments[i].kind != SegmentKind::kPredictor) {
      indices.push_back(i);
    }
  }
  return indices;
}

void ExpectLayout(const ModelFile& model, const ModelLayout& layout) {
  const auto& segments = model.weight_file().segments();
  ASSERT_EQ(segments.size(), layout.segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_EQ(segments[i].Describe(), layout.segments[i].Describe());
    EXPECT_EQ(segments[i].stride_bytes, layout.segments[i].stride_bytes);
  }
}

// What `out` has to be when it was written from `in` with `orders`.
void ExpectRearranged(const ModelFile& in, const ModelFile& out,
                      const Orders& orders, bool is_split) {
  const uint64_t dim = in.config().model_dim;
  const Image before(in);
  const Image after(out);
  for (uint32_t i = 0; i < in.config().num_layers(); ++i) {
    SCOPED_TRACE(i);
    const LayerWeights& from = in.weights().layers[i];
    const LayerWeights& to = out.weights().layers[i];
    EXPECT_EQ(to.has_split_gate(), is_split);
    ASSERT_TRUE(to.importance);
    const uint64_t ffn_dim = in.config().layers[i].ffn_dim;
    const std::string_view importance =
        after.PartBytes(*to.importance, 0, ffn_dim);
    for (uint64_t n = 0; n < ffn_dim; ++n) {
      const uint64_t old = orders.empty() ? n : orders[i][n];
      ASSERT_EQ(after.PartBytes(to.gate, n, dim),
                before.PartBytes(from.gate, old, dim));
      ASSERT_EQ(after.PartBytes(to.up, n, dim),
                before.PartBytes(from.up, old, dim));
      ASSERT_EQ(after.PartBytes(to.down, n, dim),
                before.PartBytes(from.down, old, dim));
      float stored = 0;
      std::memcpy(&stored, importance.data() + n * sizeof(float),
                  sizeof(stored));
      const double expected =
          before.Norm(from.up, old, dim) * before.Norm(from.down, old, dim);
      ASSERT_GT(expected, 0);
      ASSERT_NEAR(stored, expected, 1e-6 * expected);
    }
    EXPECT_EQ(to.has_split_down(), from.has_split_down());
    for (const PartRef* ref : {&to.gate, &to.up, &to.down}) {
      const Segment& segment = out.weight_file().segments()[ref->segment];
      const Part& last = segment.parts.back();
      const uint64_t used = last.offset_bytes + last.num_bytes();
      for (uint64_t n = 0; n < ffn_dim; ++n) {
        ASSERT_EQ(after.Record(ref->segment, n).substr(used),
                  std::string(segment.stride_bytes - used, '\0'));
      }
    }
  }

  const std::vector<uint32_t> others = OtherSegments(in);
  const std::vector<uint32_t> copies = OtherSegments(out);
  ASSERT_EQ(others.size(), copies.size());
  for (size_t i = 0; i < others.size(); ++i) {
    EXPECT_EQ(after.SegmentBytes(copies[i]), before.SegmentBytes(others[i]))
        << in.weight_file().segments()[others[i]].Describe();
  }
  EXPECT_EQ(out.weight_file().config(), in.weight_file().config());
  EXPECT_EQ(out.weight_file().ReadTokenizer().value(),
            in.weight_file().ReadTokenizer().value());
  Json provenance = out.weight_file().provenance();
  provenance.erase("calibration");
  EXPECT_EQ(provenance, in.weight_file().provenance());

  const auto verified = out.Verify(CancelToken(), nullptr);
  EXPECT_TRUE(verified) << verified.error().message();
}

class CalibratedFileTest : public testing::Test {
 protected:
  std::string File(const std::string& name) const {
    return directory_.File(name);
  }
  // A calibrated file of that name; its path.
  std::string Write(const ModelFile& in, const std::string& name,
                    const CalibratedFileOptions& options) const {
    const auto written = WriteCalibratedFile(in, File(name), options);
    EXPECT_TRUE(written) << written.error().message();
    return File(name);
  }
  StatusCode CodeOf(const ModelFile& in,
                    const CalibratedFileOptions& options) const {
    const auto written = WriteCalibratedFile(in, File("refused"), options);
    EXPECT_FALSE(written);
    EXPECT_TRUE(directory_.List().empty());
    return written ? StatusCode::kOk : written.error().code();
  }

  TempDirectory directory_;
};

class CalibratedFileEncodingTest
    : public CalibratedFileTest,
      public testing::WithParamInterface<Encoding> {};

TEST_P(CalibratedFileEncodingTest, PutsEveryPartOfEveryNeuronInItsNewPlace) {
  const ConvertedModel converted(CheckpointOptions{}, GetParam());
  const ModelFile in = Open(converted.path());
  CalibratedFileOptions options;
  options.neuron_order = RandomOrders(in.config(), 3);
  for (const bool is_split : {true, false}) {
    SCOPED_TRACE(is_split);
    options.split_gate = is_split;
    const ModelFile out = Open(Write(in, "out.felm", options));
    ExpectRearranged(in, out, options.neuron_order, is_split);
    const MatrixEncodings encodings = {in.weights().embedding.encoding,
                                       GetParam(), GetParam()};
    ExpectLayout(out,
                 MakeLayout(in.config(), encodings,
                            {.split_gate = is_split, .neuron_stats = true}));
    EXPECT_EQ(out.weights_name(), in.weights_name());
  }
}

INSTANTIATE_TEST_SUITE_P(All, CalibratedFileEncodingTest,
                         testing::Values(Encoding::kF32, Encoding::kBf16,
                                         Encoding::kQ8, Encoding::kQ4),
                         [](const auto& test) {
                           return std::string(EncodingName(test.param));
                         });

// The neurons of every layer are weighed as in bundles, to the bit.
TEST_P(CalibratedFileEncodingTest, RowsStayRows) {
  const ConvertedModel bundles(CheckpointOptions{}, GetParam());
  const ConvertedModel converted(CheckpointOptions{}, GetParam(),
                                 /*rows=*/true);
  const ModelFile in = Open(converted.path());
  CalibratedFileOptions options;
  options.neuron_order = RandomOrders(in.config(), 3);
  const ModelFile out = Open(Write(in, "out.felm", options));
  ExpectRearranged(in, out, options.neuron_order, true);
  const MatrixEncodings encodings = {in.weights().embedding.encoding,
                                     GetParam(), GetParam()};
  ExpectLayout(out, MakeLayout(in.config(), encodings,
                               {.rows = true, .neuron_stats = true}));
  options.block_bytes = kSmallBlock;
  EXPECT_EQ(ReadFile(Write(in, "blocks.felm", options)), ReadFile(out.path()));

  const ModelFile bundled =
      Open(Write(Open(bundles.path()), "bundled.felm", options));
  const Image image(out);
  const Image other(bundled);
  for (size_t i = 0; i < in.config().layers.size(); ++i) {
    const uint64_t ffn_dim = in.config().layers[i].ffn_dim;
    EXPECT_EQ(
        image.PartBytes(*out.weights().layers[i].importance, 0, ffn_dim),
        other.PartBytes(*bundled.weights().layers[i].importance, 0, ffn_dim));
  }

  options.neuron_order.clear();
  EXPECT_EQ(ReadFile(Write(out, "again.felm", options)), ReadFile(out.path()));
}

TEST_F(CalibratedFileTest, BlocksOfAnySizeGiveTheSameFile) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kQ8);
  const ModelFile in = Open(converted.path());
  CalibratedFileOptions options;
  options.calibration = {{"tokens", 12}};
  for (const bool is_reordered : {true, false}) {
    if (is_reordered) options.neuron_order = RandomOrders(in.config(), 4);
    for (const bool is_split : {true, false}) {
      options.split_gate = is_split;
      options.block_bytes = uint64_t{128} << 20;
      const std::string whole = ReadFile(Write(in, "whole.felm", options));
      for (const uint64_t bytes : {kSmallBlock, uint64_t{1}}) {
        options.block_bytes = bytes;
        EXPECT_EQ(ReadFile(Write(in, "blocks.felm", options)), whole)
            << is_reordered << is_split << bytes;
      }
    }
    options.neuron_order.clear();
  }
}

TEST_F(CalibratedFileTest, AnEmptyOrderLeavesALayerAsItIs) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kQ4);
  const ModelFile in = Open(converted.path());
  CalibratedFileOptions options;
  options.block_bytes = kSmallBlock;
  ExpectRearranged(in, Open(Write(in, "all.felm", options)), {}, true);

  Orders expected = RandomOrders(in.config(), 5);
  options.neuron_order = expected;
  options.neuron_order[1].clear();
  std::iota(expected[1].begin(), expected[1].end(), 0u);
  ExpectRearranged(in, Open(Write(in, "one.felm", options)), expected, true);
}

TEST_F(CalibratedFileTest, ACalibratedFileCanBeCalibratedAgain) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile in = Open(converted.path());
  const Orders first = RandomOrders(in.config(), 6);
  const Orders second = RandomOrders(in.config(), 7);
  CalibratedFileOptions options;
  options.neuron_order = second;
  for (size_t i = 0; i < first.size(); ++i) {
    for (uint32_t& neuron : options.neuron_order[i]) neuron = first[i][neuron];
  }
  const std::string at_once = ReadFile(Write(in, "once.felm", options));

  options.block_bytes = kSmallBlock;
  for (const bool was_split : {true, false}) {
    options.neuron_order = first;
    options.split_gate = was_split;
    options.calibration = {{"text", "the first"}};
    const ModelFile between = Open(Write(in, "between.felm", options));
    options.neuron_order = second;
    options.split_gate = true;
    options.calibration = Json::object();
    EXPECT_EQ(ReadFile(Write(between, "twice.felm", options)), at_once)
        << was_split;
  }
}

TEST_F(CalibratedFileTest, HasFrequenciesAndPredictors) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile in = Open(converted.path());
  CalibratedFileOptions options;
  options.neuron_order = RandomOrders(in.config(), 9);
  for (uint32_t i = 0; i < in.config().num_layers(); ++i) {
    const uint32_t ffn_dim = in.config().layers[i].ffn_dim;
    for (uint32_t n = 0; n < ffn_dim; ++n) {
      options.frequency.resize(i + 1);
      options.frequency[i].push_back(static_cast<float>(i * 1000 + n));
    }
    const LowBitGate::Shape shape = {1 + i % 2, ffn_dim, in.config().model_dim};
    options.predictors.push_back(
        StorePredictor(shape, 0.25f * static_cast<float>(i),
                       std::vector<std::byte>(LowBitGate::NumBytes(shape),
                                              static_cast<std::byte>(i + 1))));
  }
  for (const bool is_split : {false, true}) {
    options.split_gate = is_split;
    const ModelFile out = Open(Write(in, "out.felm", options));
    ExpectRearranged(in, out, options.neuron_order, is_split);
    const Image image(out);
    for (uint32_t i = 0; i < in.config().num_layers(); ++i) {
      SCOPED_TRACE(i);
      const LayerWeights& layer = out.weights().layers[i];
      ASSERT_TRUE(layer.predictor);
      ASSERT_EQ(layer.predictor_bytes, options.predictors[i].size());
      EXPECT_EQ(image.PartBytes(*layer.predictor, 0, layer.predictor_bytes),
                std::string_view(
                    reinterpret_cast<const char*>(options.predictors[i].data()),
                    options.predictors[i].size()));
      const size_t ffn_dim = options.frequency[i].size();
      const auto frequency = image.PartBytes(*layer.frequency, 0, ffn_dim);
      for (size_t n = 0; n < ffn_dim; ++n) {
        float stored = 0;
        std::memcpy(&stored, frequency.data() + n * sizeof(float),
                    sizeof(stored));
        ASSERT_EQ(stored, options.frequency[i][options.neuron_order[i][n]]);
      }
    }
  }

  const auto refused = [&](const auto& change) {
    CalibratedFileOptions other = options;
    change(other);
    EXPECT_EQ(CodeOf(in, other), StatusCode::kInvalidArgument);
  };
  std::filesystem::remove(File("out.felm"));
  refused([](CalibratedFileOptions& other) { other.frequency.pop_back(); });
  refused([](CalibratedFileOptions& other) { other.frequency[1].pop_back(); });
  refused([](CalibratedFileOptions& other) { other.predictors.pop_back(); });
  refused([](CalibratedFileOptions& other) { other.predictors[1].pop_back(); });
  refused([](CalibratedFileOptions& other) { other.predictors[1].clear(); });
}

TEST_F(CalibratedFileTest, SplitGatesDoNotGoBack) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile split = Open(Write(Open(converted.path()), "split.felm", {}));
  CalibratedFileOptions options;
  options.split_gate = false;
  const auto merged = WriteCalibratedFile(split, File("merged"), options);
  ASSERT_FALSE(merged);
  EXPECT_EQ(merged.error().code(), StatusCode::kInvalidArgument);
}

TEST_F(CalibratedFileTest, RefusesOrdersThatAreNotOfAllNeurons) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile in = Open(converted.path());
  const Orders good = RandomOrders(in.config(), 8);
  const auto refused = [&](const auto& change) {
    CalibratedFileOptions options;
    options.neuron_order = good;
    change(options.neuron_order);
    EXPECT_EQ(CodeOf(in, options), StatusCode::kInvalidArgument);
  };
  refused([](Orders& orders) { orders.pop_back(); });
  refused([](Orders& orders) { orders.emplace_back(); });
  refused([](Orders& orders) { orders[2].pop_back(); });
  refused([](Orders& orders) { orders[2].push_back(0); });
  refused([](Orders& orders) { orders[0][3] = orders[0][4]; });
  refused([](Orders& orders) {
    orders[1][0] = static_cast<uint32_t>(orders[1].size());
  });
  refused([](Orders& orders) { orders[1][0] = UINT32_MAX; });
}

TEST_F(CalibratedFileTest, RefusesACalibrationThatNoReaderTakes) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile in = Open(converted.path());
  CalibratedFileOptions options;
  options.calibration = "text";
  EXPECT_EQ(CodeOf(in, options), StatusCode::kInvalidArgument);
  options.calibration = {{"text", std::string(uint64_t{4} << 20, 'x')}};
  EXPECT_EQ(CodeOf(in, options), StatusCode::kInvalidArgument);
  Json deep = 1;
  for (int i = 0; i < 13; ++i) deep = Json{{"in", std::move(deep)}};
  options.calibration = deep;
  EXPECT_EQ(CodeOf(in, options), StatusCode::kInvalidArgument);

  // The largest that is taken, and bytes that are no text.
  options.calibration = deep["in"];
  options.calibration["text"] = "\xff" + std::string(1'000'000, 'x');
  const ModelFile out = Open(Write(in, "large.felm", options));
  EXPECT_EQ(out.weight_file().provenance()["calibration"]["in"],
            deep["in"]["in"]);
}

TEST_F(CalibratedFileTest, RefusesTheInputAsOutput) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const std::string bytes = ReadFile(converted.path());
  const auto written =
      WriteCalibratedFile(Open(converted.path()), converted.path(), {});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFile(converted.path()), bytes);
}

// A file with those bytes and another manifest.
void WriteEdited(const std::string& path, const std::string& bytes,
                 const std::function<void(Json& manifest)>& change) {
  FelmEdit edit;
  edit.manifest = change;
  const auto* begin = reinterpret_cast<const std::byte*>(bytes.data());
  const std::vector<std::byte> edited =
      EditFelm({begin, begin + bytes.size()}, edit);
  WriteFile(path,
            {reinterpret_cast<const char*>(edited.data()), edited.size()});
}

TEST_F(CalibratedFileTest, RefusesDamagedWeights) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile good = Open(converted.path());
  const std::string bytes = ReadFile(converted.path());
  const TempDirectory damaged;
  for (const Segment& segment : good.weight_file().segments()) {
    SCOPED_TRACE(segment.Describe());
    std::string other = bytes;
    other[segment.offset_bytes + segment.num_bytes() - 1] ^= 1;
    WriteFile(damaged.File("model.felm"), other);
    EXPECT_EQ(CodeOf(Open(damaged.File("model.felm")), {}),
              StatusCode::kDataLoss);
  }
}

TEST_F(CalibratedFileTest, RefusesWhatItWouldNotTakeOver) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const TempDirectory other;
  WriteEdited(other.File("model.felm"), ReadFile(converted.path()),
              [](Json& manifest) {
                Json tensor = manifest["tensors"][0];
                tensor["name"] = "another";
                manifest["tensors"].push_back(std::move(tensor));
              });
  EXPECT_EQ(CodeOf(Open(other.File("model.felm")), {}),
            StatusCode::kUnimplemented);
}

TEST_F(CalibratedFileTest, ACancelledCallLeavesNoFile) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile in = Open(converted.path());
  CancelToken cancel;
  CalibratedFileOptions options;
  options.cancel = &cancel;
  options.block_bytes = kSmallBlock;
  cancel.Cancel();
  EXPECT_EQ(CodeOf(in, options), StatusCode::kCancelled);

  // In the middle, where another file stays.
  cancel.Reset();
  WriteFile(File("out.felm"), "what was there");
  options.progress = [&](uint64_t done, uint64_t total) {
    if (done > total / 2) cancel.Cancel();
  };
  const auto written = WriteCalibratedFile(in, File("out.felm"), options);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), StatusCode::kCancelled);
  EXPECT_EQ(directory_.List(), std::vector<std::string>{"out.felm"});
  EXPECT_EQ(ReadFile(File("out.felm")), "what was there");
}

TEST_F(CalibratedFileTest, ProgressEndsWithAllBytes) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile in = Open(converted.path());
  CalibratedFileOptions options;
  uint64_t last = 0;
  uint64_t total = 0;
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_GT(done, last);
    last = done;
    total = all;
  };
  const ModelFile out = Open(Write(in, "out.felm", options));
  EXPECT_EQ(total, out.weight_file().weight_bytes());
  EXPECT_EQ(last, total);
}

TEST_F(CalibratedFileTest, TheHashIsOfAllChecksumsButThePredictors) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kQ4);
  const ModelFile in = Open(converted.path());
  CalibratedFileOptions options;
  options.calibration = {{"weights_hash", "of another file"}, {"tokens", 5}};
  std::set<std::string> hashes;
  for (const bool is_reordered : {false, true}) {
    if (is_reordered) options.neuron_order = RandomOrders(in.config(), 9);
    const ModelFile out = Open(Write(in, "out.felm", options));
    const WeightFile& file = out.weight_file();
    const Json& calibration = file.provenance()["calibration"];
    EXPECT_EQ(calibration["tokens"], 5);
    const std::string image = ReadFile(out.path());
    std::string kept;
    for (const Segment& segment : file.segments()) {
      if (segment.kind == SegmentKind::kPredictor) continue;
      kept += image.substr(
          file.header().sections[kChecksums].offset_bytes +
              segment.first_checksum_byte,
          segment.num_checksums() * ChecksumBytes(segment.checksum));
    }
    EXPECT_EQ(calibration["weights_hash"],
              fmt::format("{:016x}", Xxh3(std::as_bytes(std::span(kept)))));
    hashes.insert(calibration["weights_hash"].get<std::string>());
    const Status status = CheckCalibration(out);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  EXPECT_EQ(hashes.size(), 2u);
}

TEST_F(CalibratedFileTest, CheckCalibrationSaysWhatToDo) {
  const ConvertedModel converted(CheckpointOptions{}, Encoding::kBf16);
  const ModelFile in = Open(converted.path());
  const std::string calibrated =
      ReadFile(Write(in, "calibrated.felm", CalibratedFileOptions{}));
  const auto expect = [](const ModelFile& model, StatusCode code,
                         const std::string& file) {
    const Status status = CheckCalibration(model);
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(status.message().find("run: flashelm calibrate -m " + file +
                                    " -f TEXT -o OUT.felm"),
              std::string::npos)
        << status.message();
  };
  expect(in, StatusCode::kNotFound, in.path());
  using Change = std::function<void(Json&)>;
  for (const Change& change :
       {Change([](Json& c) { c["weights_hash"] = "0123456789abcdef"; }),
        Change([](Json& c) { c.erase("weights_hash"); }),
        Change([](Json& c) { c["weights_hash"] = 1; }),
        Change([](Json& c) { c = 1; })}) {
    WriteEdited(File("other.felm"), calibrated, [&](Json& manifest) {
      change(manifest["provenance"]["calibration"]);
    });
    const ModelFile other = Open(File("other.felm"));
    expect(other, StatusCode::kDataLoss, "MODEL.felm");
    // And no engine uses what was found for other weights.
    EngineOptions options;
    options.plan.whole_process = false;
    options.plan.sparsity.selector = Selector::kRandom;
    options.plan.sparsity.kept_fraction = 0.5;
    const auto engine = Engine::Create(Open(other.path()), options);
    ASSERT_FALSE(engine);
    EXPECT_EQ(engine.error().code(), StatusCode::kDataLoss)
        << engine.error().message();
  }
}

// Until it computes with them: an error, and none of a model that is read
// wrong.
}  // namespace
}  // namespace flashelm
