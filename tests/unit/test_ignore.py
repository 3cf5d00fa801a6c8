"""Which paths an ignore file excludes. The expected values are what moby's own matcher says."""

from __future__ import annotations

import pytest

from build_aware.identity.ignore import Ignore, dockerignore, gitignore


@pytest.mark.parametrize(
    ("pattern", "excluded", "kept"),
    [
        ("notes", ["notes", "notes/a", "notes/b/c"], ["notes.txt", "x/notes"]),
        ("notes/", ["notes", "notes/a"], ["x/notes/a"]),
        ("./notes//a", ["notes/a"], ["notes", "notes/b"]),
        ("x/../notes", ["notes"], ["x"]),
        ("src/out", ["src/out/a/b"], ["out", "src", "x/src/out"]),
        ("*.log", ["a.log", ".log", "a.log/b"], ["logs/a.log", "alog"]),
        ("src/*/out", ["src/a/out"], ["src/out", "src/a/b/out"]),
        ("src/*", ["src/a", "src/a/b"], ["src"]),
        ("a*c", ["ac", "abbc"], ["a/c", "abcd"]),
        ("?.py", ["a.py", "é.py"], ["ab.py", ".py", "x/a.py"]),
        ("a?b", ["axb"], ["a/b", "ab"]),
        ("**", ["a", "a/b/c", ".a"], []),
        ("**/*.pyc", ["a.pyc", "x/y/a.pyc"], ["a.py", "pyc"]),
        ("**/cache", ["cache", "x/cache/a"], ["mycache", "cached"]),
        ("**cache", ["cache", "mycache", "x/mycache/a"], ["cached"]),
        ("data/**", ["data/a", "data/a/b"], ["data", "database"]),
        ("data**", ["data", "database", "data/a"], ["dat"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "b/a/z"]),
        ("a**z", ["az", "ab/z"], ["abz", "a/b/y"]),
        ("**/a/**/b*", ["a/b", "x/a/y/bb"], ["a", "x/b"]),
        ("[a-c].py", ["a.py", "c.py"], ["d.py", "-.py", "ab.py"]),
        ("*.py[co]", ["a.pyc", "a.pyo"], ["a.py", "a.pyx"]),
        ("[^a-c].py", ["d.py", "é.py"], ["a.py"]),
        ("[!a].py", ["a.py", "!.py"], ["b.py"]),
        (r"[\]\-].py", ["].py", "-.py"], ["a.py"]),
        ("[.].py", ["..py"], ["a.py"]),
        (r"\*.py", ["*.py"], ["a.py"]),
        (r"a\[b", ["a[b"], [r"a\[b"]),
        ("a.b+(c)$", ["a.b+(c)$"], ["aXb+(c)$", "a.bb(c)"]),
        ("a.b/*.(c)", ["a.b/x.(c)"], ["aXb/x.(c)", "a.b/xc"]),
        ("*.{log,tmp}", ["a.{log,tmp}"], ["a.log"]),
        ("Notes", ["Notes"], ["notes"]),
        (".", [], ["a", ".a"]),
        ("../a", [], ["a"]),
    ],
)
def test_a_pattern_excludes(pattern: str, excluded: list[str], kept: list[str]) -> None:
    ignore = Ignore([pattern])
    assert [path for path in excluded if not ignore.excludes(path)] == []
    assert [path for path in kept if ignore.excludes(path)] == []


