#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Fills in what the pages of this folder say of the code: everything between <!-- make: … --> and <!-- end -->.

    docs/rules/make.py [--compiler g++]           rewrites the pages; a rule without a page gets a new one to be written
    docs/rules/make.py --check [--compiler g++]   changes nothing; says what is stale, missing or unfinished, and fails

Sentences, formulas, sources, attributes and defaults are read from the headers; costs and sizes of state are printed by
costs.cpp, which is compiled here and also proves that every default was read right. The blocks:

    rule NAME      what a rule is and where it comes from
    details NAME   its formula, attributes and cost
    struct NAME    all of these for a stage, a schedule or any other struct of optim/
    table          all rules
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
from fractions import Fraction

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"
OPTIM = INCLUDE / "dovetail" / "optim"
# Folders with rules: what a program includes, and the target of CMake that it links if that is not dovetail::dovetail.
FOLDERS = {"rules": ("dovetail/optim.hpp", None), "matrix": ("dovetail/optim/matrix.hpp", "dovetail::lapack")}
BY_HAND = ["elsewhere.md"]  # pages without a block
SECTIONS = ["When to use it", "Formula", "Attributes", "Cost", "Example", "See also"]
# What attributes mean that mean the same in most rules. A comment ///< in the header goes before.
MEANINGS = {
    "lr": "learning rate",
    "momentum": "share of the momentum that a step keeps",
    "beta1": "share of the average of gradients that a step keeps",
    "beta2": "share of the average of squares that a step keeps",
    "epsilon": "added to the root in the denominator, in units of the gradient",
}
CONVENTIONS = ("w is the weight, g the gradient, t the step from 1; u is the update that reaches a stage, at first g, "
               "and `u <-` what it passes on, at last to be added to w; b1, b2, b3 are beta1, beta2, beta3.")
# A sentence in front of a header's stages that has the first is for the formulas that have the second.
SYMBOLS = [("rms(x)", "rms("), ("are w0", "w0"), ("|u|^2", "|u|^2")]

problems = []


def complain(where, what):
    problems.append(f"{where}: {what}")


# --- what the headers say --------------------------------------------------------------------------------------------


class Struct:
    """A struct or class of a header: its comment, its attributes, and the chain that it stands for."""

    def __init__(self, header, name, comment, body):
        self.header, self.name, self.body = header, name, body
        self.path = header.relative_to(INCLUDE).as_posix()
        self.folder = header.parent.name
        self.text, self.comment = joined(comment), comment
        self.attributes = attributes(body)
        chain = re.search(r"using rule = chain<(.*?)>;", body, re.S)
        self.chain = re.findall(r"\w+", chain[1]) if chain else []
        self.is_rule = bool(re.search(r"^  DOVETAIL_OPTIMIZER$", body, re.M))
        self.is_tensorwise = bool(re.search(r"^  using kind = tensorwise", body, re.M))
        self.is_stage = self.is_tensorwise or bool(re.search(r"^  \w+ kernel prepare\(", body, re.M))
        self.is_schedule = bool(re.search(r"^  .*float operator\(\)\(std::int64_t(?: step)?\) const", body, re.M))
        self.source = (citations(self.text) or [""])[0]


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


def read_headers():
    structs, notes, marked = {}, {}, 0
    for header in sorted(OPTIM.rglob("*.hpp")):
        lines = header.read_text(encoding="utf-8").split("\n")
        marked += sum(line.strip() == "DOVETAIL_OPTIMIZER" for line in lines)
        space = next((i for i, line in enumerate(lines) if line.startswith("namespace")), 0)
        top = [line[3:] for line in lines[2:space] if line.startswith("// ")]
        notes[header] = joined(top)
        for at, line in enumerate(lines):
            m = re.fullmatch(r"(?:struct|class) (\w+)(?: final)?(?: : .*)? \{", line)
            if not m:
                continue
            end = lines.index("};", at)
            begin = at
            while re.match(r"template <|requires", lines[begin - 1]):
                begin -= 1
            comment = []
            while lines[begin - 1].startswith("///"):
                begin -= 1
                comment.insert(0, lines[begin][4:])
            structs[m[1]] = Struct(header, m[1], comment, "\n".join(lines[at + 1:end]))
    found = [s for s in structs.values() if s.is_rule]
    if len(found) != marked:
        sys.exit(f"make.py: {marked} rules say DOVETAIL_OPTIMIZER, only {len(found)} were understood")
    for s in found:
        if s.folder not in FOLDERS:
            sys.exit(f"make.py: {s.path}: add the folder '{s.folder}' to FOLDERS, with its header and target")
    return structs, notes


