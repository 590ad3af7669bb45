// The bytes of a text, for what takes bytes.
#ifndef FLASHELM_TESTS_STORAGE_TEXT_BYTES_H_
#define FLASHELM_TESTS_STORAGE_TEXT_BYTES_H_

#include <cstddef>
#include <span>
#include <string_view>

namespace flashelm::test {

// Valid as long as the text is.
inline std::span<const std::byte> TextBytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_STORAGE_TEXT_BYTES_H_
