# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the makers of pages share (rules/make.py, codecs/make.py): they fill in what pages say of the code, everything
between <!-- make: … --> and <!-- end -->, from the comments and attributes of headers and from a program that is
compiled with them.
"""
import argparse
import difflib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap

DOCS = pathlib.Path(__file__).resolve().parent
INCLUDE = DOCS.parent / "include"

problems = []


def complain(where, what):
    problems.append(f"{where}: {what}")


# --- what the headers say --------------------------------------------------------------------------------------------


class Struct:
    """A struct or class of a header: its comment and its attributes."""

    def __init__(self, header, name, comment, body, template):
        self.header, self.name, self.body, self.template = header, name, body, template
        self.path = header.relative_to(INCLUDE).as_posix()
        self.folder = header.parent.name
        self.text, self.comment = joined(comment), comment
        self.attributes = attributes(body)


class Attribute:
    def __init__(self, type_, name, default, meaning):
        self.type, self.name, self.default, self.meaning = type_, name, default, meaning


def joined(lines):
    """A comment as one line, without examples and the half sentence that announces them."""
    text = " ".join(line for line in lines if not line.startswith("    "))
    if any(line.startswith("    ") for line in lines):
        text = re.sub(r"(?:^|(?<=\. ))[^.]*:\s*$", "", text)
    return re.sub(r"\s+", " ", text).strip()


def split_at_commas(text):
    parts, depth = [""], 0
    for c in text:
        depth += (c in "({<") - (c in ")}>")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts]


def attributes(body):
    found = []
    lines = body.split("\n")
    for at, line in enumerate(lines):
        if line == " private:":
            break
        m = re.fullmatch(r"  ((?:\w+::)*\w+(?:<[^;=]*>)?) (\w+(?: = |\{|;|,).*?;?)(?:\s*///< (.*))?", line)
        no_types = ("using", "static", "constexpr", "return", "friend", "explicit", "struct", "template", "class",
                    "state", "step_result")
        if not m or m[1] in no_types or not m[2].endswith(";"):
            continue
        meaning = m[3] or ""
        for more in lines[at + 1:]:
            if not (m[3] and re.fullmatch(r"\s*///< .*", more)):
                break
            meaning += " " + more.strip()[5:]
        for one in split_at_commas(m[2][:-1]):
            name, _, default = one.partition(" = ")
            if "{" in name:
                name, default = name[:name.index("{")], one[one.index("{"):]
            found.append(Attribute(m[1], name, default, meaning))
    return found


def structs_of(header, kind=Struct):
    """The structs of a header, in its order."""
    lines = header.read_text(encoding="utf-8").split("\n")
    for at, line in enumerate(lines):
        m = re.fullmatch(r"(?:struct|class) (\w+)(?: final)?(?: : .*)? \{", line)
        if not m:
            continue
        end = lines.index("};", at)
        begin, template = at, ""
        while re.match(r"template <|requires", lines[begin - 1]):
            begin -= 1
            template = lines[begin] + template
        comment = []
        while lines[begin - 1].startswith("///"):
            begin -= 1
            comment.insert(0, lines[begin][4:])
        yield kind(header, m[1], comment, "\n".join(lines[at + 1:end]), template)


def closure(header):
    """All headers that a header includes."""
    found, left = set(), [header]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += re.findall(r"#include <(dovetail/.*)>", (INCLUDE / one).read_text(encoding="utf-8"))
    return found


# --- sentences -------------------------------------------------------------------------------------------------------

CITATION = r"\s?\(((?:[^()]|\([^()]*\))*?\b(?:19|20)\d\d\b(?:[^()]|\([^()]*\))*)\)"


def citations(text):
    return re.findall(CITATION, text)


def without_citations(text):
    return re.sub(CITATION, "", text)


def sentences(text):
    return [s for s in re.split(r"(?<=[.:])(?<!al\.) (?=[A-Z0-9`])", text) if s] if text else []


def prose(text):
    """As Markdown: nothing of a formula is taken for markup, wherever a line ends."""
    text = re.sub(r" (?=(?:[-+=#>]|<-|\d+[.)])(?: |$))", "\0", text)
    parts = re.split(r"(`[^`]*`)", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\*|<(?=[A-Za-z/!])", lambda m: "\\" + m[0], parts[i])
    return wrap("".join(parts)).replace("\0", " ")


def wrap(text, indent=""):
    return "\n".join(textwrap.wrap(text, 118, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                                   break_on_hyphens=False))


def statements(text, indent=""):
    """Of a formula, each on lines of its own."""
    parts = re.split(r"(?:;|,|(?<=[^:]:)) (?=[\w'^]+ (?:<-|=) )", text.rstrip(".:"))
    return "\n".join("\n".join(textwrap.wrap(p, 116, initial_indent=indent, subsequent_indent=indent + "  ",
                                             break_long_words=False, break_on_hyphens=False)) for p in parts)


def formula_block(lines):
    return "```text\n" + "\n".join(lines) + "\n```"


def default_cell(default):
    """A default as a header has it, without what only the compiler needs."""
    default = re.sub(r"(?<=[0-9.])f\b", "", default)
    default = re.sub(r"std::numeric_limits<float>::max\(\)|positive_infinity<float>\(\)", "∞", default)
    default = "" if default == "{}" else default
    return f"`{default}`" if default and default != "∞" else default


def table(head, rows):
    """A cell may have lines and bars of its own."""
    lines = [head, ["---"] * len(head)] + rows
    text = ["| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in row) + " |" for row in lines]
    text[1] = "|" + "---|" * len(head)
    return "\n".join(text)


# --- what the compiler says -------------------------------------------------------------------------------------------


def output_of(source, compiler, files, options=()):
    """What a program prints that includes `files`, {name: text}."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        compiled = subprocess.run([compiler, "-std=c++20", "-O0", "-w", "-pthread", "-I", INCLUDE, "-I", folder, source,
                                   "-o", folder / "program", *options], check=False)
        if compiled.returncode:
            sys.exit(f"make.py: {source.name} does not compile with what was found in the headers")
        ran = subprocess.run([folder / "program"], check=False, stdout=subprocess.PIPE, text=True)
        if ran.returncode:
            sys.exit(f"make.py: {source.name} found what is said above")
        return ran.stdout


