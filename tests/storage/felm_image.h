// Model files that are wrong in one place and right everywhere else.
#ifndef FLASHELM_TESTS_STORAGE_FELM_IMAGE_H_
#define FLASHELM_TESTS_STORAGE_FELM_IMAGE_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "storage/json.h"
#include "storage/weight_format.h"

namespace flashelm {

// Changes to a file, applied in this order; checksums are made to fit after
// each, so that a reader gets to see what was changed. Empty ones do nothing.
struct FelmEdit {
  std::function<void(Json& manifest)> manifest;
  // Text instead of a manifest, JSON or not.
  std::function<std::string(const Json& manifest)> manifest_text;
  // The header, with the manifest's section as it has become.
  std::function<void(FelmHeader& header)> header;
  // All bytes, before the header's own checksum is made to fit.
  std::function<void(std::vector<std::byte>& file)> bytes;
};

// The header of a file as WeightFileWriter writes them.
FelmHeader ReadFelmHeader(const std::vector<std::byte>& file);

// The manifest of such a file.
Json ReadFelmManifest(const std::vector<std::byte>& file);

// `file` with the edits. A manifest that outgrows its room fails the test.
std::vector<std::byte> EditFelm(std::vector<std::byte> file,
                                const FelmEdit& edit);

// Puts the checksum at the header's end right.
void SealHeader(std::vector<std::byte>& file);

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORAGE_FELM_IMAGE_H_
