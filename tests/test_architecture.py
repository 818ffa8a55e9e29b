"""Rules that import-linter cannot check: which code may write rows, sizes of files and functions, required documentation."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tortoise.models import Model

from integrations import registry
from models import tables
from settings import Settings

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("commands", "web", "resolvers", "schema", "services", "models", "integrations")
WRITES = re.compile(
    r"\b[A-Z]\w*\.(create|bulk_create|bulk_update|update_or_create|get_or_create)\("  # on a table
    r"|\.save\(|\)\.update\(|\)\.delete\("  # on a row, on a query
    r"|\b(INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b"
)


def python_files(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_settings_import_no_room() -> None:
    assert imports(ROOT / "settings.py") & {*ROOMS, "app", "cli"} == set()


def test_the_doors_write_no_rows() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in python_files("web", "resolvers", "schema")
        for line in path.read_text().splitlines()
        if WRITES.search(line)
    }
    assert wrong == set()


def test_only_the_access_package_reads_tables_for_the_team_api() -> None:
    reads = re.compile(r"\bdatabase\.(rows|row|execute)\(|\btables\.\w+\.(all|filter|get|get_or_none|raw)\(")
    reading = {
        str(path.relative_to(ROOT)) for path in python_files("resolvers", "schema") if reads.search(path.read_text())
    }
    assert reading == {f"resolvers/access/{name}.py" for name in ("loaders", "pages")}


def test_a_save_names_the_columns_that_it_writes() -> None:
    """Otherwise it writes back every column and undoes concurrent changes. An insert writes all columns."""
    unnamed = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in python_files(*ROOMS)
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "save"
        and not isinstance(call.func.value, ast.Call)  # super().save
        and {keyword.arg for keyword in call.keywords}.isdisjoint({"update_fields", "force_create"})
    ]
    assert unnamed == []


def test_no_version_is_counted_on_from_what_was_read() -> None:
    """`version=row.version + 1` in an UPDATE loses a concurrent change; F("version") + 1 does not."""
    counted = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in python_files(*ROOMS)
        for line in path.read_text().splitlines()
        if re.search(r"\bversion\s*=\s*\w+\.version\s*\+|[\"']version[\"']: \w+\.version \+", line)
    ]
    assert counted == []


def named(path: Path) -> set[str]:
    """The names that a file uses as attributes, keywords or in strings such as SQL; not in docstrings and comments."""
    tree = ast.parse(path.read_text())
    # A string that is a whole statement is documentation.
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found |= set(re.findall(r"\w+", node.value))
    return found


def test_every_column_is_named_by_code_outside_the_tables() -> None:
    files = [*python_files(*ROOMS, "inbox"), ROOT / "app.py", ROOT / "cli.py"]
    used = set().union(*(named(path) for path in files if path != ROOT / "models" / "tables.py"))
    columns = {
        (table._meta.db_table, column)
        for table in vars(tables).values()
        if isinstance(table, type) and issubclass(table, Model) and not table._meta.abstract
        for column in table._meta.fields_map
    }
    assert len(columns) > 250
    assert sorted((table, column) for table, column in columns if column not in used) == []


def test_the_benchmarks_import_nothing_of_ours() -> None:
    for path in sorted((ROOT / "bench").rglob("*.py")):
        assert imports(path) & {*ROOMS, "app", "cli", "settings"} == set(), path


@pytest.mark.parametrize("room", ["schema", "resolvers", "services"])
def test_rooms_re_export_nothing(room: str) -> None:
    assert (ROOT / room / "__init__.py").read_text().strip() == ""


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in [*python_files(*ROOMS), ROOT / "app.py", ROOT / "cli.py", ROOT / "settings.py"]
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_every_setting_stands_in_the_example_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text()
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else str(field.default)
        default = default.lower() if isinstance(field.default, bool) else default
        assert f"# {field.description}\n# {name.upper()}={default}\n" in text, name


def test_every_provider_cites_its_source() -> None:
    for name in registry.built_in("processors"):
        assert "Source" in (ROOT / f"integrations/processors/{name}.py").read_text(), name
    for name in registry.built_in("channels"):
        assert "Source" in (ROOT / f"integrations/channels/{name}.py").read_text(), name


LONG_FILES = {
    # One vendor, or declarations only.
    "integrations/channels/meta_messenger.py",
    "integrations/channels/smtp_email.py",
    "integrations/processors/paypal.py",
    "integrations/processors/square.py",
    "integrations/processors/stripe.py",
    "models/tables.py",
}


def product_files() -> list[Path]:
    return [*python_files(*ROOMS), *sorted(ROOT.glob("*.py")), ROOT / "dev"]


def test_no_file_has_more_than_500_lines() -> None:
    long = {str(path.relative_to(ROOT)) for path in product_files() if len(path.read_text().splitlines()) > 500}
    assert long - LONG_FILES == set()


def test_no_function_has_more_than_50_lines() -> None:
    long = {
        f"{path.relative_to(ROOT)}::{function.name}"
        for path in product_files()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and (function.end_lineno or 0) - function.lineno >= 50
    }
    assert long == set()


STATUS_SQL = re.compile(r"UPDATE payment_request SET\b.*\bstatus\s*=|INSERT INTO payment_request\b", re.DOTALL)


def status_writers(source: str) -> tuple[set[str], set[str]]:
    """Variables whose `status` a source assigns, and tables whose rows it creates or updates with a `status`."""
    assigned: set[str] = set()
    tables_written: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "status" and isinstance(node.ctx, ast.Store):
            assigned.add(ast.unparse(node.value))
        elif isinstance(node, ast.Call) and "status" in {keyword.arg for keyword in node.keywords}:
            called = ast.unparse(node.func)
            if called.endswith((".update", ".create", ".get_or_create", ".update_or_create")):
                tables_written.add(called.partition(".")[0])
            elif called == "PaymentRequest":  # a new row
                tables_written.add(called)
        elif isinstance(node, ast.Constant) and STATUS_SQL.search(str(node.value)):
            tables_written.add("PaymentRequest")
    return assigned, tables_written


def test_only_creation_sending_voiding_and_the_ledger_write_a_request_s_status() -> None:
    assigned, written = {}, set()
    for path in python_files(*ROOMS):
        source, name = path.read_text(), str(path.relative_to(ROOT))
        variables, tables_written = status_writers(source)
        if re.search(r"\b(PaymentRequest|request_rows)\b", source) and variables - {"session"}:  # a checkout's row
            assigned[name] = variables
        if "PaymentRequest" in tables_written:
            written.add(name)
    assert written == {"services/payments/payment_requests.py"}
    assert assigned == {"services/thread/request_rows.py": {"request"}, "services/payments/projection.py": {"request"}}


@pytest.mark.parametrize(
    "source",
    [
        "request.status = Status.PAID.value",
        "request.status, request.paid_at = 'PAID', now",
        "await PaymentRequest.filter(id=id).update(status='PAID')",
        "await PaymentRequest.create(status='PAID')",
        "await rows.add([PaymentRequest(status='PAID')])",
        "await execute('UPDATE payment_request SET paid_at = ?, status = ? WHERE id = ?')",
    ],
)
def test_a_planted_writer_of_a_status_is_found(source: str) -> None:
    assigned, written = status_writers(source)
    assert assigned | written in ({"request"}, {"PaymentRequest"})
