"""The faults that the suite must catch, by kind: what is broken, by which replacement, and which tests are expected to fail.

Each `old` text must stand in its file exactly once, so that no fault silently stops being one when the code moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `tests`: files (or one test) of which at least one test must fail; on SQLite only unless `postgres`."""

    kind: str
    name: str
    path: str
    patches: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]
    postgres: bool = False

    def applied(self, text: str) -> str:
        """The file's text with the fault. Raises: ValueError, if a text does not stand there exactly once."""
        for old, new in self.patches:
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {text.count(old)} times in {self.path}: {old!r}")
            text = text.replace(old, new)
        return text


def _fault(kind: str, name: str, path: str, old: str, new: str, *tests: str, postgres: bool = False) -> Fault:
    return Fault(kind, name, path, ((old, new),), tests, postgres)


RECORDER: Final = "tests/services/test_recorder.py"
LEDGER: Final = "tests/models/test_ledger.py"
EVENTS: Final = "tests/services/test_processor_events.py"
CHECKOUT: Final = "tests/services/test_checkout.py"
VOIDS: Final = "tests/services/test_voids.py"
CAPTURES: Final = "tests/services/test_captures.py"
SWEEPER: Final = "tests/services/test_sweeper.py"
AT_ONCE: Final = "tests/services/test_at_once.py"
CHANGES: Final = "tests/services/test_changes.py"
LOG: Final = "tests/models/test_event_log.py"
HUB: Final = "tests/services/test_hub.py"
DELIVERIES: Final = "tests/services/test_deliveries.py"
INBOUND: Final = "tests/services/test_inbound.py"
CAPABILITY: Final = "tests/services/test_capability.py"
COMPOSER: Final = "tests/flows/test_composer.py"
MEDIA: Final = "tests/integrations/test_media.py"
ATTACHMENTS: Final = "tests/services/test_attachments.py"
PROVIDERS: Final = "tests/integrations/test_processor_contract.py::test_no_forged_webhook_is_accepted"
SIGN_IN: Final = "tests/services/test_sign_in.py"
WEB_CHAT: Final = "tests/flows/test_web_chat.py"