# --- pages ------------------------------------------------------------------------------------------------------------


class Pages:
    """The pages of a folder, and those of other folders that are in `also`: some by hand, and NAME.md for each of
    `names`, which has `sections` and `blocks` of its own.

    Of a derived class: block_text(kind, name, pages), which is None of a block that it does not know; skeleton(name), a
    new page to be written; shown(name), the expression that an example must have."""
    sections, blocks, by_hand, also, what = [], [], [], [], ""

    def __init__(self, folder, names):
        self.folder, self.names = folder, names
        self.where = folder.relative_to(DOCS.parent).as_posix()
        pages = [p.name for p in sorted(folder.glob("*.md"))] + self.also
        self.old = {page: (folder / page).read_text(encoding="utf-8") for page in pages}

    def make(self):
        for name in self.names:
            if f"{name}.md" not in self.old:
                complain(f"{self.where}/{name}.md", f"the {self.what} {name} has no page")
        pages = dict(self.old)
        for name in self.names:
            pages.setdefault(f"{name}.md", self.skeleton(name))
        for name, text in pages.items():
            pages[name] = re.sub(r"(?m)^<!-- make: (\w+) ?(\w*) -->\n((?s:.*?))^<!-- end -->$",
                                 lambda m, page=name: self.block(page, m[1], m[2], m[3], pages), text)
        for name, text in pages.items():
            self.look_at(name, text)
        return pages

    def block(self, page, kind, name, old, pages):
        body = self.block_text(kind, name, old.rstrip("\n"), pages)
        if body is None:
            complain(f"{self.where}/{page}", f"there is nothing to make of '{kind} {name}'")
            body = ""
        head = f"<!-- make: {kind} {name} -->" if name else f"<!-- make: {kind} -->"
        return f"{head}\n{body}\n<!-- end -->"

    def look_at(self, page, text):
        where, name = f"{self.where}/{page}", page[:-3]
        if re.search(r"\bTODO\b", text):
            complain(where, "has a TODO")
        if "<!-- make:" not in text and page not in self.by_hand:
            complain(where, f"has no block for make.py: is it the page of a {self.what} that is gone?")
        if name not in self.names:
            return
        if re.findall(r"^## (.*)$", text, re.M) != self.sections:
            complain(where, f"must have the sections {', '.join(self.sections)}")
        for kind in self.blocks:
            if f"<!-- make: {kind} {name} -->" not in text:
                complain(where, f"has no block <!-- make: {kind} {name} -->")
        if not re.search(r"```cpp\n(?s:.)*" + self.shown(name), text):
            complain(where, f"has no example with {self.what} {name}")


def when(page):
    """The first sentence of "When to use it"."""
    found = re.search(r"^## When to use it\n\n(.*?)(?=\n\n|\Z)", page, re.M | re.S)
    return sentences(found[1].replace("\n", " "))[0].rstrip(".:") if found else ""


def main(description, make):
    """Of a maker: `make(compiler)` is its Pages."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is stale or missing")
    parser.add_argument("--compiler", default=os.environ.get("CXX", "g++"))
    options = parser.parse_args()
    pages = make(options.compiler)
    made = pages.make()
    stale = 0
    for name, text in made.items():
        old = pages.old.get(name, "")
        if text == old:
            continue
        stale += 1
        if not options.check:
            (pages.folder / name).write_text(text, encoding="utf-8")
            print(f"wrote {pages.where}/{name}")
        elif old:
            print("".join(difflib.unified_diff(old.splitlines(True), text.splitlines(True), f"{pages.where}/{name}",
                                               "what the headers say")), end="")
    for p in problems:
        print(p)
    print(f"{len(pages.names)} {pages.what}s, {len(made)} pages, {stale} {'stale' if options.check else 'written'}, "
          f"{len(problems)} problems")
    if options.check and stale:
        print(f"run {pages.where}/make.py and look at what it changes")
    return 1 if problems or (options.check and stale) else 0
