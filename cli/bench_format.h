// Records of a benchmark as tables and as JSON, one measurement in any number
// of forms.
#ifndef FLASHELM_CLI_BENCH_FORMAT_H_
#define FLASHELM_CLI_BENCH_FORMAT_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/markdown_table.h"
#include "cli/record.h"
#include "core/base/status.h"

namespace flashelm::cli {

enum class BenchFormat {
  kMarkdown,
  kCsv,        // A line of names, then a line for each record.
  kJson,       // An array.
  kJsonLines,  // A record in each line.
  kHtml,       // A report; in files alone.
};

// Text that waits in a temporary file: what is kept in memory would be in that
// of the rows to come, which are children of this process.
class TextSpool {
 public:
  // kResourceExhausted, or as ErrnoStatus(): no such file can be made.
  static Result<TextSpool> Create();

  size_t size() const { return ends_.size(); }
  // kResourceExhausted: the disk is full.
  Status Append(const std::string& text);
  Result<std::string> Read(size_t i) const;

 private:
  struct FileCloser {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, FileCloser> file_;
  std::vector<long> ends_;
};

// Where records go: standard output, at once, and files, which appear whole
// when all is measured.
class BenchOutputs {
 public:
  // `specs`: FORMAT or FORMAT=FILE; none: a table on standard output. `title`
  // stands above tables. `html`: where the report goes; empty: there is none.
  // kInvalidArgument: an unknown format, or two for one place. Others as
  // CheckOutputPath(), none of `inputs` is to be written.
  static Result<BenchOutputs> Create(const std::vector<std::string>& specs,
                                     const std::string& html,
                                     const std::vector<std::string>& inputs,
                                     std::string title, MarkdownTable table);

  void Begin();
  Status Add(const Json& row);
  // Also for what was measured until an interruption.
  Status Finish();

 private:
  struct Output {
    BenchFormat format;
    std::string path;  // Empty: standard output.
  };
  BenchOutputs(std::string title, MarkdownTable table, TextSpool spool)
      : title_(std::move(title)),
        table_(std::move(table)),
        spool_(std::move(spool)) {}

  Status AddOutput(Output output, const std::string& flag,
                   const std::vector<std::string>& inputs);
  Result<std::string> FileText(BenchFormat format) const;
  std::string Head(BenchFormat format) const;
  std::string Row(BenchFormat format, const Json& row, size_t index) const;
  std::string End(BenchFormat format, size_t num_rows) const;

  std::vector<Output> outputs_;
  std::string title_;
  MarkdownTable table_;
  TextSpool spool_;  // Of records, in JSON.
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_BENCH_FORMAT_H_
