"""Lints schema/*.graphql with tests/lint, unless what passed last is unchanged. Without npm it is skipped; under CI=true it then fails."""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
LINT: Final = ROOT / "tests" / "lint"


def main(root: Path = ROOT, lint: Path = LINT) -> int:
    passed = lint / "node_modules" / "passed"
    files = sorted((root / "schema").glob("*.graphql"))
    state = digest([*files, lint / "eslint.config.mjs", lint / "package-lock.json"])
    if passed.exists() and passed.read_text() == state:
        return 0
    if (missing := install(lint)) is not None:
        sys.stdout.write(f"MISSING: {missing}\n")
        return 1 if os.environ.get("CI") == "true" else 0
    code = run(root, lint, [str(file.relative_to(root)) for file in files])
    if code == 0:
        passed.write_text(state)
    return code


def install(lint: Path) -> str | None:
    """Why it can't be installed; None: it is."""
    if shutil.which("npm") is None:
        return "./dev check lint needs Node 20 and npm"
    dev: dict[str, Any] = runpy.run_path(str(ROOT / "dev"))
    try:
        dev["npm_ci"](lint, name="the schema's linter", needed_by="./dev check lint")
    except dev["Failure"] as failure:
        return str(failure)
    return None


def run(root: Path, lint: Path, names: list[str]) -> int:
    eslint = lint / "node_modules" / "eslint" / "bin" / "eslint.js"
    command = ["node", str(eslint), "-c", str(lint / "eslint.config.mjs"), *names]
    return subprocess.run(command, cwd=root, check=False).returncode


def digest(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
