// UTF-8, code point by code point, with SentencePiece's idea of what is valid.
#ifndef FLASHELM_CORE_UTF8_H_
#define FLASHELM_CORE_UTF8_H_

#include <cstddef>
#include <string_view>

namespace flashelm {

// U+FFFD, which stands for one invalid byte.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

enum class Utf8Prefix {
  kValid,       // A code point begins here and is complete.
  kIncomplete,  // The text ends inside what could become a code point.
  kInvalid,     // The first byte begins no code point, whatever follows.
};

// Looks at the start of `text`, which is not empty. kValid: `length` is the
// bytes of the code point, 1 to 4. Otherwise `length` is 1: the first byte is
// the invalid one, and the next is looked at on its own. Overlong forms,
// surrogates and code points above U+10FFFF are invalid.
Utf8Prefix ClassifyUtf8(std::string_view text, size_t& length);

// Whether all of `text` is valid; so is empty text.
bool IsValidUtf8(std::string_view text);

}  // namespace flashelm

#endif  // FLASHELM_CORE_UTF8_H_
