#include "core/utf8.h"

#include <algorithm>

namespace flashelm {

Utf8Prefix ClassifyUtf8(std::string_view text, size_t& length) {
  const auto byte = [&text](size_t i) {
    return static_cast<unsigned char>(text[i]);
  };
  const unsigned lead = byte(0);
  length = 1;
  if (lead < 0x80) return Utf8Prefix::kValid;
  // C0 and C1 could only begin overlong forms, F5 and above only code points
  // beyond U+10FFFF; 80 to BF continue one.
  if (lead < 0xC2 || lead > 0xF4) return Utf8Prefix::kInvalid;
  const size_t needed = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;

  // The second byte decides about overlong forms (E0, F0), surrogates (ED) and
  // the upper end (F4); the others only have to continue.
  unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  const size_t available = std::min(needed, text.size());
  for (size_t i = 1; i < available; ++i) {
    if (byte(i) < low || byte(i) > high) return Utf8Prefix::kInvalid;
    low = 0x80;
    high = 0xBF;
  }
  if (available < needed) return Utf8Prefix::kIncomplete;
  length = needed;
  return Utf8Prefix::kValid;
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    size_t length = 0;
    if (ClassifyUtf8(text, length) != Utf8Prefix::kValid) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace flashelm
