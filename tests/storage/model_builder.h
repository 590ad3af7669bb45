// Small model files with known bytes.
#ifndef FLASHELM_TESTS_STORAGE_MODEL_BUILDER_H_
#define FLASHELM_TESTS_STORAGE_MODEL_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "storage/weight_file.h"
#include "storage/weight_file_writer.h"
#include "tests/storage/memory_file.h"

namespace flashelm {

// A file and what it has to give.
struct TestModel {
  std::vector<std::byte> file;
  // Per segment, all records.
  std::vector<std::vector<std::byte>> segments;

  // Open over a copy of `file`, or over bytes that the caller keeps.
  WeightFile Open() const { return Open(ShareBytes(file)); }
  static WeightFile Open(SharedBytes bytes);
};

// Index of the embedding, the output head, in MakeTestModel().
inline constexpr uint32_t kTestHead = 0;

// Two layers of a model, about 450 KB: an embedding, and per layer norms, qkv,
// attention_out and ffn of different sizes, then the final norm. Some strides
// need several records to reach a page again, one is a page, one a vector; the
// last units of most segments are partial.
WeightFileContents TestModelContents();

// One segment of two records: for tests that damage every byte.
WeightFileContents TinyContents();

// Random records from `seed` for any contents.
TestModel MakeTestModel(const WeightFileContents& contents, uint64_t seed);

// The one model that most tests read: TestModelContents() with seed 1.
const TestModel& SharedTestModel();

// A segment with one bf16 part per name, side by side, and their tensors.
void AddSegment(WeightFileContents& contents, SegmentKind kind,
                std::optional<uint32_t> layer, uint64_t num_records,
                uint64_t elements, const std::vector<std::string>& parts);

std::vector<std::byte> ReadAllBytes(const std::string& path);
void WriteAllBytes(const std::string& path, std::span<const std::byte> bytes);

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORAGE_MODEL_BUILDER_H_
