// A model file, validated before use.
#ifndef FLASHELM_STORAGE_WEIGHT_FILE_H_
#define FLASHELM_STORAGE_WEIGHT_FILE_H_

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "storage/file.h"
#include "storage/json.h"
#include "storage/weight_format.h"

namespace flashelm {

// Header, manifest and directory of an open model file. Every offset, size and
// count was checked against the file's size; the weights were not read yet.
// Immutable, so thread-safe.
class WeightFile {
 public:
  // kNotFound: no file. kDataLoss: damaged, truncated or not a model file.
  // kUnimplemented: a version, encoding or codec this reader does not know.
  static Result<WeightFile> Open(const std::string& path, CacheMode mode);
  // The same over a file that is open already.
  static Result<WeightFile> Open(std::unique_ptr<RandomAccessFile> file);

  const RandomAccessFile& file() const { return *file_; }
  // For a reader, which may outlive this object.
  std::shared_ptr<const RandomAccessFile> shared_file() const { return file_; }
  const std::string& path() const { return file_->path(); }
  const FelmHeader& header() const { return header_; }

  // What the converter said of the model; core/ knows what it means.
  const Json& config() const { return config_.value; }
  const Json& provenance() const { return provenance_.value; }

  // In file order.
  const std::vector<Segment>& segments() const { return segments_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  // The tensor of that name, or null.
  const Tensor* FindTensor(std::string_view name) const;

  // Bytes of all records: what one token reads when nothing is resident.
  uint64_t weight_bytes() const { return weight_bytes_; }

  // The tokenizer as the converter found it, verified. kDataLoss: damaged.
  Result<std::string> ReadTokenizer() const;

  // Fills `table`, [header().sections[kChecksums].raw_bytes] rounded up to
  // kIoAlignment, aligned to it, with the checksums; verified.
  Status ReadChecksums(std::span<std::byte> table) const;

 private:
  Status ReadHeader();
  Status ReadManifest();
  Result<std::string> ReadSection(SectionId id) const;

  std::shared_ptr<const RandomAccessFile> file_;
  FelmHeader header_;
  OwnedJson config_;
  OwnedJson provenance_;
  std::vector<Segment> segments_;
  std::vector<Tensor> tensors_;
  uint64_t weight_bytes_ = 0;
};

}  // namespace flashelm

#endif  // FLASHELM_STORAGE_WEIGHT_FILE_H_
