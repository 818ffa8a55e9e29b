"""What a process must not load before it needs it: start and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Loaded by the deployments, connections and requests that use them, or by no request at all.
LATER = {
    "asyncpg": "PostgreSQL",
    "redis": "a Redis bus or limits in Redis",
    "stripe": "a connection to Stripe",
    "twilio": "a connection to Twilio",
    "lxml": "an email in HTML",
    "inscriptis": "an email in HTML",
    "tnefparse": "an email with winmail.dat",
    "phonenumbers": "a phone number",
    "cryptography": "a stored secret",
    "httpx": "a call to a vendor",
    "httpx2": "a call to a vendor",
    "jwt": "a person's session",
    "jinja2": "a page",
    "rich": "structlog's tracebacks in colour, which nothing shows",
    "pygments": "the same",
    "greenlet": "structlog's green threads, which nothing uses",
    "pytest": "tests",
}


STARTED = "import app, sys, settings; app.create_app(settings.Settings(_env_file=None)); print(*sys.modules)"


def after(code: str) -> str:
    """What the code prints in a process without settings."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_application_loads_no_library_before_it_needs_it() -> None:
    loaded = after(STARTED).split()
    assert {name.partition(".")[0] for name in loaded} & set(LATER) == set()


def test_the_application_loads_no_provider_that_calls_a_vendor() -> None:
    loaded = after(STARTED).split()
    rooms = ("integrations.processors.", "integrations.channels.")
    ours = {f"integrations.channels.{name}" for name in ("simulated", "smtp_email", "web_chat")}
    assert {name for name in loaded if name.startswith(rooms)} - ours == set()


def test_the_tables_are_built_without_reading_their_source() -> None:
    read = after("import app, linecache; print(*linecache.cache)").split()
    assert [path for path in read if path.endswith(("models/tables.py", "tortoise/models.py"))] == []


def test_quick_imports_leave_python_as_it_was() -> None:
    code = """
import inspect, sys
usual = inspect.getsource
from models import quick_imports
assert inspect.getsource is usual
assert [name for name, module in sys.modules.items() if module is None] == []
import rich.console
"""
    after(code)


def test_a_vendors_first_webhook_imports_nothing_on_the_event_loop() -> None:
    code = """
import asyncio, sys
from datetime import UTC, datetime
import app
from integrations import registry
from integrations.base import Environment, IntegrationError

made = {"stripe": {"secret_key": "sk_test_1", "webhook_secret": "whsec_1"}, "sandbox": {"secret_key": "sk", "webhook_secret": "whsec_1"}}

async def main() -> None:
    for name, credentials in made.items():
        cls = await registry.load("processors", name)
        before = set(sys.modules)
        environment = Environment(public_url="http://here", sandbox_url="http://here")
        processor = cls(registry.read_credentials(cls, credentials), environment=environment, webhook_url="http://here")
        try:
            await processor.verify_webhook(b"{}", {"stripe-signature": "t=1,v1=0"}, now=datetime.now(UTC))
        except IntegrationError:
            pass
        assert set(sys.modules) == before, (name, sorted(set(sys.modules) - before))

asyncio.run(main())
"""
    after(code)
