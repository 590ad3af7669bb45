#include "cli/line_editor.h"

#if FLASHELM_HAS_LIBEDIT

#include <dlfcn.h>
#include <histedit.h>
#include <langinfo.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <string_view>
#include <type_traits>

#include "cli/terminal.h"
#include "core/utf8.h"

namespace flashelm::cli {
namespace {

constexpr int kHistoryLines = 100;
// Longer lines are not remembered, so that history has a limit.
constexpr size_t kMaxRememberedBytes = 2048;
// What libedit takes at the start; then four buffers and a screen of wide
// characters, twice while they grow.
constexpr uint64_t kStartBytes = uint64_t{256} << 10;
constexpr uint64_t kBytesPerCharacter = 48;

constexpr wchar_t kEndOfText = 3;  // What Ctrl-C types where it is no signal.
// How far a line may grow between two looks at its length.
constexpr size_t kCheckedCharacters = 256;

volatile sig_atomic_t was_continued = 0;
extern "C" void OnContinue(int) { was_continued = 1; }

// The functions of libedit that are used here.
struct Library {
  decltype(&el_init) init;
  decltype(&el_end) end;
  decltype(&el_set) set;
  decltype(&el_get) get;
  decltype(&el_gets) gets;
  decltype(&el_line) line;
  decltype(&el_resize) resize;
  decltype(&history_init) new_history;
  decltype(&history_end) end_history;
  decltype(&history) call_history;

  bool Load() {
    void* const library = dlopen("libedit.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return false;
    const auto find = [&](const char* name, auto& function) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
          dlsym(library, name));
      return function != nullptr;
    };
    return find("el_init", init) && find("el_end", end) &&
           find("el_set", set) && find("el_get", get) &&
           find("el_gets", gets) && find("el_line", line) &&
           find("el_resize", resize) && find("history_init", new_history) &&
           find("history_end", end_history) && find("history", call_history);
  }
};

Library library;

bool UseUtf8() {
  for (const char* locale : {"", "C.UTF-8"}) {
    if (std::setlocale(LC_CTYPE, locale) != nullptr &&
        std::string_view(nl_langinfo(CODESET)) == "UTF-8") {
      return true;
    }
  }
  return false;
}

// Of valid UTF-8.
wchar_t CodePoint(std::string_view text) {
  if (text.size() == 1) return static_cast<unsigned char>(text[0]);
  uint32_t value = static_cast<unsigned char>(text[0]) & (0x7Fu >> text.size());
  for (const char byte : text.substr(1)) {
    value = value << 6 | (static_cast<unsigned char>(byte) & 0x3Fu);
  }
  return static_cast<wchar_t>(value);
}

class LineEditor : public LineReader {
 public:
  explicit LineEditor(size_t max_bytes) : max_bytes_(max_bytes) {}
  ~LineEditor() override {
    if (history_ != nullptr) library.end_history(history_);
    if (editor_ != nullptr) library.end(editor_);
  }
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  bool Init() {
    // What a person sees goes to standard error: standard output has the
    // answers alone.
    editor_ = library.init("flashelm", stdin, stderr, stderr);
    history_ = library.new_history();
    if (editor_ == nullptr || history_ == nullptr) return false;
    HistEvent event;
    library.call_history(history_, &event, H_SETSIZE, kHistoryLines);
    library.call_history(history_, &event, H_SETUNIQUE, 1);
    library.set(editor_, EL_CLIENTDATA, this);
    library.set(editor_, EL_EDITOR, "emacs");
    library.set(editor_, EL_HIST, library.call_history, history_);
    library.set(editor_, EL_PROMPT, &LineEditor::Prompt);
    library.set(editor_, EL_GETCFN, &LineEditor::ReadCharacter);
    library.set(editor_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    struct sigaction action {};
    action.sa_handler = OnContinue;
    sigaction(SIGCONT, &action, nullptr);
    return true;
  }

  Result<LineEvent> Read(const char* prompt, std::string& line) override {
    prompt_ = prompt;
    is_interrupted_ = false;
    is_too_long_ = false;
    library.resize(editor_);
    // Before the prompt is shown, or keys that answer it at once would still go
    // through the terminal's own editing, where Ctrl-D is no key.
    library.set(editor_, EL_PREP_TERM, 1);
    int count = 0;
    const char* const text = library.gets(editor_, &count);
    if (is_interrupted_) {
      std::fputs("\n", stderr);
      return LineEvent::kInterrupted;
    }
    if (text == nullptr || count <= 0) {
      std::fputs("\n", stderr);
      return LineEvent::kEnd;
    }
    if (is_too_long_) {
      return InvalidArgument("a line of more than ", max_bytes_,
                             " bytes was left out");
    }
    line.assign(text, static_cast<size_t>(count));
    if (line.size() <= kMaxRememberedBytes && line != "\n") {
      HistEvent event;
      library.call_history(history_, &event, H_ENTER, line.c_str());
    }
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) {
      line.pop_back();
    }
    return LineEvent::kLine;
  }
  bool is_interactive() const override { return true; }
  uint64_t num_bytes() const override {
    return kStartBytes + kHistoryLines * kMaxRememberedBytes +
           (kBytesPerCharacter + 3) * max_bytes_;
  }

