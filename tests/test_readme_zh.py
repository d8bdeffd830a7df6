"""The Chinese README says what the English one says: the same commands, in the same order."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
)


def commands(page: str) -> list[str]:
    """Return the lines that are typed, without their comments."""
    lines = re.findall(r"^\$ (.+)$", page, re.MULTILINE)
    return [re.sub(r"\s+#\s.*", "", line) for line in lines]


def test_the_commands_are_the_same():
    assert len(commands(CHINESE)) > 10
    assert commands(CHINESE) == commands(ENGLISH)


def test_the_numbers_of_the_default_run_are_the_same():
    def numbers(page: str) -> list[str]:
        rows = re.findall(r"^\|[^|]+\| ([\d,]+) \| ([\d.]+ %) \|$", page, re.MULTILINE)
        return [" ".join(row) for row in rows]

    assert len(numbers(CHINESE)) == 4
    assert numbers(CHINESE) == numbers(ENGLISH)


def test_it_names_the_same_versions_and_sizes():
    for said in ("3.11", "3.12", "3.13", "69 MB", "59 MB", "3,000", "runs/NAME/report.html"):
        assert said in CHINESE
        assert said in ENGLISH


def test_it_is_written_in_chinese():
    prose = re.sub(r"```.*?```", "", CHINESE, flags=re.DOTALL)
    assert len(re.findall(r"[\u4e00-\u9fff]", prose)) > 500
