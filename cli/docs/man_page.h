// Manual pages, in roff with the man macros.
#ifndef FLASHELM_CLI_DOCS_MAN_PAGE_H_
#define FLASHELM_CLI_DOCS_MAN_PAGE_H_

#include <string>

#include "cli/docs/command_tree.h"

namespace flashelm::cli {

// The page's name, which is also that of its file: "flashelm-bench-io".
std::string PageName(const VerbInfo& verb);
// The page of `verb`, which is `command` or below it.
std::string ManPage(const VerbInfo& verb, const VerbInfo& command,
                    const FooterInfo& footer, const std::string& version);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_DOCS_MAN_PAGE_H_
