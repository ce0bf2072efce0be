"""docs/rules.md and the code agree: each rule of the protocol has its section, its modules and its proofs.

The page's list defines the names of the rules, and nothing else does. A module that keeps a rule names it in its docstring
("Rules kept here: …; …."). A proof names it too: a test in its name or docstring, a mutant in the registry, a scope by the
mutants that it notices. Checkers have names of their own, and have to exist.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests import ROOT
from tests.model import rejoinscopes
from tests.model.run import JOINS, WHOLE
from tests.rigs.undone import UNDONE
from tests.tools.test_house import FILES

PAGE = ROOT / "docs" / "rules.md"
#: Folders with the code that reports violations.
CHECKERS_IN = ("chaos", "tests/simulation")
#: A number that stands for a rule.
NUMBERED = re.compile(r"\b(?:rule|trap)s?[ ][0-9]+", re.IGNORECASE)
KINDS = ("scopes", "mutants", "checkers")
SCOPES = {**WHOLE, **JOINS}


@dataclass(frozen=True)
class Rule:
    """A section of the page. ``proofs`` maps a test file, or one of ``KINDS``, to names."""

    name: str
    text: str
    modules: tuple[str, ...]
    proofs: dict[str, tuple[str, ...]]


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-")


def _items(block: str) -> Iterator[tuple[str, ...]]:
    """The texts in backquotes of each list item. If the item begins with a word and a colon, that word comes first."""
    for item in re.split(r"^- ", block, flags=re.MULTILINE)[1:]:
        quoted = re.findall(r"`([^`]+)`", item)
        word = re.match(r"(\w+):", item)
        yield (word[1], *quoted) if word else tuple(quoted)


def _rule(section: str) -> Rule:
    title, _, body = section.partition("\n")
    text, _, rest = body.partition("\nKept by:\n")
    kept, _, proved = rest.partition("\nProved by:\n")
    modules = tuple(path for paths in _items(kept) for path in paths)
    return Rule(title, text.strip(), modules, {head: tuple(names) for head, *names in _items(proved)})


TEXT = PAGE.read_text()
LISTED = re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", TEXT)
RULES = {rule.name: rule for rule in map(_rule, re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:])}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _trees(folders: tuple[str, ...]) -> Iterator[ast.Module]:
    return (_tree(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


def _strings(node: ast.AST) -> list[str]:
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


@cache
def checkers() -> set[str]:
    calls = (node for tree in _trees(CHECKERS_IN) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        _strings(call)[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Violation" and _strings(call)
    }


@cache
def said_by(module: str) -> tuple[str, ...]:
    """The rules at the end of a module's docstring: "Rules kept here: …; …."."""
    _, said, names = " ".join((ast.get_docstring(_tree(ROOT / module)) or "").split()).partition("Rules kept here: ")
    return tuple(names.removesuffix(".").split("; ")) if said else ()


def _test(path: str, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    found = [node for node in ast.walk(_tree(ROOT / path))
             if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name]  # fmt: skip
    assert found, f"{path} has no {name}"
    return found[0]


def test_the_list_and_the_sections_are_the_same() -> None:
    assert [name for name, _ in LISTED] == list(RULES)
    assert [anchor for _, anchor in LISTED] == [_anchor(name) for name in RULES]
    assert len(RULES) == len(LISTED) > 30


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_kept_and_proved(name: str) -> None:
    rule = RULES[name]
    assert len(rule.text) > 100
    assert rule.modules
    assert rule.proofs
    for module in rule.modules:
        assert name in said_by(module), f"{module} does not say at the end of its docstring that it keeps: {name}"
    known = {"scopes": SCOPES, "mutants": UNDONE.keys(), "checkers": checkers()}
    for head, names in rule.proofs.items():
        assert names, head
        for proof in names:
            if head in KINDS:
                assert proof in known[head], f"{head}: {proof}"
            else:
                test = _test(head, proof)
                words = f"{proof.replace('_', ' ')} {' '.join((ast.get_docstring(test) or '').split())}"
                assert name in words.lower(), f"{proof} does not say in its name or docstring: {name}"


@pytest.mark.parametrize("name", RULES)
def test_the_registry_of_undone_safeties_says_the_same(name: str) -> None:
    """All mutants of a rule are on the page, and so are the scopes that notice them. Other scopes name the rule themselves."""
    undone = [mutant for mutant in UNDONE.values() if name in mutant.rules]
    proofs, noticing = RULES[name].proofs, {scope for mutant in undone for scope in mutant.scopes}
    assert set(proofs.get("mutants", ())) == {mutant.name for mutant in undone}
    assert noticing <= set(proofs.get("scopes", ()))
    if proofs.get("scopes") and not noticing:
        assert name in " ".join(Path(rejoinscopes.__file__).read_text().replace("#:", "").split())


def test_every_mutant_undoes_a_rule() -> None:
    assert {name for mutant in UNDONE.values() for name in mutant.rules} <= RULES.keys()


def test_no_module_says_that_it_keeps_more_than_the_page_knows() -> None:
    for path in sorted((ROOT / "quorumvault").rglob("*.py")):
        module = str(path.relative_to(ROOT))
        assert set(said_by(module)) == {rule.name for rule in RULES.values() if module in rule.modules}, module


def test_rules_have_names_and_no_numbers() -> None:
    """Except where history is told: in decisions, and in the first version of the scope."""
    folders = ("quorumvault", "tests", "chaos", "bench", "docs")
    told = {"decisions", "scope-initial.md"}
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        if parts[0] in folders and path.suffix in (".py", ".md", ".html", ".c") and not told & set(parts):
            assert NUMBERED.findall(path.read_text()) == [], path