 private:
  static LineEditor* Of(EditLine* editor) {
    void* self = nullptr;
    library.get(editor, EL_CLIENTDATA, &self);
    return static_cast<LineEditor*>(self);
  }
  static char* Prompt(EditLine* editor) {
    return const_cast<char*>(Of(editor)->prompt_);
  }
  // For libedit: 1 and a character, or another number when there is none.
  static int ReadCharacter(EditLine* editor, wchar_t* character) {
    return Of(editor)->Next(character);
  }

  int Next(wchar_t* character) {
    char bytes[4];
    size_t size = 0;
    while (true) {
      const InputEvent event = WaitForInput();
      if (was_continued != 0) {
        // A shell has used the terminal in between.
        was_continued = 0;
        library.set(editor_, EL_PREP_TERM, 1);
        library.set(editor_, EL_REFRESH);
      }
      if (event == InputEvent::kSignal) continue;
      if (event == InputEvent::kInterrupted) return Interrupt();
      const ssize_t got = read(STDIN_FILENO, &bytes[size], 1);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got <= 0) return static_cast<int>(got);
      size_t length = 0;
      switch (ClassifyUtf8({bytes, size + 1}, length)) {
        case Utf8Prefix::kIncomplete:
          ++size;
          continue;
        case Utf8Prefix::kInvalid:
          *character = 0xFFFD;
          break;
        case Utf8Prefix::kValid:
          *character = CodePoint({bytes, length});
          break;
      }
      size = 0;
      if (*character == kEndOfText) return Interrupt();
      if (HasRoom(*character)) return 1;
    }
  }

  int Interrupt() {
    is_interrupted_ = true;
    return -1;
  }

  // Whether the line may grow. It is looked at when enough may have come to
  // matter: any number of characters for one that is a command.
  bool HasRoom(wchar_t character) {
    const bool is_command = character < ' ';
    if (!is_command && is_too_long_) return false;
    num_unchecked_ += is_command ? kCheckedCharacters : 1;
    if (num_unchecked_ < kCheckedCharacters) return true;
    num_unchecked_ = 0;
    const LineInfo* const line = library.line(editor_);
    is_too_long_ =
        is_too_long_ || static_cast<size_t>(line->lastchar - line->buffer) +
                                kCheckedCharacters >
                            max_bytes_;
    return !is_too_long_ || is_command;
  }

  const size_t max_bytes_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
  const char* prompt_ = "";
  bool is_interrupted_ = false;
  bool is_too_long_ = false;
  size_t num_unchecked_ = 0;
};

}  // namespace

std::unique_ptr<LineReader> CreateLineEditor(size_t max_bytes) {
  if (!UseUtf8() || !library.Load()) return nullptr;
  auto editor = std::make_unique<LineEditor>(max_bytes);
  if (!editor->Init()) return nullptr;
  return editor;
}

}  // namespace flashelm::cli

#else

namespace flashelm::cli {

std::unique_ptr<LineReader> CreateLineEditor(size_t) { return nullptr; }

}  // namespace flashelm::cli

#endif