@pytest.mark.parametrize(
    ("patterns", "excluded", "kept"),
    [
        (["*.md", "!README.md"], ["a.md"], ["README.md", "a"]),
        (["!README.md", "*.md"], ["README.md"], []),
        (["*.md", "!R*.md", "RE*.md"], ["README.md", "a.md"], ["R.md"]),
        (["docs", "!docs/api"], ["docs/a"], ["docs/api", "docs/api/a"]),
        (["docs/*", "!docs/*.md"], ["docs/a", "docs/x/b.md"], ["docs/b.md", "docs"]),
        (
            ["**", "!src", "!*.toml", "**/*.pyc"],
            ["a", "src/a.pyc", "x/b.toml"],
            ["src/a.py", "b.toml"],
        ),
        (["**", "!src", "src/out", "!src/out/a"], ["src/out/b"], ["src/out/a"]),
        (["a", "!a/**/c"], ["a/b"], ["a/c", "a/b/c"]),
        (["", "  ", "a"], ["a"], ["b"]),
        ([" a ", "\tb\r"], ["a", "b"], []),
        (["a", "!"], ["a"], ["b"]),
    ],
)
def test_patterns_exclude_and_keep(
    patterns: list[str], excluded: list[str], kept: list[str]
) -> None:
    ignore = Ignore(patterns)
    assert [path for path in excluded if not ignore.excludes(path)] == []
    assert [path for path in kept if ignore.excludes(path)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "[",
        "a[",
        "[a",
        "[^",
        "[]",
        "[]a]",
        "[-a]",
        "[a-]",
        "[z-a]",
        "[a-b-c]",
        "a\\",
        r"src\tmp",
        "[\\",
    ],
)
def test_a_malformed_pattern_excludes_nothing(pattern: str) -> None:
    ignore = Ignore([pattern, "other"])
    assert not any(ignore.excludes(path) for path in (pattern, "a", "a-c", "src/out", "-"))
    assert ignore.excludes("other")


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("docs", "docs"),
        ("/docs", "docs"),
        ("!/docs", "!docs"),
        ("!  docs/ ", "!docs"),
        ("  a/./b//c  ", "a/b/c"),
        ("/", ""),
        (" # not at the start", "# not at the start"),
    ],
)
def test_a_line_of_a_dockerignore_is_read_as_docker_does(line: str, pattern: str) -> None:
    assert dockerignore(line) == [pattern]


def test_comments_empty_lines_and_byte_order_marks_of_a_dockerignore_are_no_patterns() -> None:
    assert dockerignore("\ufeff# why\r\n\r\na\r\n#b\n") == ["a"]


def test_a_slash_at_the_start_anchors_in_a_dockerignore_and_disarms_in_a_gitignore() -> None:
    assert Ignore(dockerignore("/docs")).excludes("docs/a")
    assert not Ignore(gitignore("/docs")).excludes("docs/a")
    assert Ignore(gitignore("docs\r\n")).excludes("docs/a")


@pytest.mark.parametrize(
    ("patterns", "folder", "may"),
    [
        pytest.param(["node_modules"], "node_modules", False, id="nothing is kept"),
        pytest.param(["node_modules", "!src"], "node_modules", False, id="kept elsewhere"),
        pytest.param(["**", "!src/*.py"], "data", False, id="kept in another folder"),
        pytest.param(["*", "!*.md"], "data", False, id="kept beside it only"),
        pytest.param(["*", "!*/*.md"], "data", True, id="kept in any folder"),
        pytest.param(["*", "!*/*.md"], "data/old", False, id="kept not that far down"),
        pytest.param(["!data", "data/old"], "data/old", False, id="kept above it"),
        pytest.param(["data", "!data/a/b"], "data", True, id="kept in it"),
        pytest.param(["data", "!data/a/b"], "data/a", True, id="kept further down"),
        pytest.param(["data", "!data/a/b"], "data/b", False, id="kept beside"),
        pytest.param(["data", "!**/keep"], "data", True, id="kept anywhere"),
        pytest.param(["data", "!d?ta/keep"], "data", True, id="kept by a wildcard"),
        pytest.param(["data", "!data[^a]keep"], "data", True, id="a class may be a slash"),
    ],
)
def test_an_excluded_folder_is_walked_only_if_something_in_it_may_be_kept(
    patterns: list[str], folder: str, may: bool
) -> None:
    assert Ignore(patterns).excludes(folder)
    assert Ignore(patterns).may_keep_below(folder) is may
