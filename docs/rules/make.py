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
import pathlib
import re
import sys
from fractions import Fraction

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
import pages as shared
from pages import (INCLUDE, Struct, citations, closure, complain, default_cell, formula_block, output_of, prose,
                   sentences, statements, structs_of, table, when, without_citations, wrap)

HERE = pathlib.Path(__file__).resolve().parent
OPTIM = INCLUDE / "dovetail" / "optim"
# Folders with rules: what a program includes, and the target of CMake that it links if that is not dovetail::dovetail.
FOLDERS = {"rules": ("dovetail/optim.hpp", None), "matrix": ("dovetail/optim/matrix.hpp", "dovetail::lapack")}
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


# --- what the headers say --------------------------------------------------------------------------------------------


class Policy(Struct):
    """A rule, a stage, a schedule or any other struct of optim/, with the chain that it stands for."""

    def __init__(self, *of):
        super().__init__(*of)
        body = self.body
        chain = re.search(r"using rule = chain<(.*?)>;", body, re.S)
        self.chain = re.findall(r"\w+", chain[1]) if chain else []
        self.is_rule = bool(re.search(r"^  DOVETAIL_OPTIMIZER$", body, re.M))
        self.is_tensorwise = bool(re.search(r"^  using kind = tensorwise", body, re.M))
        self.is_stage = self.is_tensorwise or bool(re.search(r"^  \w+ kernel prepare\(", body, re.M))
        self.is_schedule = bool(re.search(r"^  .*float operator\(\)\(std::int64_t(?: step)?\) const", body, re.M))
        self.source = (citations(self.text) or [""])[0]


def read_headers():
    structs, notes, marked = {}, {}, 0
    for header in sorted(OPTIM.rglob("*.hpp")):
        lines = header.read_text(encoding="utf-8").split("\n")
        marked += sum(line.strip() == "DOVETAIL_OPTIMIZER" for line in lines)
        space = next((i for i, line in enumerate(lines) if line.startswith("namespace")), 0)
        notes[header] = shared.joined([line[3:] for line in lines[2:space] if line.startswith("// ")])
        for s in structs_of(header, Policy):
            structs[s.name] = s
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


# --- sentences -------------------------------------------------------------------------------------------------------


def is_formula(sentence):
    return "<-" in sentence or bool(re.search(r"×|\^|[a-z]\) / | / \(", sentence))


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
    lines = []
    for s in structs.values():
        if s.is_rule:
            lines.append(f"RULE({s.name}) ATTRIBUTES({s.name}, {len(s.attributes)})")
            for a in s.attributes:
                value = a.default if a.default.startswith("{") else f"= {a.default}" if a.default else "{}"
                lines.append(f"ATTRIBUTE({s.name}, {a.name}, {value})")
        elif s.is_stage:
            lines.append(f"STAGE({s.name})")
    output = output_of(HERE / "costs.cpp", compiler, {
        "headers.inc": "".join(f"#include <{header}>\n" for header, _ in FOLDERS.values()),
        "list.inc": "\n".join(lines) + "\n",
    })
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


class Rules(shared.Pages):
    sections = ["When to use it", "Formula", "Attributes", "Cost", "Example", "See also"]
    blocks = ["rule", "details"]
    by_hand = ["elsewhere.md"]
    what = "rule"

    def __init__(self, structs, notes, costs):
        self.structs, self.notes, self.costs = structs, notes, costs
        self.family = families()
        for s in structs.values():
            if s.is_rule and s.name not in self.family:
                sys.exit(f"make.py: {s.path}: give the rule {s.name} a line in optim/{s.folder}/list.inc.hpp")
        super().__init__(HERE, list(self.family))
        self.rules = [structs[name] for name in self.family]
        self.included = closure("dovetail/optim.hpp")
        self.home = {}  # of structs that a page describes
        for name, text in self.old.items():
            for what in re.findall(r"^<!-- make: struct (\w+) -->$", text, re.M):
                self.home[what] = name
        for s in structs.values():
            if s.folder == "cuda" or s.is_rule:
                continue
            used = s.name in self.home or any(s.name in r.chain for r in self.rules)
            if (s.is_stage or s.is_schedule) and not used:
                complain(s.path, f"{s.name} is on no page: give it a block <!-- make: struct {s.name} -->")

    def block_text(self, kind, name, _, pages):
        if kind == "table":
            return self.table(pages)
        known = {"rule": self.rule, "details": self.details, "struct": self.struct}
        return known[kind](self.structs[name]) if kind in known and name in self.structs else None

    def shown(self, name):
        return rf"optim::{name}\b"

    def skeleton(self, name):
        s = self.structs[name]
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
        rows = []
        for a in s.attributes:
            if a.name.endswith("_"):  # room, no part of the value
                continue
            meaning = a.meaning or self.common_meaning(s, a)
            if not meaning:
                complain(s.path, f"nothing says what {s.name}::{a.name} means: give it a comment ///<")
            type_ = "[`schedule`](schedules.md)" if a.type == "schedule" else f"`{a.type}`"
            rows.append([f"`{a.name}`", type_, default_cell(a.default), prose(meaning)])
        return table(["attribute", "type", "default", "meaning"], rows)

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
        rows = []
        for s in self.rules:
            family = self.family[s.name].replace("_", " ")
            source = s.source or next((self.structs[x].source for x in s.chain if x not in self.home), "")
            cost = self.costs[s.name]
            rows.append([f"[`{s.name}`]({s.name}.md)", family, source.split(";")[0], str(cost.passes), str(cost.bytes),
                         state_cell(cost), when(pages[f"{s.name}.md"])])
        return table(["rule", "family", "source", "passes", "bytes", "state", "where it shines"], rows)


def make(compiler):
    structs, notes = read_headers()
    return Rules(structs, notes, measure(structs, compiler))


if __name__ == "__main__":
    sys.exit(shared.main(__doc__, make))
