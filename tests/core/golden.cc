#include "tests/core/golden.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/core/checkpoint_builder.h"
#include "tests/core/test_model.h"

namespace flashelm::test {

NpyMatrix ReadNpy(const std::string& path) {
  NpyMatrix matrix;
  const std::string bytes = ReadFile(path);
  EXPECT_GE(bytes.size(), 10u) << path;
  if (bytes.size() < 10) return matrix;
  const size_t header_bytes = static_cast<unsigned char>(bytes[8]) +
                              256 * static_cast<unsigned char>(bytes[9]);
  const std::string header = bytes.substr(10, header_bytes);
  EXPECT_NE(header.find("'descr': '<f4'"), std::string::npos) << path;
  EXPECT_NE(header.find("'fortran_order': False"), std::string::npos) << path;
  unsigned long long rows = 0;
  unsigned long long cols = 0;
  const size_t shape = header.find("'shape': (");
  EXPECT_EQ(std::sscanf(header.c_str() + shape, "'shape': (%llu, %llu)", &rows,
                        &cols),
            2)
      << path;
  const size_t data_bytes = bytes.size() - 10 - header_bytes;
  EXPECT_EQ(data_bytes, rows * cols * sizeof(float)) << path;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.values.resize(data_bytes / sizeof(float));
  std::memcpy(matrix.values.data(), bytes.data() + 10 + header_bytes,
              matrix.values.size() * sizeof(float));
  return matrix;
}

Golden ReadGolden(const std::string& model) {
  const std::string directory = SampleModelDirectory(model) + "/golden/";
  const auto json = nlohmann::json::parse(ReadFile(directory + "golden.json"));
  Golden golden;
  for (const auto& prompt : json.at("prompts")) {
    golden.prompts.push_back(
        {prompt.at("text"), prompt.at("ids"),
         ReadNpy(directory + prompt.at("logits").get<std::string>()).values,
         prompt.at("greedy_ids"), prompt.at("greedy_text")});
  }
  for (const auto& entry : json.at("perplexity")) {
    golden.perplexity.push_back(
        {entry.at("file"), entry.at("n_ctx"), entry.at("n_tokens"),
         entry.at("mean_nll"), entry.at("stderr_nll"), entry.at("perplexity")});
  }
  EXPECT_FALSE(golden.prompts.empty());
  EXPECT_FALSE(golden.perplexity.empty());
  return golden;
}

}  // namespace flashelm::test
