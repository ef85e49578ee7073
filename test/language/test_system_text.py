"""Taking the published system text from a file, without running it."""

import hashlib
from pathlib import Path

import pytest

from opendrivevla_ros.language import system_text
from opendrivevla_ros.language.system_text import HEADER, SystemTextError, system_text_from_conversation

TEXT = "You are a driver.\nx is right."


@pytest.fixture(autouse=True)
def known_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the published text, which is not at hand."""
    digest = hashlib.sha256((HEADER + TEXT).encode()).hexdigest()
    monkeypatch.setattr(system_text, "PUBLISHED_SHA256", digest)


def conversation(text: str) -> str:
    return (
        "raise SystemExit('this file was executed')\n"
        "conv_other = Conversation(system='other', roles=())\n"
        f'conv_qwen_planning_oriented_vlm = Conversation(system="""{text}""", roles=("a", "b"))\n'
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("conversation.py", conversation(HEADER + TEXT)),
        ("conversation.py", conversation(TEXT)),
        ("system.txt", HEADER + TEXT),
        ("system.txt", TEXT + "\n"),
    ],
)
def test_the_text_is_found_with_and_without_its_header(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert system_text_from_conversation(tmp_path / name) == TEXT


def test_another_text_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = tmp_path / "system.txt"
    path.write_text("something else")
    with pytest.raises(SystemTextError) as caught:
        system_text_from_conversation(path)
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
    assert system_text.PUBLISHED_SHA256 in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "x = 1\n",
        "def broken(:\n",
        "conv_qwen_planning_oriented_vlm = Conversation(system=open('/etc/passwd').read())\n",
        "conv_qwen_planning_oriented_vlm = Conversation()\n",
        "a = '\0'",
    ],
)
def test_python_without_a_plain_system_string_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "conversation.py"
    path.write_text(content)
    with pytest.raises(SystemTextError, match=r"conversation\.py"):
        system_text_from_conversation(path)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.txt", binary):
        with pytest.raises(SystemTextError, match="cannot read"):
            system_text_from_conversation(path)