FAULTS: Final = (
    # ------------------------------------------------------------------------------------------------------- money
    _fault(
        "money",
        "amount-not-compared",
        "services/recorder.py",
        "(statement.amount_minor, statement.currency) == asked",
        "statement.currency == asked[1]",
        RECORDER,
    ),
    _fault(
        "money",
        "currency-not-compared",
        "services/recorder.py",
        "(statement.amount_minor, statement.currency) == asked",
        "statement.amount_minor == asked[0]",
        RECORDER,
    ),
    _fault(
        "money",
        "late-money-counted",
        "services/recorder.py",
        "after_void=request.voided_at is not None",
        "after_void=False",
        RECORDER,
    ),
    _fault(
        "money",
        "wrong-money-dropped",
        "services/recorder.py",
        "    if await _insert(fact):\n        return [fact]\n    if statement.kind",
        "    if not fact.counted:\n        return []\n    if await _insert(fact):\n        return [fact]\n    if statement.kind",
        RECORDER,
    ),
    _fault(
        "money",
        "late-money-dropped",
        "services/recorder.py",
        "    if await _insert(fact):\n        return [fact]\n    if statement.kind",
        "    if fact.after_void:\n        return []\n    if await _insert(fact):\n        return [fact]\n    if statement.kind",
        RECORDER,
    ),
    _fault(
        "money",
        "second-money-dropped",
        "services/recorder.py",
        "    if await _insert(fact):\n        return [fact]\n    if statement.kind",
        '    if request.status == "PAID":\n        return []\n    if await _insert(fact):\n        return [fact]\n    if statement.kind',
        RECORDER,
    ),
    _fault(
        "money",
        "what-pays-again-after-an-undone-record-unsaid",
        "services/settling.py",
        "again = settles and await ActivityCard",
        "again = False and await ActivityCard",
        "tests/services/test_outside_payments.py",
    ),
    _fault(
        "money",
        "second-money-not-flagged",
        "services/cards.py",
        'case "CHARGE", "SUCCEEDED" if request.status == "PAID":',
        'case "CHARGE", "SUCCEEDED" if request.status == "PAID?":',
        RECORDER,
    ),
    _fault(
        "money",
        "money-of-an-unknown-checkout-dropped",
        "services/recorder.py",
        "for reference in [request_reference, *(s.request_reference for s in statements)]:",
        "for reference in list[str]():",
        RECORDER,
    ),
    _fault(
        "money",
        "fact-unique-by-delivery-not-by-money",
        "services/recorder.py",
        "        external_id=statement.external_id,\n        outcome=statement.outcome.value,",
        '        external_id=f"{statement.external_id}:{uuid7().hex[-8:]}",\n        outcome=statement.outcome.value,',
        RECORDER,
    ),
    _fault(
        "money",
        "refund-clears-paid",
        "models/ledger.py",
        "status = _status(settled, amount_minor,",
        "status = _status(settled - refunded, amount_minor,",
        LEDGER,
    ),
    _fault(
        "money",
        "given-back-more-than-the-charge",
        "models/ledger.py",
        "min(amount, amounts.get(charge, amount))",
        "amount",
        LEDGER,
    ),
    _fault(
        "money",
        "loss-told-twice-counted-twice",
        "services/summaries.py",
        "ELSE charge.amount_minor - refunded END",
        "ELSE lost END",
        "tests/services/test_summaries.py",
    ),
    _fault(
        "money", "outcomes-counted-each", "models/ledger.py", "moneys = final(facts)", "moneys = list(facts)", LEDGER
    ),
    _fault(
        "money",
        "older-outcome-wins",
        "models/ledger.py",
        '"SUCCEEDED": 1, "CANCELED": 2, "FAILED": 3}  # a succeeded refund',
        '"SUCCEEDED": 3, "CANCELED": 2, "FAILED": 1}  # a succeeded refund',
        LEDGER,
    ),
    _fault(
        "money",
        "void-beats-the-payment-that-was-first",
        "models/ledger.py",
        "    if settled >= amount:\n        return Status.PAID",
        "    if settled >= amount and not voided:\n        return Status.PAID",
        LEDGER,
    ),
    _fault(
        "money",
        "totals-not-recomputed",
        "services/settling.py",
        "await summaries.update(request.account_id, request.contact_id)",
        "pass",
        "tests/services/test_summaries.py",
    ),
    # ------------------------------------------------------------------------------------------------- transaction
    _fault(
        "transaction",
        "event-marked-handled-though-it-failed",
        "services/processor_events.py",
        "update(error=type(error).__name__)",
        "update(error=type(error).__name__, handled_at=now)",
        EVENTS,
    ),
    _fault(
        "transaction",
        "transaction-removed",
        "services/changes.py",
        "    async with database.transaction():\n        made = Change(account_id, actor_id)",
        "    if True:\n        made = Change(account_id, actor_id)",
        RECORDER,
    ),
    _fault(
        "transaction",
        "split-in-two",
        "services/changes.py",
        "            yield made\n            newest = await made._flush()\n        finally:\n            _current.reset(token)\n"
        "        if newest",
        "            yield made\n            newest = 0\n        finally:\n            _current.reset(token)\n"
        "    async with database.transaction():\n        newest = await made._flush()\n        if newest",
        CHANGES,
        RECORDER,
    ),
    _fault(
        "transaction",
        "answered-before-the-commit",
        "web/webhooks.py",
        "        await processor_events.receive(name, connection_id, await request.body(), dict(request.headers))",
        "        import asyncio\n\n        asyncio.ensure_future(  # noqa: RUF006\n            processor_events.receive("
        "name, connection_id, await request.body(), dict(request.headers))\n        )",
        "tests/web/test_webhooks.py",
    ),
    _fault(
        "transaction",
        "answered-though-nothing-was-kept",
        "services/processor_events.py",
        "            raise  # nothing was kept; the vendor sends it again",
        "            return",
        EVENTS,
    ),
    _fault(
        "transaction",
        "vendor-called-inside-a-transaction",
        "services/voids.py",
        "        state = await connections.processor(connection).expire_checkout(session.external_id)",
        "        async with change(session.account_id):\n"
        "            state = await connections.processor(connection).expire_checkout(session.external_id)",
        VOIDS,
    ),
    _fault(
        "transaction",
        "row-lock-removed",
        "services/recorder.py",
        "account_id=account_id).select_for_update(no_key=True).get()",
        "account_id=account_id).get()",
        AT_ONCE,
        postgres=True,
    ),
    _fault(
        "transaction",
        "row-lock-removed-when-pay-is-pressed",
        "services/checkout.py",
        ".select_for_update(no_key=True).get()\n        if request.discarded_at is not None:\n            raise",
        ".get()\n        if request.discarded_at is not None:\n            raise",
        AT_ONCE,
        postgres=True,
    ),
    _fault(
        "transaction",
        "no-re-read-in-the-lock-when-pay-is-pressed",
        "services/checkout.py",
        "        if request.discarded_at is not None:\n            raise errors.NotFound",
        "        request = found\n        if request.discarded_at is not None:\n            raise errors.NotFound",
        CHECKOUT,
    ),
    _fault(
        "transaction",
        "on-conflict-of-a-fact-removed",
        "services/recorder.py",
        "bulk_create([fact], ignore_conflicts=True)",
        "bulk_create([fact])",
        RECORDER,
    ),
    _fault(
        "transaction",
        "on-conflict-of-an-event-removed",
        "services/processor_events.py",
        "bulk_create([row], ignore_conflicts=True)",
        "bulk_create([row])",
        EVENTS,
    ),
    _fault(
        "transaction",
        "key-of-a-mutation-not-marked-done",
        "services/idempotency.py",
        "SET state = 'done', result = ?",
        "SET state = 'running', result = ?",
        "tests/services/test_idempotency.py",
    ),
    # ------------------------------------------------------------------------------------------- checkout and void
    Fault(
        "checkout",
        "void-without-expiring",
        "services/voids.py",
        (
            (
                '        sure = await close_session(session, source="void") and sure\n',
                "        sure = session is not None\n",
            ),
            (
                'payment_request_id=request.id, status__in=["OPENING", "OPEN", "PROCESSING"]',
                'payment_request_id=request.id, status="PROCESSING"',
            ),
        ),
        (VOIDS,),
    ),
    _fault(
        "checkout",
        "completed-answer-of-a-void-ignored",
        "services/voids.py",
        "        state.money,\n        source=source,",
        "        (),\n        source=source,",
        VOIDS,
    ),
    _fault(
        "checkout",
        "checkout-opened-during-void-left-open",
        "services/checkout.py",
        '    elif state != "open":\n        await voids.close_session(session, source="void")',
        "    elif False:\n        pass",
        CHECKOUT,
    ),
    _fault(
        "checkout",
        "pending-void-still-payable",
        "services/checkout.py",
        ' or request.void_requested_at is not None:\n        return "processing"',
        ':\n        return "processing"',
        VOIDS,
    ),
    _fault(
        "checkout",
        "paid-is-payable-again",
        "services/checkout.py",
        '    if request.status == Status.PAID:\n        return "paid"',
        '    if request.status == Status.PAID:\n        return "open"',
        CHECKOUT,
    ),
    _fault(
        "checkout",
        "others-stay-open-after-paid",
        "services/settling.py",
        'if session.status in ("OPENING", "OPEN"):',
        'if session.status == "NEVER":',
        AT_ONCE,
    ),
    _fault(
        "checkout",
        "random-key",
        "services/checkout.py",
        "idempotency_key=session.idempotency_key,",
        "idempotency_key=str(uuid7()),",
        CHECKOUT,
    ),
    _fault(
        "checkout",
        "link-dies-with-its-checkout",
        "services/checkout.py",
        "return bool(session.url) and long_enough",
        "return bool(session.url)",
        CHECKOUT,
    ),
    _fault(
        "checkout",
        "open-checkouts-not-swept",
        "services/sweeper.py",
        'status__in=["OPENING", "OPEN", "PROCESSING"], next_check_at__lte=now',
        'status__in=["OPENING"], next_check_at__lte=now',
        SWEEPER,
    ),
    _fault(
        "checkout",
        "undelivered-events-not-fetched",
        "services/sweeper.py",
        "            await processor_events.take_listed(connection, event, now)",
        "            pass",
        SWEEPER,
    ),
    _fault(
        "checkout",
        "voids-not-finished-by-the-sweeper",
        "services/sweeper.py",
        "            await voids.finish_void(request.account_id, request.id)",
        "            pass",
        VOIDS,
    ),
    _fault(
        "checkout",
        "orphans-not-swept",
        "services/sweeper.py",
        "            await _adopt(connection, state)\n",
        "",
        SWEEPER,
    ),
    _fault(
        "checkout",
        "orphan-left-open",
        "services/sweeper.py",
        "        await settling.expire_later(read.recorded.session)",
        "        pass",
        SWEEPER,
    ),
    _fault(
        "checkout",
        "orphan-adopted-while-it-is-made",
        "services/sweeper.py",
        "return owner is not None and not await",
        "return owner is not None or await",
        SWEEPER,
    ),
    # ----------------------------------------------------------------------------------------------------- capture
    _fault(
        "capture",
        "mark-not-committed",
        "services/captures.py",
        "capturing_at=mine.capturing_at, capture_n=mine.capture_n, next",
        "capture_n=mine.capture_n, next",
        CAPTURES,
    ),
    _fault(
        "capture",
        "capture-in-spite-of-a-void",
        "services/captures.py",
        "        and request.void_requested_at is None\n",
        "",
        CAPTURES,
    ),
    _fault(
        "capture",
        "second-tab-captured",
        "services/captures.py",
        "or any(_marked(one) for one in sessions):",
        "or not sessions:",
        CAPTURES,
    ),
    _fault(
        "capture",
        "random-key-of-a-capture",
        "services/captures.py",
        ":capture:{session.capture_n}",
        ":capture:{datetime.now(UTC).timestamp()}",
        CAPTURES,
    ),
    _fault(
        "capture",
        "expired-instead-of-repeated",
        "services/voids.py",
        "        if (begun := await captures.forbid(session)) is not None:\n",
        "        if (begun := await captures.forbid(session)) is not None and begun.capture_n == 0:\n",
        CAPTURES,
    ),
    _fault(
        "capture",
        "amount-of-a-capture-not-compared",
        "services/captures.py",
        "session.amount_minor <= request.amount_minor - request.amount_paid_minor",
        "session.amount_minor > 0",
        CAPTURES,
    ),
    _fault(
        "capture",
        "capture-of-what-is-being-closed",
        "services/captures.py",
        "        and session.closing_at is None\n",
        "",
        CAPTURES,
    ),
    _fault(
        "capture",
        "mark-taken-away-without-an-answer",
        "services/captures.py",
        "if first and not error.ambiguous and not error.retryable:",
        "if first:",
        CAPTURES,
    ),
    _fault(
        "capture",
        "mark-taken-away-by-a-late-answer",
        "services/captures.py",
        "id=session.id, capture_n=session.capture_n, status__in=UNDECIDED",
        "id=session.id, status__in=UNDECIDED",
        CAPTURES,
    ),
    _fault(
        "capture",
        "approval-handled-before-the-capture",
        "services/captures.py",
        "event=None if waits else event",
        "event=event",
        CAPTURES,
    ),
    # --------------------------------------------------------------------------------------------------------- log
    _fault(
        "log",
        "holes-in-the-numbers",
        "models/event_log.py",
        'RETURNING event_seq", count, account_id',
        'RETURNING event_seq", count + 1, account_id',
        LOG,
    ),
    _fault(
        "log",
        "announced-before-the-commit",
        "services/changes.py",
        "database.after_commit(lambda: announce(account_id, newest))",
        "announce(account_id, newest)",
        CHANGES,
    ),
    _fault(
        "log",
        "poll-taken-away",
        "services/events.py",
        "                            self._wake(feed, head)",
        "                            pass",
        HUB,
    ),
    _fault("log", "gap-of-the-bus-ignored", "services/events.py", "if hint == GAP:", "if hint is None:", HUB),
    _fault(
        "log",
        "hint-taken-as-truth",
        "services/events.py",
        "        feed.dirty = True\n        if feed.reader is None:",
        "        feed.last = seq - 1\n        feed.dirty = True\n        if feed.reader is None:",
        HUB,
    ),
    _fault(
        "log", "unbounded-buffer", "services/events.py", "if len(self._queue) >= self._size:", "if self._size < 0:", HUB
    ),
    _fault(
        "log",
        "silent-gap-behind-the-retention",
        "services/events.py",
        "                yield ResyncNeeded(ResyncReason.EXPIRED, head)",
        "                yield Start(head)",
        HUB,
    ),
    _fault(
        "log",
        "backlog-and-live-both-delivered",
        "services/events.py",
        "            if event.seq > start:\n                yield event",
        "            yield event",
        HUB,
    ),
    _fault(
        "log",
        "foreign-cursor-taken",
        "models/event_log.py",
        " or raw[1:17] != account_id.bytes:",
        ":",
        LOG,
    ),
    # ---------------------------------------------------------------------------------------------------- messages
    _fault(
        "messages",
        "sent-again-after-a-lost-answer",
        "services/deliveries.py",
        "    if error.ambiguous:\n        await _lost(message)\n        return\n    wait_s =",
        "    error.retryable |= error.ambiguous\n    wait_s =",
        DELIVERIES,
    ),
    _fault(
        "messages",
        "lost-answer-called-failed",
        "services/deliveries.py",
        '        await _advance(message, "UNKNOWN")',
        '        await _advance(message, "FAILED")',
        DELIVERIES,
    ),
    _fault(
        "messages",
        "sent-again-after-a-crash",
        "services/deliveries.py",
        '        await _lost(message)\n        return\n    if message.delivery_status != "QUEUED":',
        '        message.delivery_status = "QUEUED"\n        await message.save()\n    if message.delivery_status != "QUEUED":',
        DELIVERIES,
    ),
    _fault(
        "messages",
        "status-steps-back",
        "services/deliveries.py",
        "    return RANK[after] > RANK[before]",
        "    return True",
        DELIVERIES,
    ),
    _fault(
        "messages",
        "opt-out-unchecked",
        "services/capability.py",
        "elif address.opted_out_at is not None:",
        "elif address is actor:",
        CAPABILITY,
    ),
    _fault(
        "messages",
        "one-start-lifts-every-stop",
        "services/opt_outs.py",
        "    if await opted_out_at(changed.account_id, kind, address) is not None:\n        return\n",
        "",
        "tests/services/test_opt_outs.py",
    ),
    _fault(
        "messages",
        "sent-again-by-two",
        "services/repeats.py",
        "    if over(message, family):\n        raise",
        "    if message is actor:\n        raise",
        "tests/services/test_repeats.py",
    ),
    _fault(
        "messages",
        "unknown-sent-again-unasked",
        "services/repeats.py",
        '        if actor.kind != "user" or not looked_up:',
        "        if actor is message:",
        "tests/services/test_repeats.py",
    ),
    _fault(
        "messages",
        "rate-limit-not-waited-out",
        "services/deliveries.py",
        "        await _pause(connection, wait_s)\n",
        "",
        DELIVERIES,
    ),
    _fault(
        "messages",
        "window-unchecked",
        "services/capability.py",
        "        if closes_at <= now:\n",
        "        if closes_at is now:\n",
        CAPABILITY,
    ),
    _fault(
        "messages",
        "icon-on-without-a-processor",
        "services/capability.py",
        'payment_requests=decide(row, "request_payment", has_processor),',
        'payment_requests=decide(row, "request_payment", True),',
        COMPOSER,
    ),
    _fault(
        "messages",
        "template-evades-the-opt-out",
        "services/capability.py",
        'templates=limits.templates and reason in (None, "MESSAGING_WINDOW_CLOSED"),',
        "templates=limits.templates,",
        COMPOSER,
    ),
    _fault(
        "messages",
        "template-without-the-link",
        "services/messages.py",
        "        composing.refuse_without_links(draft.words, draft.template, requests)\n",
        "",
        COMPOSER,
    ),
    _fault(
        "messages",
        "inbound-twice",
        "services/inbound.py",
        "async def _stored(connection: ChannelConnection, inbound: InboundMessage) -> bool:\n",
        "async def _stored(connection: ChannelConnection, inbound: InboundMessage) -> bool:\n    return False\n",
        INBOUND,
    ),
    # ---------------------------------------------------------------------------------------------------- security
    _fault(
        "security",
        "signature-not-compared",
        "integrations/processors/sandbox.py",
        "if not any(hmac.compare_digest(one, match.group(2)) for one in expected):",
        "if not expected:",
        PROVIDERS,
    ),
    _fault(
        "security",
        "webhook-from-the-future-taken",
        "integrations/processors/sandbox.py",
        "if abs(now.timestamp() - int(match.group(1))) > TOLERANCE_S:",
        "if now.timestamp() - int(match.group(1)) > TOLERANCE_S:",
        PROVIDERS,
    ),
    _fault(
        "security",
        "another-vendor-accounts-event-applied",
        "services/processor_events.py",
        "if event.vendor_account is not None and event.vendor_account != connection.vendor_account:",
        "if event.vendor_account is not None and not event.vendor_account:",
        EVENTS,
    ),
    _fault(
        "security",
        "another-accounts-request-found",
        "services/recorder.py",
        '{"processor_connection_id": connection.id, "account_id": connection.account_id}',
        "{}",
        RECORDER,
    ),
    _fault(
        "security",
        "void-without-account-check",
        "services/voids.py",
        "PaymentRequest.filter(id=payment_request_id, account_id=actor.account_id, discarded_at=None)",
        "PaymentRequest.filter(id=payment_request_id, discarded_at=None)",
        VOIDS,
    ),
    _fault(
        "security",
        "exception-text-told",
        "resolvers/transport/limits.py",
        'return _coded(error, MASKED, {"code": "INTERNAL", "requestId": request_id})',
        'return _coded(error, str(error.original_error), {"code": "INTERNAL", "requestId": request_id})',
        "tests/transport/test_http.py",
        "tests/transport/test_limits.py",
    ),
    _fault(
        "security",
        "body-limit-removed",
        "web/limits.py",
        "        if length.isdecimal() and int(length) > limit:",
        "        limit = 10**9\n        if length.isdecimal() and int(length) > limit:",
        "tests/web/test_limits.py",
    ),
    _fault(
        "security",
        "refresh-token-reuse-unnoticed",
        "services/sign_in.py",
        "await RefreshToken.filter(family_id=row.family_id, revoked_at=None).update(revoked_at=now)",
        "pass",
        SIGN_IN,
    ),
    _fault(
        "security",
        "file-from-a-private-address",
        "integrations/media.py",
        "else all(map(public, addresses))",
        "else True",
        MEDIA,
    ),
    _fault(
        "security",
        "resolved-again-when-connecting",
        "integrations/media.py",
        "here.copy_with(host=address),",
        "here,",
        MEDIA,
    ),
    _fault(
        "security",
        "credentials-follow-a-redirect",
        "integrations/media.py",
        "given = {} if left else headers(str(here))",
        "given = headers(str(here))",
        MEDIA,
    ),
    _fault(
        "security",
        "file-of-any-size",
        "integrations/media.py",
        "        if len(body) > limit_bytes:",
        "        if limit_bytes < 0:",
        MEDIA,
    ),
    _fault(
        "security",
        "address-of-a-file-for-ever",
        "services/attachments.py",
        " or moment > int(ends):",
        ":",
        ATTACHMENTS,
    ),
    # ---------------------------------------------------------------------------------------------------- web chat
    _fault(
        "security",
        "visitor-reads-other-channels",
        "services/visitors.py",
        "        channel_connection_id=visit.connection_id,\n    )",
        "    )",
        f"{WEB_CHAT}::test_a_visitor_sees_nothing_of_the_team_of_other_visitors_or_of_other_channels",
    ),
    _fault(
        "security",
        "visitor-told-of-other-requests",
        "services/visitors.py",
        "    if not await readable.filter(id__in=list(bound)).exists():",
        "    if not readable:",
        f"{WEB_CHAT}::test_a_visitor_sees_nothing_of_the_team_of_other_visitors_or_of_other_channels",
    ),
    _fault(
        "security",
        "anybodys-identity-will-do",
        "services/visitors.py",
        "shown if shown is not None and shown.subject == row.external_id else None",
        "shown",
        f"{WEB_CHAT}::test_history_under_an_identity_needs_it_again",
    ),
    _fault(
        "security",
        "identity-algorithm-not-pinned",
        "services/visitors.py",
        'algorithms=["HS256"],',
        'algorithms=["HS256", "HS384", "HS512", "none"],',
        f"{WEB_CHAT}::test_forged_expired_and_foreign_identities_are_refused",
    ),
    _fault(
        "security",
        "identity-for-another-widget",
        "services/visitors.py",
        'audience=public_id("chn", connection.id),',
        'audience=jwt.decode(token, options={"verify_signature": False}).get("aud"),',
        f"{WEB_CHAT}::test_forged_expired_and_foreign_identities_are_refused",
    ),
    _fault(
        "security",
        "token-of-another-widget",
        "services/visitors.py",
        "row.channel_connection_id != connection.id:",
        "row.channel_connection_id is None:",
        f"{WEB_CHAT}::test_a_token_of_another_widget_or_of_nobody_begins_a_new_visit",
    ),
    _fault(
        "messages",
        "visitor-message-twice",
        "services/visitors.py",
        'external_id = f"{visit.visitor_id.hex}:{client_message_id}"',
        'external_id = f"{visit.visitor_id.hex}:{uuid7().hex}"',
        f"{WEB_CHAT}::test_the_same_message_sent_again_is_stored_once_also_at_once",
    ),
    _fault(
        "log",
        "new-visitor-hears-nothing",
        "services/visitors.py",
        "            _known(changed, visit, contact.id, conversation.id)\n        await Visitor",
        "        await Visitor",
        f"{WEB_CHAT}::test_a_visitor_is_asked_in_the_widget_and_its_card_turns_paid_live_on_both_sides",
    ),
)
