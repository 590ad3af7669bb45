// A model for tests that see nothing of the engine.
#ifndef FLASHELM_TESTS_C_API_SAMPLE_MODEL_H_
#define FLASHELM_TESTS_C_API_SAMPLE_MODEL_H_

#include <memory>
#include <string>
#include <vector>

// models/tiny-stories as a model file, which goes with this, and the first of
// its recorded texts.
class SampleModel {
 public:
  SampleModel();
  ~SampleModel();

  const std::string& path() const { return path_; }
  const std::string& prompt() const { return prompt_; }
  // Prompt and continuation, of so many tokens.
  const std::string& text() const { return text_; }
  size_t num_tokens() const { return num_tokens_; }

 private:
  struct Model;
  std::unique_ptr<Model> model_;
  std::string path_;
  std::string prompt_;
  std::string text_;
  size_t num_tokens_ = 0;
};

#endif  // FLASHELM_TESTS_C_API_SAMPLE_MODEL_H_
