// What codes of few bits cost in quality, of weights and of activations apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/perplexity.h"
#include "kernels/float_types.h"
#include "kernels/quantize.h"
#include "kernels/reference.h"
#include "kernels/weight_view.h"
#include "tests/core/checkpoint_builder.h"
#include "tests/core/golden.h"
#include "tests/core/test_model.h"

namespace flashelm::test {
namespace {

// A row to what a scheme makes of it: whole groups.
using Scheme = std::function<void(std::vector<float>& row)>;

Scheme Stored(WeightType type) {
  return [type](std::vector<float>& row) {
    std::vector<std::byte> bytes(RowBytes(type, row.size()));
    QuantizeRow(type, row.data(), row.size(), bytes.data());
    const WeightView view =
        ViewOfRows(bytes.data(), bytes.size(), type, row.size());
    for (size_t i = 0; i < row.size(); ++i) {
      row[i] = reference::WeightAt(view, 0, i);
    }
  };
}

// The plain schemes of four bits: the weight of a group that is farthest from
// 0 gets the code `extreme` and so decides on the scale. With -8 that is Q4_0
// of llama.cpp.
Scheme OfExtreme(int extreme) {
  return [extreme](std::vector<float>& row) {
    for (size_t begin = 0; begin < row.size(); begin += kQuantGroup) {
      float farthest = 0;
      for (size_t i = begin; i < begin + kQuantGroup; ++i) {
        if (std::abs(row[i]) > std::abs(farthest)) farthest = row[i];
      }
      if (extreme > 0) farthest = std::abs(farthest);
      const float scale =
          F32FromF16(F16FromF32(farthest / static_cast<float>(extreme)));
      for (size_t i = begin; i < begin + kQuantGroup; ++i) {
        const float code = scale == 0 ? 0 : std::round(row[i] / scale);
        row[i] = std::clamp(code, -8.0f, 7.0f) * scale;
      }
    }
  };
}

// models/tiny-stories with other weights, in f32: `embedding` for that matrix
// and `rest` for the others, along the dimension that a model file has groups
// along: the columns of a matrix, but for down projections, whose columns are
// those of neurons.
void WriteScheme(const std::string& directory, const Scheme& embedding,
                 const Scheme& rest) {
  const std::string source = SampleModelDirectory("tiny-stories");
  const std::string file = ReadFile(source + "/model.safetensors");
  uint64_t directory_bytes = 0;
  std::memcpy(&directory_bytes, file.data(), sizeof(directory_bytes));
  const Json tensors = Json::parse(file.substr(8, directory_bytes));
  std::vector<RawTensor> written;
  for (const auto& [name, tensor] : tensors.items()) {
    if (name == "__metadata__") continue;
    ASSERT_EQ(tensor["dtype"], "BF16") << name;
    const auto shape = tensor["shape"].get<std::vector<uint64_t>>();
    const size_t begin =
        8 + directory_bytes + tensor["data_offsets"][0].get<size_t>();
    const size_t end =
        8 + directory_bytes + tensor["data_offsets"][1].get<size_t>();
    std::vector<float> values((end - begin) / sizeof(Bf16));
    for (size_t i = 0; i < values.size(); ++i) {
      Bf16 bits;
      std::memcpy(&bits, file.data() + begin + i * sizeof(bits), sizeof(bits));
      values[i] = F32FromBf16(bits);
    }
    if (shape.size() == 2) {
      const bool is_down = name.find("proj_2") != std::string::npos;
      const size_t num_rows = is_down ? shape[1] : shape[0];
      const size_t num_cols = is_down ? shape[0] : shape[1];
      const Scheme& scheme =
          name.find("embedding") != std::string::npos ? embedding : rest;
      const auto at = [&](size_t row, size_t col) -> float& {
        return is_down ? values[col * num_rows + row]
                       : values[row * num_cols + col];
      };
      std::vector<float> row(num_cols);
      for (size_t r = 0; r < num_rows; ++r) {
        for (size_t c = 0; c < num_cols; ++c) row[c] = at(r, c);
        scheme(row);
        for (size_t c = 0; c < num_cols; ++c) at(r, c) = row[c];
      }
    }
    written.push_back({name, "F32", shape, EncodeValues(values, "F32")});
  }
  WriteTensors(directory, written, 1);
  for (const char* name : {"config.json", "tokenizer.model"}) {
    WriteFile(directory + "/" + name, ReadFile(source + "/" + name));
  }
}

// Of each text: enough for the order of the schemes. docs/BENCHMARKS.md has
// what all of both make.
constexpr size_t kMostTokens = 12000;

class QuantizationQualityTest : public testing::Test {
 protected:
  static Running Open(const std::string& path) {
    EngineOptions options;
    options.plan.all_logits = true;
    options.plan.num_threads = 2;
    return Start(path, options);
  }
  static Running OpenScheme(const Scheme& embedding, const Scheme& rest) {
    const TempDirectory directory;
    WriteScheme(directory.path(), embedding, rest);
    const ConvertedModel model(directory.path(), Encoding::kF32);
    return Open(model.path());
  }
  static Running OpenSample(Encoding encoding) {
    const ConvertedModel model(SampleModelDirectory("tiny-stories"), encoding);
    return Open(model.path());
  }
};

// Weights with a scale of least error are nearer to the model than those whose
// scale the largest weight decides on, all computed with the same activations;
// and that the engine has those in codes as well makes no difference worth
// mentioning.
TEST_F(QuantizationQualityTest, OfWeightsAndOfActivations) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "too slow under a sanitizer or in an emulator";
#endif
  const Scheme q8 = Stored(WeightType::kQ8);
  Running exact = OpenSample(Encoding::kF32);
  struct Row {
    const char* name;
    Running running;
    PerplexityResult result;
  };
  enum { kQ8File, kQ8Weights, kQ4File, kQ4Weights, kMax7, kMax8, kNumRows };
  Row rows[kNumRows] = {
      {"q8, activations in int8", OpenSample(Encoding::kQ8), {}},
      {"q8, in f32", OpenScheme(q8, q8), {}},
      {"q4, activations in int8", OpenSample(Encoding::kQ4), {}},
      {"q4, in f32", OpenScheme(q8, Stored(WeightType::kQ4)), {}},
      {"max / 7, in f32", OpenScheme(q8, OfExtreme(7)), {}},
      {"max / -8, in f32", OpenScheme(q8, OfExtreme(-8)), {}},
  };
  ASSERT_NE(exact.session, nullptr);
  for (const GoldenPerplexity& golden : ReadGolden("tiny-stories").perplexity) {
    SCOPED_TRACE(golden.file);
    std::vector<TokenId> tokens = TokensOfText(*exact.engine, golden.file);
    tokens.resize(std::min(tokens.size(), kMostTokens));
    const CancelToken never;
    for (Row& row : rows) {
      ASSERT_NE(row.running.session, nullptr) << row.name;
      const auto result = MeasurePerplexity(
          *row.running.session, tokens, exact.engine->config().bos_id,
          golden.n_ctx, never, {}, exact.session.get());
      ASSERT_TRUE(result) << result.error().message();
      row.result = *result;
      std::printf(
          "%s, %s: perplexity %.4f (%+.3f %%), KL %.5f, same %.3f\n",
          golden.file.c_str(), row.name, result->perplexity,
          100 * (result->perplexity / result->divergence->reference_perplexity -
                 1),
          result->divergence->mean_kl, result->divergence->same_top);
    }
    const double exact_perplexity =
        rows[0].result.divergence->reference_perplexity;
    const auto perplexity = [&](int row) {
      return rows[row].result.perplexity;
    };
    const auto kl = [&](int row) {
      return rows[row].result.divergence->mean_kl;
    };
    // What codes of activations cost.
    EXPECT_NEAR(perplexity(kQ8File), perplexity(kQ8Weights),
                0.001 * perplexity(kQ8Weights));
    EXPECT_NEAR(perplexity(kQ4File), perplexity(kQ4Weights),
                0.001 * perplexity(kQ4Weights));
    for (const int plain : {kMax7, kMax8}) {
      EXPECT_LT(kl(kQ4Weights), kl(plain)) << rows[plain].name;
      EXPECT_LT(kl(kQ4File), kl(plain)) << rows[plain].name;
    }
    EXPECT_LT(perplexity(kQ4File), perplexity(kMax7));
    EXPECT_LT(perplexity(kQ4File), 1.02 * exact_perplexity);
  }
}

}  // namespace
}  // namespace flashelm::test
