// A tokenizer.model that is made, not trained.
#ifndef FLASHELM_CORE_CONVERT_SYNTH_TOKENIZER_H_
#define FLASHELM_CORE_CONVERT_SYNTH_TOKENIZER_H_

#include <cstdint>
#include <string>

#include "core/base/status.h"

namespace flashelm {

// The bytes of a SentencePiece BPE model with `vocab_size` pieces, laid out as
// LLaMA's: <unk>, <s>, </s>, the 256 byte pieces, then normal pieces with the
// score -(id - 259), merges first and single characters last; runs of spaces
// have -1e9. No piece has a digit beside another character. Any text can be
// encoded and any ids decoded. With 32,000 pieces each of over a thousand
// common English words behind a space is one token, and prose takes a token
// for 3.3 bytes (measured on tests/data). Equal sizes give equal bytes.
// kInvalidArgument: fewer pieces than 260, or more than 2^17.
Result<std::string> MakeTokenizerModel(uint32_t vocab_size);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_SYNTH_TOKENIZER_H_
