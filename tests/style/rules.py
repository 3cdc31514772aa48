"""The rules of the style test: each takes text and gives findings. Reads no files."""

import ast
import collections
import fnmatch
import re

# value is what a limit is compared with, or how often a banned word stands in the file.
Finding = collections.namedtuple("Finding", "rule file line value message")

_CPP_TOKENS = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<d>[^(\s]*)\(.*?\)(?P=d)"|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)
_CONTROL = re.compile(r"^(if|for|while|switch|do|else|try|catch|return)\b")
_ACCESS = re.compile(r"^[ \t]*(public|private|protected)[ \t]*:(?!:)", re.MULTILINE)
_SCOPE = re.compile(r'\b(namespace|class|struct|union|enum)\b|^extern\b')


def blank_cpp(text, keep_strings=False):
    """The text with comments and literals blanked out, every line in its place."""

    def blank(match):
        token = match.group()
        if keep_strings and not token.startswith(("//", "/*")):
            return token
        return re.sub(r"[^\n]", " ", token)

    return _CPP_TOKENS.sub(blank, text)


def _without_directives(text):
    """Blanks preprocessor lines with their continuations, and access labels."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())

    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.MULTILINE)
    return _ACCESS.sub(blank, text)


def cpp_functions(text):
    """(first line, lines, name) of every outermost function body, by counting braces."""
    code = _without_directives(blank_cpp(text))
    functions, scopes, start, line, head_line = [], [], 0, 1, None
    for position, char in enumerate(code):
        if char == "\n":
            line += 1
        elif not char.isspace() and head_line is None:
            head_line = line
        if char not in ";{}":
            continue
        head = " ".join(code[start:position].split())
        if char == "{":
            inside = any(kind == "function" for kind, _, _ in scopes)
            is_function = not inside and _opens_function(head)
            name = re.search(r"([\w~:]+)\s*\(", head)
            scopes.append(("function" if is_function else "other", head_line or line,
                           name.group(1) if name else head[-40:]))
        elif char == "}" and scopes:
            kind, first, name = scopes.pop()
            if kind == "function":
                functions.append((first, line - first + 1, name))
        start, head_line = position + 1, None
    return functions


def _opens_function(head):
    """Whether the words between the last statement and a brace are a function's head."""
    if "(" not in head or _CONTROL.search(head):
        return False
    before = re.sub(r"<[^<>]*>", "", head).split("(", 1)[0]
    before = re.sub(r"\b(alignas|template)\b", "", before)
    assigns = re.search(r"(?<!operator)(?<![=!<>])=\s*[^=]*$", before)
    return not _SCOPE.search(before) and not assigns


