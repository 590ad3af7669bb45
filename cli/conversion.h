// From flags to what a conversion is asked for.
#ifndef FLASHELM_CLI_CONVERSION_H_
#define FLASHELM_CLI_CONVERSION_H_

#include "cli/verbs.h"
#include "core/convert/convert.h"

namespace flashelm::cli {

// Without threads, progress and checks.
ConvertOptions OptionsOf(const EncodingArgs& args);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_CONVERSION_H_
