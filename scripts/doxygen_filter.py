#!/usr/bin/env python3
"""Turns flashelm.h into what Doxygen reads: its INPUT_FILTER (docs/Doxyfile).

The header's comments are plain, to be read in an editor. What they say by
convention, once for all functions, is said at each of them for Doxygen, which
then complains of whatever a comment leaves out or names wrongly:

  flashelm_x() :        the title; another name than the function's is an error
  @name : text          a parameter; `@a, @b : text` are two
  @return : text        a line of it that begins with FLASHELM_CODE is a code
  [name]                an array's length, which is documented with the array

`engine`, `session`, `error`, `struct_size` and the `_user` of a callback mean
the same everywhere, and a function that returns a flashelm_code can return what the
header's ERRORS lists. Lines keep their numbers, so warnings are in place.
"""

import re
import sys

COMMON = {
    "engine": "the engine.",
    "session": "the session.",
    "error": "filled, as said under ERRORS; may be NULL.",
}
FIELDS = {
    r"size_t struct_size": "its sizeof, as said under STRUCTS",
    r"void\* \w+_user": "handed to the callback",
}
COMMENT = re.compile(r"/\*(.*?)\*/", re.S)
# Of a function, or of the type of a callback.
DECLARATION = re.compile(
    r"\s*(?:FLASHELM_API\s+(?P<returns>[\w\s*]*?)(?P<name>\w+)"
    r"|typedef\s+(?P<callback_returns>[\w\s*]*?)\(\*(?P<callback>\w+)\))"
    r"\((?P<parameters>[^;]*)\);")


def parameter_names(parameters):
    names = [re.search(r"(\w+)\s*$", one) for one in parameters.split(",")]
    return [name.group(1) for name in names if name and name.group(1) != "void"]


def converted(text):
    """A comment's text with the conventions as Doxygen's commands."""
    text = re.sub(r"@([a-z]\w*(?:, @\w+)*) :",
                  lambda m: "@param " + m.group(1).replace(", @", ","), text)
    text = text.replace("@param return", "@return")
    head, found, tail = text.partition("@return")
    # What stands under a list of codes is about all of them.
    tail = re.sub(r"(\n \*  +)(?=After |While )", r"\1@remark ", tail)
    tail = re.sub(r"((?:^|\n \*)  *)(FLASHELM_[A-Z_]+)  +", r"\1@retval \2 ",
                  tail)
    if tail.lstrip().startswith("@retval"):
        found = ""
    return head + found + tail


def documented(text, declaration):
    """A function's comment, with what the conventions say besides."""
    title = re.match(r"\s*(\w+)\(\) :", text)
    text = converted(re.sub(r"^(\s*)\w+\(\) :", r"\1", text))
    name = declaration.group("name")
    if name and (not title or title.group(1) != name):
        # Doxygen knows no such parameter, and says so.
        text += f" @param {title.group(1) if title else 'title'} titles {name}"
    said = {one for names in re.findall(r"@param ([\w,]+)", text)
            for one in names.split(",")}
    returns = (declaration.group("returns") or
               declaration.group("callback_returns")).split()
    for parameter in parameter_names(declaration.group("parameters")):
        if parameter in said:
            continue
        if parameter in COMMON:
            text += f" @param {parameter} {COMMON[parameter]}"
        elif parameter.endswith("_user"):
            text += f" @param {parameter} handed to the callback."
        elif f"[{parameter}]" in text:
            text += f" @param {parameter} of that array."
    if returns == ["flashelm_code"]:
        text += " @retval FLASHELM_OK it was done."
    return text


def filtered(source):
    result = []
    end = 0
    is_first = True
    for comment in COMMENT.finditer(source):
        before, text = source[end:comment.start()], comment.group(1)
        result.append(before)
        end = comment.end()
        declaration = DECLARATION.match(source, end)
        if re.match(r" -+ \w+ $", text):  # Between sections.
            result.append(comment.group(0))
        elif is_first:
            # Markdown takes it for code where it is indented by four.
            text = re.sub(r"\n \*   (?=\S)", "\n *     ", text)
            result.append("/** @file flashelm.h @brief" + text + "*/")
        elif before.rpartition("\n")[2].strip():  # Behind what it is about.
            result.append("/**<" + text + "*/")
        elif declaration:
            result.append("/**" + documented(text, declaration) + " */")
        else:
            result.append("/**" + converted(text) + "*/")
        is_first = False
    result.append(source[end:])
    text = "".join(result)
    for field, meaning in FIELDS.items():
        text = re.sub(rf"\n  ({field});\n", rf"\n  \1; /**< {meaning} */\n", text)
    return text


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as header:
        sys.stdout.write(filtered(header.read()))