def python_functions(text):
    """(first line, lines, name) of every function."""
    return [(node.lineno, node.end_lineno - node.lineno + 1, node.name)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def check_limits(path, text, limits):
    """Sizes of the file, its functions and its lines; the greatest of each is the value."""
    lines = text.splitlines()
    found = []
    if len(lines) > limits["file_lines"]:
        found.append(Finding("file_lines", path, 1, len(lines), f"{len(lines)} lines"))
    functions = []
    if path.endswith((".cc", ".h")):
        functions = cpp_functions(text)
    elif path.endswith(".py"):
        functions = python_functions(text)
    long = [entry for entry in functions if entry[1] > limits["function_lines"]]
    if long:
        first, size, name = max(long, key=lambda entry: entry[1])
        names = ", ".join(f"{other[2]} ({other[1]})" for other in long)
        found.append(Finding("function_lines", path, first, size,
                             f"{name} has {size} lines; long here: {names}"))
    wide = [(len(line), number) for number, line in enumerate(lines, 1)
            if len(line) > limits["line_columns"]
            and not re.search(r"https?://|^#include|^pattern = ", line)]
    if wide:
        size, number = max(wide)
        found.append(Finding("line_columns", path, number, size,
                             f"{len(wide)} long lines, the longest {size} columns"))
    return found


def check_banned(path, text, entry):
    """Where a banned word stands."""
    if not any(fnmatch.fnmatch(path, pattern) for pattern in entry["files"]):
        return []
    if any(fnmatch.fnmatch(path, pattern) for pattern in entry.get("except", [])):
        return []
    if path.endswith((".cc", ".h")) and not entry.get("comments"):
        text = blank_cpp(text)
    hits = [(text.count("\n", 0, match.start()) + 1, match.group())
            for match in re.finditer(entry["pattern"], text)]
    if not hits:
        return []
    where = ", ".join(f"{word} in line {line}" for line, word in hits)
    return [Finding(entry["name"], path, hits[0][0], len(hits), f"{where}: {entry['reason']}")]


def check_guard(path, text):
    """Headers have Google's include guard, named after their path."""
    if not path.endswith(".h"):
        return []
    guard = "RINGSOCK_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper() + "_"
    directives = re.findall(r"^[ \t]*#[ \t]*(.*)$", blank_cpp(text), flags=re.MULTILINE)
    directives = [" ".join(directive.split()) for directive in directives]
    good = (directives[:2] == [f"ifndef {guard}", f"define {guard}"] and directives[-1] == "endif")
    if good and "pragma once" not in directives:
        return []
    return [Finding("include_guard", path, 1, 1, f"wants #ifndef {guard} and no #pragma once")]


def check_first_comment(path, text, files=()):
    """Every file says in its first lines what it is for; x.cc may leave it to x.h."""
    if path.endswith(".cc") and path[:-3] + ".h" in files:
        return []
    lines = [line for line in text.splitlines() if not line.startswith("#!")]
    first = next((line for line in lines if line.strip()), "")
    starts = ("//", "/*") if path.endswith((".cc", ".h")) else ("#", '"""')
    if not first or (first.startswith(starts) and len(first) > 6):
        return []
    return [Finding("first_comment", path, 1, 1, "does not start with a comment on what it is for")]


def build_sources(path, text, files):
    """The sources a BUILD file names, as (path in the tree, is from a glob)."""
    folder = path.rsplit("/", 1)[0] + "/" if "/" in path else ""
    tree = ast.parse(text)
    globbed, named = set(), set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "glob"):
            continue
        for leaf in ast.walk(node):
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                globbed.add(leaf.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
            if name in globbed or not re.fullmatch(r"[\w/:.+-]+\.(cc|h)", name):
                continue
            if name.startswith("//"):
                name = name[2:].replace(":", "/").lstrip("/")
            elif not name.startswith(":"):
                name = folder + name
            else:
                name = folder + name[1:]
            named.add(name)
    matched = {file for file in files if file.startswith(folder)
               and any(fnmatch.fnmatch(file[len(folder):], pattern) for pattern in globbed)}
    return named, matched


def check_dead_files(build_files, sources):
    """Every source is in some BUILD file and every source a BUILD file names exists."""
    found, used = [], set()
    for path, text in build_files.items():
        named, matched = build_sources(path, text, sources)
        used |= named | matched
        for name in sorted(named - sources):
            found.append(Finding("missing_file", path, 1, 1, f"names {name}, which does not exist"))
    for name in sorted(sources - used):
        found.append(Finding("dead_file", name, 1, 1, "is in no BUILD file"))
    return found


def apply_allowances(findings, allowances):
    """Takes allowed findings out, and adds one for each allowance that is no longer needed."""
    left = []
    by_place = {(entry["rule"], entry["file"]): entry for entry in allowances}
    seen = set()
    for finding in findings:
        place = (finding.rule, finding.file)
        entry = by_place.get(place)
        seen.add(place)
        if entry is None or finding.value > entry["value"]:
            left.append(finding)
        elif finding.value < entry["value"]:
            left.append(finding._replace(
                message=f"is at {finding.value} now: lower its allowance from {entry['value']}"))
    for place in by_place:
        if place not in seen:
            left.append(Finding(*place, 1, 0, "needs its allowance no longer: remove it"))
    for entry in allowances:
        if len(entry.get("reason", "")) < 10:
            place = (entry["rule"], entry["file"])
            left.append(Finding(*place, 1, 0, "its allowance gives no reason"))
    return left
