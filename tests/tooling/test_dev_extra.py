"""requirements.extra.txt: `./dev` installs it again after every rebuild of .venv."""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def wheel(folder: Path, name: str) -> Path:
    """A package of one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{name}.py", "")
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        packed.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose lock names one package, from a file."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copy(ROOT / "dev", tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    lock(tmp_path, "locked")
    return tmp_path


def lock(checkout: Path, name: str) -> None:
    path = wheel(checkout, name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (checkout / "requirements.lock").write_text(f"{name} @ {path.as_uri()} --hash=sha256:{digest}\n")


def made(checkout: Path) -> list[str]:
    """The packages in .venv after `./dev` has updated it."""
    runpy.run_path(str(checkout / "dev"))["environment"]()
    listing = "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))"
    asked = subprocess.run(
        [str(checkout / ".venv" / "bin" / "python"), "-c", listing], capture_output=True, text=True, check=True
    )
    return asked.stdout.split()


def test_extra_requirements_outlive_every_rebuild_and_go_with_their_file(checkout: Path) -> None:
    assert made(checkout) == ["locked"]
    extra = checkout / "requirements.extra.txt"
    extra.write_text(f"# a provider\n./{wheel(checkout, 'provider').name}\n")
    assert made(checkout) == ["locked", "provider"]
    lock(checkout, "newer")
    assert made(checkout) == ["newer", "provider"]
    shutil.rmtree(checkout / ".venv")
    assert made(checkout) == ["newer", "provider"]
    extra.unlink()
    assert made(checkout) == ["newer"]


def test_an_extra_requirement_that_cannot_be_installed_is_said_and_tried_again(checkout: Path) -> None:
    extra = checkout / "requirements.extra.txt"
    extra.write_text("./not-there-1.0-py3-none-any.whl\n")
    for _ in range(2):
        with pytest.raises(Exception, match=r"requirements\.extra\.txt"):
            made(checkout)
    extra.write_text(f"./{wheel(checkout, 'provider').name}\n")
    assert made(checkout) == ["locked", "provider"]


def test_git_ignores_the_extra_requirements() -> None:
    assert "/requirements.extra.txt" in (ROOT / ".gitignore").read_text().splitlines()
