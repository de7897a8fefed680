#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Fills in what the pages of this folder say of the code: everything between <!-- make: … --> and <!-- end -->.

    docs/codecs/make.py [--compiler g++]           rewrites the pages; a codec without a page gets a new one to be written
    docs/codecs/make.py --check [--compiler g++]   changes nothing; says what is stale, missing or unfinished, and fails

Sentences, formulas, sources and meanings are read from the headers; ranges, defaults, bytes, state, legal exchanges and
what is lost are printed by facts.cpp, which is compiled here with all codecs and the tests' registry of them; times are
read from a table of bench/results. The blocks:

    codec NAME     what a codec is and where it comes from
    details NAME   its payload, attributes, properties, cost, and a program
    table          all codecs
    steps, losses  of docs/codecs.md: tables of the figures
"""
import json
import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# pylint: disable=wrong-import-position
import pages as shared
from pages import (DOCS, INCLUDE, closure, complain, default_cell, formula_block, output_of, prose, structs_of, table,
                   when, wrap)

HERE = pathlib.Path(__file__).resolve().parent
COMPRESS = INCLUDE / "dovetail" / "compress"
LIBRARIES = {"dovetail/compress/zstd.hpp": "zstd"}  # what a header outside of compress.hpp needs: a target of CMake
BY_PARTS = ["after", "automatic"]  # `sync::all_reduce` exchanges what is in them, not them
UNPUBLISHED = ["identity"]  # codecs without a source; those around others may have none
RESULTS = "bench/results/sapphire-rapids-2-cores.md"  # its first table below "## Codecs, " has times in copies
COPIED = {"steps": "Steps with codecs between two hosts", "losses": "Loss against bytes"}
# What attributes mean that mean the same in most codecs. A comment ///< in the header goes before.
MEANINGS = {
    "ratio": "share of the elements that is sent",
    "block": "elements that have a scale in common; 0: all of the bucket",
    "codec": "the codec that this one is around",
    "momentum": "share of the momentum that a step keeps",
}
KINDS = {
    "replicated": "the same on all ranks",
    "summed": "its sum over ranks is kept when their number changes",
    "sharded": "divided among ranks",
    "own": "another number of ranks is refused",
}


# --- what the headers say --------------------------------------------------------------------------------------------


def read_headers():
    """The struct of every codec by the name that programs use: an alias of a template, or its own."""
    found = {}
    for header in sorted(COMPRESS.glob("*.hpp")):
        if header.name == "traits.hpp":
            continue
        aliases = re.findall(r"^using (\w+) = (\w+)<.*>;$", header.read_text(encoding="utf-8"), re.M)
        for s in structs_of(header):
            if "static constexpr bool wants_error_feedback" not in s.body:
                continue
            names = [alias for alias, of in aliases if of == s.name]
            s.is_around = bool(s.template) and not names
            found.update((name, s) for name in names or [s.name])
    return found


def paragraphs(comment):
    """A comment as paragraphs of runs (kind, lines): text, formulas (two spaces more), code (four), and lists."""
    found, runs = [], []
    for line in comment + [""]:
        if not line.strip():
            if runs:
                found.append(runs)
            runs = []
            continue
        in_list = bool(runs) and runs[-1][0] == "list"
        kind = ("code" if line.startswith("    ") else "list" if line.startswith("- ") or (in_list and line[0] == " ")
                else "formula" if line.startswith("  ") else "text")
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(line)
        else:
            runs.append((kind, [line]))
    return found


def first_words(runs):
    return runs[0][1][0] if runs[0][0] == "text" else ""


def markdown(runs):
    parts = []
    for kind, lines in runs:
        if kind in ("code", "formula"):
            parts.append(formula_block(line[4 if kind == "code" else 2:].rstrip() for line in lines))
        elif kind == "list":
            items = re.split(r"\n(?=- )", "\n".join(lines))
            parts.append("\n".join(listed(re.sub(r"\s+", " ", item[2:])) for item in items))
        else:
            parts.append(prose(" ".join(lines)))
    return "\n\n".join(parts)


def listed(text):
    return prose("- " + text).replace("\\- ", "- ", 1).replace("\n", "\n  ")


# --- what the compiler and the benchmark say ---------------------------------------------------------------------------


def has_zstd(compiler):
    probe = subprocess.run([compiler, "-x", "c++", "-", "-o", "/dev/null", "-lzstd"], check=False, text=True,
                           input="#include <zstd.h>\nint main() { return ZSTD_versionNumber() == 0; }\n",
                           stderr=subprocess.DEVNULL)
    return probe.returncode == 0


def measure(structs, compiler):
    """Of each codec its facts, with a list of settings; none of codecs whose library is missing."""
    plain = [name for name, s in structs.items() if not s.is_around]
    options = ["-DWITH_ZSTD", "-lzstd"] if has_zstd(compiler) else []
    output = output_of(HERE / "facts.cpp", compiler, {"list.inc": "".join(f"CODEC({name})\n" for name in plain)},
                       options)
    facts = {}
    for line in output.splitlines():
        one = json.loads(line)
        if "example" in one:
            facts[one["page"]] = one | {"settings": {}}
        elif one["page"] not in structs:
            complain("test/compress/registry.hpp", f"no page is for its codec {one['page']}")
        elif "settings" in one:  # those of the registry come later, and have a promise
            facts[one["page"]]["settings"][one["settings"]] = one
    return facts


class Figures:
    """The tables of a file of figures."""

    def __init__(self):
        self.text = (DOCS.parent / RESULTS).read_text(encoding="utf-8")
        self.machine = re.search(r"^# Figures: (.*)$", self.text, re.M)[1]

    def section(self, begin):
        """The text below a heading that begins so, and where that is."""
        heading, text = re.search(rf"^## ({begin}.*)\n((?s:.*?))(?=^## |\Z)", self.text, re.M).groups()
        anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        return text, f"{RESULTS}#{anchor}"

    def times(self):
        """The times of codecs in copies, (encode, decode, what is said of the settings); and where they stand."""
        text, where = self.section("Codecs, ")
        setup = re.search(r"(\d+ M floats [^;]*);", text)[1]
        times = {}
        for row in re.findall(r"^\|(.*`.*)\|(.*)\|(.*)\|$", text, re.M):
            encode, decode = (cell.strip().split(", ") for cell in row[1:])
            for i, (name, more) in enumerate(re.findall(r"`(\w+)`([^,`]*)", row[0])):
                times.setdefault(name, []).append((encode[i % len(encode)], decode[i % len(decode)], more.strip()))
        return times, f"{setup}, [{self.machine}](../../{where})"

    def copy(self, begin):
        """The table of a section, as it stands there."""
        text, where = self.section(begin)
        rows = "\n".join(line for line in text.split("\n") if line.startswith("|"))
        return f"{rows}\n\n([{self.machine}](../{where}))"


# --- pages ------------------------------------------------------------------------------------------------------------


def figure(x):
    return f"{x:.3g}" if x < 1000 else f"{x:.0f}"


def in_words(f):
    """A range."""
    if f["choices"]:
        return ", ".join(f["choices"].split())
    low, high = f["low"], f["high"]
    if low and high:
        return f"{'(' if f['above'] else '['}{low}, {high}{')' if f['below'] else ']'}"
    words = f"{'>' if f['above'] else '≥'} {low}" if low else f"{'<' if f['below'] else '≤'} {high}" if high else ""
    return words + (" or ∞" if f["unbounded"] else "")


class Codecs(shared.Pages):
    sections = ["When to use it", "Formula and payload", "Attributes", "Properties", "Cost", "Example", "See also"]
    blocks = ["codec", "details"]
    also = ["../codecs.md"]
    what = "codec"

    def __init__(self, structs, facts):
        super().__init__(HERE, list(structs))
        self.structs, self.facts = structs, facts
        self.included = closure("dovetail/compress.hpp")
        self.figures = Figures()
        self.times, self.measured = self.figures.times()
        for name in set(self.times) - set(structs):
            complain(RESULTS, f"has times of {name}, which is no codec")
        for name, s in structs.items():
            if name not in facts and s.path not in LIBRARIES:
                complain("docs/codecs/facts.cpp", f"has no AROUND of {name}")

    def block_text(self, kind, name, old, pages):
        if kind == "table":
            return self.table(pages) if len(self.facts) == len(self.structs) else old
        if kind in COPIED:
            return self.figures.copy(COPIED[kind])
        known = {"codec": self.codec, "details": self.details}
        if kind not in known or name not in self.structs:
            return None
        return known[kind](name) if name in self.facts else old

    def shown(self, name):
        return rf"compress::{name}\b"

    def skeleton(self, name):
        return "\n".join([
            f"# {name}", "", f"<!-- make: codec {name} -->", "<!-- end -->", "", "## When to use it", "",
            "TODO: where it shines, in one sentence, which the table of all codecs repeats. Then more.", "",
            f"<!-- make: details {name} -->", "<!-- end -->", "", "## See also", "", "TODO", ""])

    def codec(self, name):
        s = self.structs[name]
        said = paragraphs(s.comment)
        parts = [markdown(said[0])]
        header = "dovetail/compress.hpp" if s.path in self.included else s.path
        needs = f"; CMake's target `dovetail::{LIBRARIES[s.path]}`" if s.path in LIBRARIES else ""
        link = f"[`{s.path.removeprefix('dovetail/')}`](../../include/{s.path})"
        parts.append(wrap(f"`#include <{header}>`{needs}; `compress::{name}` is declared in {link}."))
        sources = [markdown(p) for p in said if first_words(p).startswith("Source")]
        if not sources and not s.is_around and name not in UNPUBLISHED:
            complain(s.path, f"the comment of {s.name} has no paragraph that begins with 'Source:'")
        parts += sources
        return "\n\n".join(parts)

    def details(self, name):
        s = self.structs[name]
        more = [markdown(p) for p in paragraphs(s.comment)[1:] if not re.match("Source|Errors:", first_words(p))]
        if not more:
            complain(s.path, f"the comment of {s.name} has one paragraph: nothing says what a payload is")
        return "\n\n".join(["## Formula and payload", *more, "## Attributes", self.attribute_table(name), "## Properties",
                            self.properties(name), "## Cost", self.cost(name), "## Example", self.example(name)])

    def attribute_table(self, name):
        s, fields = self.structs[name], {f["name"].split(".")[-1]: f for f in self.facts[name]["fields"]}
        attributes = s.attributes
        if any(f["name"].startswith("options.") for f in fields.values()):
            attributes = next(x for x in structs_of(s.header) if x.name.endswith("_options")).attributes
        rows = []
        for a in attributes:
            f = fields.get(a.name)
            meaning = a.meaning or MEANINGS.get(a.name, "")
            if not meaning:
                complain(s.path, f"nothing says what {s.name}::{a.name} means: give it a comment ///<")
            default = default_cell(a.default)
            read = default.strip("`").split("::")[-1]
            if f and f["value"] and not s.is_around and f["value"].replace("inf", "∞") != read and \
                    not same_number(f["value"], read):
                complain(s.path, f"the default of {s.name}::{a.name} is {f['value']}, and was read as {default}")
            shown = f["name"] if f else a.name
            rows.append([f"`{shown}`", f"`{a.type}`", default, in_words(f) if f else "", prose(meaning)])
        return table(["attribute", "type", "default", "range", "meaning"], rows) if rows else "No attributes of its own."

    def class_of(self, name):
        f, s = self.facts[name], self.structs[name]
        if f["unbiased"] and f["contraction"]:
            return "exact", "Exact: what is decoded is the gradient."
        if f["unbiased"]:
            return "unbiased", "Unbiased: the mean of what is decoded is x, and `E|decoded − x|² <= omega |x|²`."
        if f["contraction"]:
            said = re.search(r"static constexpr bool contraction = .*;\s*///< (.*)", s.body)
            return "contraction", "A contraction: `E|decoded − x|² <= (1 − d) |x|²`" + \
                (f", {said[1].rstrip('.')}." if said else ".")
        return "neither", "Neither unbiased nor a contraction."

    def properties(self, name):
        f, around = self.facts[name], self.structs[name].is_around
        items = [self.class_of(name)[1]]
        if f["wants_error_feedback"]:
            items.append("Error feedback: wanted. Synchronizers refuse it without [`error_feedback`](error_feedback.md) or "
                         "[`without_feedback`](without_feedback.md).")
        elif f["may_have_feedback"]:
            items.append("Error feedback: not needed, and possible.")
        else:
            items.append("[`error_feedback`](error_feedback.md) around it does not compile.")
        size = "a fixed size" if f["fixed_size"] else "a size of at most `wire_size`"
        summed = f"summable as {f['wire_type']}" if f["summable"] else "not summable"
        rounds = f", in {f['rounds']} rounds" if f["rounds"] > 1 else ""
        items.append(f"Payloads: of {size}, {summed}{rounds}.")
        exchanges = ", ".join(f"`{e}`" for e in f["exchanges"])
        only = "" if len(f["exchanges"]) == 1 else \
            f"; `automatic` takes `{f['chosen']}` for {f['numbers']:,} elements and {f['ranks']} ranks"
        if name not in BY_PARTS:
            items.append(f"Exchanges (`sync::exchange`): {exchanges}{only}.")
        state = [f"`{t['name']}`, {self.count(t, f['numbers'])} ({KINDS[t['kind']]})" for t in f["state"]]
        if name in BY_PARTS:
            state = ["of each codec in it"]
        items.append("State in checkpoints" + ("" if around else ", with the defaults") + ": " + ("; ".join(state) if state else "none") + ".")
        bad, all_ = f["not_finite"], f["numbers"]
        if bad == 0:
            complain(self.structs[name].path, f"{name} hides a NaN")
        place = "in every element" if bad == all_ else f"in {bad:,} elements" if bad > 1 else \
            "in its place" if f["in_place"] else "in one element"
        itself = "" if f["in_place"] else ", not in its own"
        items.append(f"A NaN in a bucket of {all_:,} elements: what is decoded is not finite {place}{itself}.")
        items += [" ".join(p[0][1]) for p in paragraphs(self.structs[name].comment)
                  if first_words(p).startswith("Errors:")]
        of = f"Of `{f['example']}`:\n\n" if around else ""
        return of + "\n".join(listed(i) for i in items) + "\n\n" + self.settings(name)

    @staticmethod
    def count(tensor, numbers):
        size = "floats" if tensor["size"] == 4 else f"numbers of {tensor['size']} bytes"
        return f"n {size}" if tensor["numbers"] == numbers else f"{tensor['numbers']:,} {size}"

    def settings(self, name):
        f, s = self.facts[name], self.structs[name]
        n, rows = f["numbers"], []
        for settings, one in f["settings"].items():
            promised = f"omega <= {figure(one['omega'])}" if f["unbiased"] and one["omega"] > 0 else \
                "" if not f["contraction"] or one["delta"] <= 0 else \
                f"d >= {figure(one['delta'])}" if one["delta"] < 0.999 else f"1 − d <= {figure(1 - one['delta'])}"
            size = figure(one["bytes"] / n)
            if not f["fixed_size"] and one["sent"] < one["bytes"]:  # what a library makes of it depends on its version
                size = f"at most {size}" + ("" if s.path in LIBRARIES else f", {figure(one['sent'] / n)} here")
            lost = figure(one["lost"]) if f["unbiased"] or f["contraction"] else ""
            rows.append([f"`{f['example'] if s.is_around else f'{name}{{{settings}}}'}`", size, promised, lost])
        words = (f"Of a matrix of {n:,} nearly normal numbers, in the first step: bytes per element, what tests hold the "
                 "codec to (`test/compress/registry.hpp`), and what is lost, |decoded − x|² / |x|²: above 1 "
                 "where noise is larger than x. Tests have other buckets than this one.")
        return prose(words) + "\n\n" + table(["settings", "bytes", "tested", "lost"], rows)

    def cost(self, name):
        if name not in self.times:
            label = "" if self.structs[name].path in LIBRARIES else \
                " `./run bench codecs` measures every codec of the registry."
            return prose(f"No times in [the figures](../../{RESULTS}).{label}")
        rows = [[f"`{name}` {more}".strip(), encode, decode] for encode, decode, more in self.times[name]]
        return prose(f"Time in copies of the same floats ({self.measured}):") + "\n\n" + \
            table(["codec", "encode", "decode and add"], rows)

    def example(self, name):
        f, s = self.facts[name], self.structs[name]
        codec = f["example"]
        if f["wants_error_feedback"]:
            codec = f"compress::error_feedback{{{codec}}}"
        directive = f"// needs: {LIBRARIES[s.path]}\n" if s.path in LIBRARIES else ""
        include = "" if s.path in self.included else f"#include <{s.path}>\n"
        return f"""```cpp
{directive}// run
#include <dovetail/compress.hpp>
{include}#include <dovetail/sync.hpp>
using namespace dovetail;

int main() {{
  arena memory({{{{"w", {{1024, 1024}}}}}});
  sync::all_reduce const sync{{{codec}}};
  // A session: sync.join(memory.parameters(), optimizer, comm). Bytes that rank 0 of {f['ranks']} sends in its step:
  auto const bytes = sync.predict(memory.parameters(), {f['ranks']}, 0).bytes_sent;
  return bytes == {f['step_bytes']} ? 0 : 1;
}}
```"""

    def table(self, pages):
        rows = []

        def bytes_of(name):
            return next(iter(self.facts[name]["settings"].values()))["bytes"] / self.facts[name]["numbers"]
        for name in sorted(self.names, key=lambda x: (self.structs[x].is_around, -bytes_of(x))):
            f, around = self.facts[name], self.structs[name].is_around
            size = ("" if f["fixed_size"] else "≤ ") + figure(bytes_of(name))
            feedback = "wanted" if f["wants_error_feedback"] else "possible" if f["may_have_feedback"] else ""
            rows.append([f"[`{name}`]({name}.md)", "as inside" if around else size, "" if around else
                         self.class_of(name)[0], "" if around else feedback, "" if around else f"`{f['chosen']}`",
                         when(pages[f"{name}.md"])])
        return table(["codec", "bytes", "class", "error feedback", "exchange", "use it when"], rows)


def same_number(a, b):
    try:
        return float(a) == float(b)
    except ValueError:
        return False


def make(compiler):
    structs = read_headers()
    return Codecs(structs, measure(structs, compiler))


if __name__ == "__main__":
    sys.exit(shared.main(__doc__, make))