def families():
    """The family of every rule, in the order of the lists."""
    found = {}
    for folder in FOLDERS:
        for family, name in re.findall(r"^DOVETAIL_RULE\((\w+), (\w+)\)$",
                                       (OPTIM / folder / "list.inc.hpp").read_text(encoding="utf-8"), re.M):
            found[name] = family
    return found


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


def is_formula(sentence):
    return "<-" in sentence or bool(re.search(r"×|\^|[a-z]\) / | / \(", sentence))


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


def split_formula(text):
    """What a comment says in words, and the formula that its first sentence ends with."""
    words, formula = [], []
    for s in sentences(text):
        if "<-" in s:
            at = s.rfind(": ", 0, s.index("<-"))
            if at > 0:
                words.append(s[:at] + ".")
            formula.append(s[at + 2 if at > 0 else 0:].rstrip("."))
        elif words and words[-1].endswith(":"):
            words[-1] += " " + s
        else:
            words.append(s)
    return re.sub(r":$", ".", " ".join(words)), formula


# --- what the compiler says -------------------------------------------------------------------------------------------


class Cost:
    def __init__(self, passes, size):
        self.passes, self.bytes, self.plan, self.state = passes, size, [], {}


def measure(structs, compiler):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        includes = "".join(f"#include <{header}>\n" for header, _ in FOLDERS.values())
        (folder / "headers.inc").write_text(includes, encoding="utf-8")
        with open(folder / "list.inc", "w", encoding="utf-8") as out:
            for s in structs.values():
                if s.is_rule:
                    print(f"RULE({s.name}) ATTRIBUTES({s.name}, {len(s.attributes)})", file=out)
                    for a in s.attributes:
                        value = a.default if a.default.startswith("{") else f"= {a.default}" if a.default else "{}"
                        print(f"ATTRIBUTE({s.name}, {a.name}, {value})", file=out)
                elif s.is_stage:
                    print(f"STAGE({s.name})", file=out)
        program = folder / "costs"
        compiled = subprocess.run([compiler, "-std=c++20", "-O0", "-w", "-pthread", "-I", INCLUDE, "-I", folder,
                                   HERE / "costs.cpp", "-o", program], check=False)
        if compiled.returncode:
            sys.exit("make.py: costs.cpp does not compile with the rules, attributes and stages that were found")
        ran = subprocess.run([program], check=False, stdout=subprocess.PIPE, text=True)
        if ran.returncode:
            sys.exit("make.py: costs.cpp found what is said above")
        output = ran.stdout
    costs, lines = {}, iter(output.split("\n"))
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] in ("rule", "stage"):
            cost = costs[words[1]] = Cost(int(words[2]), int(words[3]))
            for more in iter(lambda: next(lines), "end"):
                cost.plan.append(more)
        else:
            m = re.fullmatch(r"state \{(.*)\} (\S+) (\d+) (\d+)", line)
            if m[2] == "step":
                continue
            shape = tuple(int(x) for x in m[1].split(", "))
            sizes = cost.state.setdefault((m[2], int(m[4])), {})
            sizes.setdefault(len(shape), []).append((shape, int(m[3]) // int(m[4])))
    return costs


def solve(rows):
    """The x of A x = b by elimination, None if there is none."""
    rows = [[Fraction(x) for x in r] for r in rows]
    unknowns, done = len(rows[0]) - 1, []
    for column in range(unknowns):
        pivot = next((r for r in rows if r not in done and r[column] != 0), None)
        if pivot is None:
            return None
        done.append(pivot)
        pivot[:] = [x / pivot[column] for x in pivot]
        for r in rows:
            if r is not pivot:
                r[:] = [x - r[column] * p for x, p in zip(r, pivot)]
    return [r[-1] for r in done] if all(r in done or not any(r) for r in rows) else None


def numbers(sizes, rank):
    """How many numbers a piece of state has, as a formula in the extents {n, m} or {n}."""
    if rank not in sizes:
        return "0"
    if rank == 2:
        names = ["n^2", "m^2", "n m", "n", "m", "1"]
        rows = [[n * n, m * m, n * m, n, m, 1, count] for (n, m), count in sizes[2]]
    else:
        names = ["n", "1"]
        rows = [[n, 1, count] for (n,), count in sizes[1]]
    x = solve(rows)
    if x is None:
        return "?"
    terms = [("" if c == 1 and name != "1" else f"{c} " if name != "1" else str(c)) + (name if name != "1" else "")
             for c, name in zip(x, names) if c]
    return " + ".join(terms).replace("+ -", "- ") or "0"


def state_of(cost):
    """Rows (name, numbers for a matrix, numbers for a vector, bytes of each)."""
    return [(name[2:] if name.startswith("w.") else name, numbers(sizes, 2), numbers(sizes, 1), size,
             name.startswith("w."))
            for (name, size), sizes in cost.state.items()]


def state_text(cost):
    rows = state_of(cost)
    if not rows:
        return "State: none."
    if all(matrix == "n m" and vector == "n" for _, matrix, vector, _, _ in rows):
        names = ", ".join(f"`{r[0]}`" for r in rows)
        each = ", each the size of the weights" if len(rows) > 1 else ", the size of the weights"
        return f"State: {names}{each}; {sum(r[3] for r in rows)} bytes per parameter."
    lines = ["State, in numbers:", "", "| name | of a matrix {n, m} | of a vector {n} | bytes of each |",
             "|---|---|---|---|"]
    for name, matrix, vector, size, own in rows:
        for_all = "" if own else " for all tensors"
        lines.append(f"| `{name}` | {matrix}{for_all} | {vector}{for_all} | {size} |")
    return "\n".join(lines)


def state_cell(cost):
    cells = []
    for name, matrix, _, _, own in state_of(cost):
        if matrix == "0":
            continue
        per_tensor = " per tensor" if own and matrix == "1" else ""
        size = "" if matrix == "n m" else f" ({matrix}{per_tensor})"
        cells.append(f"`{name}`{size}")
    return ", ".join(cells)


# --- pages ------------------------------------------------------------------------------------------------------------


class Pages:
    def __init__(self, structs, notes, costs):
        self.structs, self.notes, self.costs = structs, notes, costs
        self.family = families()
        for s in structs.values():
            if s.is_rule and s.name not in self.family:
                sys.exit(f"make.py: {s.path}: give the rule {s.name} a line in optim/{s.folder}/list.inc.hpp")
        self.rules = [structs[name] for name in self.family]
        self.old = {p.name: p.read_text(encoding="utf-8") for p in sorted(HERE.glob("*.md"))}
        self.included = closure("dovetail/optim.hpp")
        self.home = {}  # of structs that a page describes
        for name, text in self.old.items():
            for what in re.findall(r"^<!-- make: struct (\w+) -->$", text, re.M):
                self.home[what] = name

    def make(self):
        for s in self.rules:
            if f"{s.name}.md" not in self.old:
                complain(f"docs/rules/{s.name}.md", f"the rule {s.name} has no page")
        for s in self.structs.values():
            if s.folder == "cuda" or s.is_rule:
                continue
            used = s.name in self.home or any(s.name in r.chain for r in self.rules)
            if (s.is_stage or s.is_schedule) and not used:
                complain(s.path, f"{s.name} is on no page: give it a block <!-- make: struct {s.name} -->")
        pages = dict(self.old)
        for s in self.rules:
            pages.setdefault(f"{s.name}.md", self.skeleton(s))
        for name, text in pages.items():
            pages[name] = re.sub(r"(?m)^<!-- make: (\w+) ?(\w*) -->\n(?s:.*?)^<!-- end -->$",
                                 lambda m, page=name: self.block(page, m[1], m[2], pages), text)
        for name, text in pages.items():
            self.look_at(name, text)
        return pages

    def block(self, page, kind, name, pages):
        known = {"rule": self.rule, "details": self.details, "struct": self.struct}
        if kind == "table":
            body = self.table(pages)
        elif kind in known and name in self.structs:
            body = known[kind](self.structs[name])
        else:
            complain(f"docs/rules/{page}", f"there is nothing to make of '{kind} {name}'")
            body = ""
        head = f"<!-- make: {kind} {name} -->" if name else f"<!-- make: {kind} -->"
        return f"{head}\n{body}\n<!-- end -->"

    def look_at(self, name, text):
        where = f"docs/rules/{name}"
        if re.search(r"\bTODO\b", text):
            complain(where, "has a TODO")
        if "<!-- make:" not in text and name not in BY_HAND:
            complain(where, "has no block for make.py: is it the page of a rule that is gone?")
        rule = self.structs.get(name[:-3])
        if not rule or not rule.is_rule:
            return
        if re.findall(r"^## (.*)$", text, re.M) != SECTIONS:
            complain(where, f"must have the sections {', '.join(SECTIONS)}")
        for kind in ("rule", "details"):
            if f"<!-- make: {kind} {rule.name} -->" not in text:
                complain(where, f"has no block <!-- make: {kind} {rule.name} -->")
        if not re.search(r"```cpp\n(?s:.)*optim::" + rule.name + r"\b", text):
            complain(where, f"has no example with optim::{rule.name}")

    @staticmethod
    def skeleton(s):
        needs = FOLDERS[s.folder][1]
        directive = f"// needs: {needs.split('::')[1]}\n" if needs else ""
        return "\n".join([
            f"# {s.name}", "", f"<!-- make: rule {s.name} -->", "<!-- end -->", "", "## When to use it", "",
            "TODO: where it shines, in one sentence, which the table of all rules repeats. Then more.", "",
            f"<!-- make: details {s.name} -->", "<!-- end -->", "", "## Example", "",
            f"```cpp\n{directive}// run\n#include <{FOLDERS[s.folder][0]}>\n\nint main() {{ return TODO; }}\n```", "",
            "## See also", "", "TODO", ""])

    def source(self, s):
        """The fullest form of every citation of a rule and of its directions."""
        found = []
        for stage in [s] + [self.structs[x] for x in s.chain if x in self.structs]:
            for c in citations(stage.text):
                author = re.match(r"\w+", c)[0]
                same = next((i for i, f in enumerate(found) if re.match(r"\w+", f)[0] == author), None)
                if same is None and stage.name not in self.home:
                    found.append(c)
                elif same is not None and len(c) > len(found[same]):
                    found[same] = c
        if not found:
            complain(s.path, f"{s.name} names no source (author, year) in its comment, nor do its stages")
        return "; ".join(found)

    def check_cost(self, s):
        cost = self.costs[s.name]
        said = re.search(r"(\d+) pass(?:es)?, (\d+) bytes", s.text)
        if said and (int(said[1]), int(said[2])) != (cost.passes, cost.bytes):
            complain(s.path, f"the comment of {s.name} says {said[0]}, the plan {cost.passes} and {cost.bytes}")

    def rule(self, s):
        self.check_cost(s)
        text = re.sub(r"\d+ pass(?:es)?, \d+ bytes[^.]*\.|State(?: of [^:]*)?:[^.]*\.", "", without_citations(s.text))
        words, _ = split_formula(re.sub(r"\s+", " ", text).strip())
        if len(words.split()) < 4:
            complain(s.path, f"the comment of {s.name} says too little in words: '{words}'")
        include, target = FOLDERS[s.folder]
        needs = f"; CMake's target `{target}`" if target else ""
        link = f"[`{s.path.removeprefix('dovetail/')}`](../../include/{s.path})"
        return "\n\n".join([
            prose(words),
            wrap(f"`#include <{include}>`{needs}; declared in {link}."),
            prose(f"Source: {self.source(s)}."),
        ])

    @staticmethod
    def cost_text(cost):
        return f"{cost.passes} {'pass' if cost.passes == 1 else 'passes'}, {cost.bytes} bytes per parameter"

    def details(self, s):
        _, whole = split_formula(re.sub(r"\d+ pass(?:es)?, \d+ bytes[^.]*\.", "", without_citations(s.text)).strip())
        lines, extras = [], []
        for stage in s.chain:
            t = self.structs[stage]
            said = sentences(without_citations(t.text))
            if stage in self.home:
                said = said[:1]
            elif t.folder in ("rules", "matrix"):
                extras += [x for x in sentences(self.notes[t.header])[1:]
                           if not re.match(r"u is the update|In the formulas", x) and x not in extras
                           and all(a not in x or b in t.text for a, b in SYMBOLS)]
            lines += [stage, statements(" ".join(said), "    ")]
        text = "\n".join(lines)
        if re.search(r"Adam's moments|[mv]\^", text) and "m^ =" not in text and "moments" in self.structs:
            extras.append(self.structs["moments"].text)
        links = " → ".join(f"[`{x}`]({self.home[x]}#{x})" if x in self.home else
                           f"[`{x}`](../../include/{self.structs[x].path})" for x in s.chain)
        parts = ["## Formula"]
        if whole:
            parts.append(formula_block(statements(x) for x in whole))
        parts += [wrap(f"As a chain: {links}."), formula_block(lines), prose(" ".join([CONVENTIONS] + extras)),
                  "## Attributes", self.attribute_table(s), "## Cost",
                  formula_block([line.rstrip() for line in self.costs[s.name].plan]), state_text(self.costs[s.name])]
        if any(self.structs[x].is_tensorwise for x in s.chain):
            parts.append("What the stages that map whole tensors read and write themselves is not in the bytes.")
        return "\n\n".join(parts)

    def attribute_table(self, s):
        if not s.attributes:
            return "No attributes."
        lines = ["| attribute | type | default | meaning |", "|---|---|---|---|"]
        for a in s.attributes:
            if a.name.endswith("_"):  # room, no part of the value
                continue
            meaning = a.meaning or self.common_meaning(s, a)
            if not meaning:
                complain(s.path, f"nothing says what {s.name}::{a.name} means: give it a comment ///<")
            default = re.sub(r"(?<=[0-9.])f\b", "", a.default).replace("std::numeric_limits<float>::max()", "∞")
            default = "" if default == "{}" else default
            cell = f"`{default}`" if default and default != "∞" else default
            type_ = "[`schedule`](schedules.md)" if a.type == "schedule" else f"`{a.type}`"
            meaning = prose(meaning).replace("\n", " ").replace("|", "\\|")
            lines.append(f"| `{a.name}` | {type_} | {cell} | {meaning} |")
        return "\n".join(lines)

    @staticmethod
    def common_meaning(s, a):
        if a.name == "weight_decay" and "add_decayed_weights" in s.chain:
            at = s.chain.index("add_decayed_weights")
            if at == 0:
                return "coupled (L2): this share of each weight is added to its gradient"
            return "decoupled: a step also takes lr × weight_decay of each weight away"
        return MEANINGS.get(a.name, "") if s.is_rule else ""

    def struct(self, s):
        parts, runs = [], []
        for line in s.comment:  # what is indented stays as it is
            kind = line.startswith("    ") if line.strip() else None
            if kind is not None and runs and runs[-1][0] == kind:
                runs[-1][1].append(line)
            elif kind is not None:
                runs.append((kind, [line]))
        for indented, lines in runs:
            if indented:
                parts.append(formula_block(line[4:] for line in lines))
                continue
            said, formula = sentences(without_citations(" ".join(lines))), []
            while said and is_formula(said[0]):
                formula.append(said.pop(0))
            if formula:
                parts.append(formula_block([statements(" ".join(formula))]))
            if said:
                parts.append(prose(" ".join(said)))
        if s.path not in self.included:
            parts.append(f"`#include <{s.path}>`")
        if citations(s.text):
            parts.append(prose("Source: " + "; ".join(citations(s.text)) + "."))
        if s.attributes:
            parts.append(self.attribute_table(s))
        if s.is_stage:
            cost, plain = self.costs[s.name], self.costs["sgd"]
            if re.search(r"ends_chain = true", s.body):
                place = "Alone"
            else:
                place = "Behind `sgd`" if re.search(r"after_learning_rate = true", s.body) else "In front of `sgd`"
                place += f", which by itself takes {self.cost_text(plain)}"
            parts.append(wrap(f"{place}: {self.cost_text(cost)}."))
            parts.append(state_text(cost))
        return "\n\n".join(parts)

    def table(self, pages):
        lines = ["| rule | family | source | passes | bytes | state | where it shines |",
                 "|---|---|---|---|---|---|---|"]
        for s in self.rules:
            family = self.family[s.name].replace("_", " ")
            when = re.search(r"^## When to use it\n\n(.*?)(?=\n\n|\Z)", pages[f"{s.name}.md"], re.M | re.S)
            shines = sentences(when[1].replace("\n", " "))[0].rstrip(".:") if when else ""
            source = s.source or next((self.structs[x].source for x in s.chain if x not in self.home), "")
            cells = [f"[`{s.name}`]({s.name}.md)", family, source.split(";")[0], str(self.costs[s.name].passes),
                     str(self.costs[s.name].bytes), state_cell(self.costs[s.name]), shines]
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is stale or missing")
    parser.add_argument("--compiler", default=os.environ.get("CXX", "g++"))
    options = parser.parse_args()
    structs, notes = read_headers()
    pages = Pages(structs, notes, measure(structs, options.compiler))
    made = pages.make()
    stale = 0
    for name, text in made.items():
        old = pages.old.get(name, "")
        if text == old:
            continue
        stale += 1
        if not options.check:
            (HERE / name).write_text(text, encoding="utf-8")
            print(f"wrote docs/rules/{name}")
        elif old:
            print("".join(difflib.unified_diff(old.splitlines(True), text.splitlines(True), f"docs/rules/{name}",
                                               "what the headers say")), end="")
    for p in problems:
        print(p)
    print(f"{len(pages.rules)} rules, {len(made)} pages, {stale} {'stale' if options.check else 'written'}, "
          f"{len(problems)} problems")
    if options.check and stale:
        print("run docs/rules/make.py and look at what it changes")
    return 1 if problems or (options.check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
