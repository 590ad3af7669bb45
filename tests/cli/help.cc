#include "tests/cli/help.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "tests/cli/command.h"

namespace flashelm::test {
namespace {

// "  -m,--model FILE REQUIRED    Model file"
HelpFlag ReadFlag(const std::string& line) {
  HelpFlag flag;
  std::istringstream stream(line);
  std::string names;
  stream >> names;
  std::istringstream list(names);
  for (std::string name; std::getline(list, name, ',');) {
    flag.names.push_back(name);
  }
  // Two spaces begin the description.
  const size_t begin = line.find_first_not_of(' ') + names.size();
  const std::string rest = line.substr(begin, line.find("  ", begin) - begin);
  std::istringstream words(rest);
  words >> flag.type;
  flag.is_required = rest.find(" REQUIRED") != std::string::npos;
  return flag;
}

void AddVerbs(const std::vector<std::string>& words,
              std::vector<HelpVerb>* verbs) {
  std::vector<std::string> args = words;
  args.push_back("--help");
  const CommandResult help = Flashelm(args);
  EXPECT_EQ(help.exit_code, 0) << help.err;

  HelpVerb verb;
  verb.words = words;
  std::vector<std::string> subverbs;
  std::string section;
  std::istringstream stream(help.out);
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty() && line[0] != ' ' && line.back() == ':') section = line;
    // Entries are indented by two; what continues one, by more.
    if (line.size() < 3 || line.compare(0, 2, "  ") != 0 || line[2] == ' ') {
      continue;
    }
    if (section == "Subcommands:") {
      subverbs.push_back(line.substr(2, line.find(' ', 2) - 2));
    } else if (section == "Positionals:") {
      ++verb.num_positionals;
    } else if (line[2] == '-') {
      verb.flags.push_back(ReadFlag(line));
    }
  }
  verbs->push_back(verb);
  for (const std::string& subverb : subverbs) {
    std::vector<std::string> deeper = words;
    deeper.push_back(subverb);
    AddVerbs(deeper, verbs);
  }
}

}  // namespace

std::string HelpVerb::Name(const std::string& separator) const {
  std::string name = "flashelm";
  for (const std::string& word : words) name += separator + word;
  return name;
}

std::vector<std::string> HelpVerb::FlagNames() const {
  std::vector<std::string> names;
  for (const HelpFlag& flag : flags) {
    names.insert(names.end(), flag.names.begin(), flag.names.end());
  }
  std::sort(names.begin(), names.end());
  return names;
}

const std::vector<HelpVerb>& HelpVerbs() {
  static const std::vector<HelpVerb> verbs = [] {
    std::vector<HelpVerb> found;
    AddVerbs({}, &found);
    return found;
  }();
  return verbs;
}

}  // namespace flashelm::test
