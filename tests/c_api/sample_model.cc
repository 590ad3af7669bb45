#include "tests/c_api/sample_model.h"

#include "tests/core/golden.h"
#include "tests/core/test_model.h"

struct SampleModel::Model {
  flashelm::test::ConvertedModel converted{
      flashelm::test::SampleModelDirectory("tiny-stories"),
      flashelm::Encoding::kBf16};
};

SampleModel::SampleModel()
    : model_(std::make_unique<Model>()), path_(model_->converted.path()) {
  const flashelm::test::Golden golden =
      flashelm::test::ReadGolden("tiny-stories");
  prompt_ = golden.prompts[0].text;
  text_ = golden.prompts[0].greedy_text;
  num_tokens_ = golden.prompts[0].greedy_ids.size();
}

SampleModel::~SampleModel() = default;
