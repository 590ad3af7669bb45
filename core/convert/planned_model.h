// A model file before there is one: what a conversion would make of a
// configuration, without its weights.
#ifndef FLASHELM_CORE_CONVERT_PLANNED_MODEL_H_
#define FLASHELM_CORE_CONVERT_PLANNED_MODEL_H_

#include <string>
#include <string_view>

#include "core/base/status.h"
#include "core/convert/convert.h"
#include "core/model_file.h"

namespace flashelm {

// As ModelFile::Open() of what Convert() would write: plans are made of it as
// of any file, and its size is that of the file. Reading a weight, or the
// checksum of one, is kUnavailable. It differs from the later file in what is
// recorded about the source, some hundred bytes of the manifest.
//   config_text  a Hugging Face config.json
//   name         begins every message, and is its path()
//   tokenizer    a SentencePiece model, if the options name none; empty: one of
//                the same vocabulary that is made up, for what a tokenizer
//                takes of RAM and disk
// Errors as ParseHfConfig(), CheckEncodings(), MakeTokenizerModel(),
// Tokenizer::Parse() and, where the options name a tokenizer, ReadWholeFile().
Result<ModelFile> PlanModelFile(std::string_view config_text,
                                const std::string& name,
                                const ConvertOptions& options,
                                std::string tokenizer = "");

// The same of what is at `path`: a config.json, or a directory that has one. A
// tokenizer.model beside it is used.
// kNotFound: no such file. Others as above.
Result<ModelFile> PlanModelFileAt(const std::string& path,
                                  const ConvertOptions& options);

// The same of a published shape: "270M", "450M", "1.1B" or "3B".
Result<ModelFile> PlanModelFileOfShape(std::string_view shape,
                                       const ConvertOptions& options);

// Whether PlanModelFileAt() is what to open this path with, and not
// ModelFile::Open(): a directory, or a file that begins as a JSON object.
bool IsCheckpointConfig(const std::string& path);

}  // namespace flashelm

#endif  // FLASHELM_CORE_CONVERT_PLANNED_MODEL_H_
