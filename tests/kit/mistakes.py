"""Mistakes of processor authors, planted in the sample one at a time, each with the kit's test that catches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Mistake:
    """Changes of a module of the sample; each changed text occurs once."""

    name: str
    caught_by: str
    changes: tuple[tuple[str, str], ...]
    module: str = "payments"


def _one(name: str, caught_by: str, old: str, new: str, *, module: str = "payments") -> Mistake:
    return Mistake(name, f"test_{caught_by}", ((old, new),), module)


MISTAKES: Final = (
    # ---------------------------------------------------------------------------------------------------- amounts
    _one(
        "amounts by floats",
        "amounts_are_exact_whatever_their_cents",
        "amount = Decimal(total).scaleb(DECIMALS[currency])",
        "amount = int(float(total) * 10 ** DECIMALS[currency])",
    ),
    _one(
        "amounts are floats",
        "amounts_are_exact_whatever_their_cents",
        "    return int(amount)\n",
        "    return float(amount)\n",
    ),
    _one(
        "every currency has cents",
        "the_smallest_and_the_largest_amount_of_a_currency_come_back_exact",
        "Decimal(total).scaleb(DECIMALS[currency])",
        "Decimal(total).scaleb(2)",
    ),
    _one(
        "three decimals are taken for two",
        "the_smallest_and_the_largest_amount_of_a_currency_come_back_exact",
        '"KWD": 3}',
        '"KWD": 2}',
    ),
    _one(
        "currencies in small letters",
        "currencies_are_told_in_capital_letters_as_they_were_asked",
        '        currency=_text(money, "currency"),\n',
        '        currency=_text(money, "currency").lower(),\n',
    ),
    _one(
        "a fee is negative",
        "a_fee_is_a_positive_part_of_its_charge",
        'fee_minor=_minor(money["fee"]',
        'fee_minor=-_minor(money["fee"]',
    ),
    # ---------------------------------------------------------------------------------------------------- checkouts
    _one(
        "the reference is the number of the request",
        "our_reference_comes_back_with_the_checkout",
        '"reference": order.request_reference,',
        '"reference": order.number,',
    ),
    _one(
        "the end of a checkout is ignored",
        "a_checkout_tells_when_it_ends",
        '            expires_at=_time(order["lapses_at"]),\n',
        "",
    ),
    _one(
        "what has ended counts as open",
        "a_checkout_that_has_ended_reads_as_expired",
        '"lapsed": CheckoutStatus.EXPIRED',
        '"lapsed": CheckoutStatus.OPEN',
    ),
    _one(
        "the payer's page is not encrypted",
        "the_payers_page_is_https_and_at_a_declared_origin",
        '_text(order, "pay_url") if',
        '_text(order, "pay_url").replace("https:", "http:") if',
    ),
    _one(
        "the payer is sent to the page for those who cancel",
        "the_payer_comes_back_to_our_page",
        '"return_url": order.success_url,',
        '"return_url": order.cancel_url,',
    ),
    _one(
        "what can't be canceled counts as canceled",
        "expiring_too_late_tells_the_payment_that_won",
        "                raise\n        return await self.read_checkout(external_id)\n",
        "                raise\n        return Checkout(external_id=external_id, status=STATUS['canceled'])\n",
    ),
    Mistake(
        "readings from a cache",
        "test_a_reading_is_never_from_memory",
        (
            (
                '        order = await self._call("GET", f"/v1/orders/{_id(external_id)}", reading=True)\n',
                "        seen = self.__dict__.setdefault('_seen', {})\n"
                "        if external_id not in seen:\n"
                '            seen[external_id] = await self._call("GET", f"/v1/orders/{_id(external_id)}", reading=True)\n'
                "        order = seen[external_id]\n",
            ),
        ),
    ),
    _one(
        "ids go into paths as they come",
        "an_odd_id_is_not_found_and_no_part_of_an_address",
        '    if not re.fullmatch(r"[a-z0-9_]{1,40}", external_id, re.ASCII):\n',
        "    if False:\n",
    ),
    # ---------------------------------------------------------------------------------------------------- keys, errors
    _one(
        "a new key for each call",
        "the_same_key_gives_the_same_checkout",
        '{"idempotency-key": key}',
        '{"idempotency-key": f"{key}{id(body)}{asyncio.get_running_loop().time()}"}',
    ),
    _one(
        "the vendor forgets keys, and the second checkout is made",
        "a_checkouts_key_is_known_for_its_declared_life",
        "pending_refunds=True, key_life_s=3600",
        "pending_refunds=True",
    ),
    _one(
        "the vendor forgets keys, and the second refund is made",
        "a_refunds_key_is_known_for_its_declared_life",
        "pending_refunds=True, key_life_s=3600",
        "pending_refunds=True, key_life_s=24 * 3600",
    ),
    _one(
        "the key of a refund is its charge",
        "a_charge_is_given_back_in_parts",
        'await self._call("POST", path, body=body, key=order.idempotency_key), MoneyKind.REFUND',
        'await self._call("POST", path, body=body, key=order.charge_external_id), MoneyKind.REFUND',
    ),
    _one(
        "a rate limit is for good",
        "a_rate_limit_may_be_retried_and_made_nothing",
        '429: ("rate_limited", True)',
        '429: ("rate_limited", False)',
    ),
    _one(
        "Retry-After is not read",
        "a_rate_limit_tells_how_long_to_wait",
        'retry_after(answer.headers.get("retry-after"))',
        "None",
    ),
    _one(
        "a lost answer counts as a plain failure",
        "a_lost_answer_is_ambiguous_and_the_key_finds_the_checkout",
        '"timeout", retryable=True, ambiguous=not reading',
        '"timeout", retryable=True',
    ),
    _one(
        "a definite no is called ambiguous",
        "a_definite_no_is_neither_ambiguous_nor_worth_a_retry",
        "NAME, reason, retryable=retryable, retry_after_s=wait_s",
        "NAME, reason, retryable=retryable, ambiguous=not reading, retry_after_s=wait_s",
    ),
    _one(
        "a vendor's exception gets out",
        "a_failed_read_is_never_ambiguous",
        "except (TimeoutError, httpx2.HTTPError) as error:",
        "except ZeroDivisionError as error:",
    ),
    _one(
        "an answer that is no JSON is a bug",
        "an_answer_that_is_not_understood_is_an_integration_error",
        "            return dict(json.loads(answer.content))\n        except (TypeError, ValueError) as error:",
        "            return dict(json.loads(answer.content))\n        except ZeroDivisionError as error:",
    ),
    Mistake(
        "no time-out",
        "test_a_silent_vendor_is_given_up_in_time",
        (
            ("asyncio.timeout(self._timeout_s)", "asyncio.timeout(60)"),
            ("httpx2.AsyncClient(timeout=environment.timeout_s,", "httpx2.AsyncClient(timeout=None,"),
        ),
    ),
    Mistake(
        "a blocking client in the event loop",
        "test_a_call_does_not_block_the_event_loop",
        (
            ("httpx2.AsyncClient(timeout=", "httpx2.Client(timeout="),
            ("answer = await self._client.request(", "answer = self._client.request("),
            ("await self._client.aclose()", "self._client.close()"),
        ),
    ),
    _one(
        "the key stands in an error's message",
        "no_error_and_no_log_line_has_a_secret_or_an_address",
        "NAME, reason, retryable=retryable, retry_after_s=wait_s",
        "NAME, reason, str(self._headers), retryable=retryable, retry_after_s=wait_s",
    ),
    _one(
        "a call's body is logged",
        "no_error_and_no_log_line_has_a_secret_or_an_address",
        "        content = json.dumps(body).encode() if body is not None else None\n",
        "        content = json.dumps(body).encode() if body is not None else None\n        print(method, path, headers)\n",
    ),
    _one(
        "the key is shown",
        "credentials_do_not_show_their_secrets",
        "api_key: str = field(repr=False)",
        "api_key: str",
    ),
    _one(
        "the mode of keys is inverted",
        "keys_tell_no_wrong_mode",
        "    session_life_s: ClassVar[int] = 12 * 3600\n",
        "    session_life_s: ClassVar[int] = 12 * 3600\n\n"
        "    @classmethod\n    def mode_of(cls, credentials):\n"
        '        return "live" if "test_" in credentials.get("api_key", "") else None\n',
    ),
    # ---------------------------------------------------------------------------------------------------- money
    _one(
        "a declined charge is not reported",
        "a_declined_charge_is_told_and_takes_no_money",
        'MoneyKind.CHARGE, order) for one in order["payments"]]',
        'MoneyKind.CHARGE, order) for one in order["payments"] if one["state"] != "declined"]',
    ),
    _one(
        "an unknown state counts as paid",
        "an_unknown_state_is_an_error_and_not_a_payment",
        'else OUTCOME)[money["state"]]',
        'else OUTCOME).get(money["state"], MoneyOutcome.SUCCEEDED)',
    ),
    _one(
        "a delayed payment counts as paid",
        "a_delayed_payment_is_pending_until_it_arrives",
        '"clearing": MoneyOutcome.PENDING,',
        '"clearing": MoneyOutcome.SUCCEEDED,',
    ),
    _one(
        "a time without a zone",
        "every_time_has_a_zone_and_is_about_now",
        "    return moment\n",
        "    return moment.replace(tzinfo=None)\n",
    ),
    _one(
        "a refund has the id of its charge",
        "refunds_and_disputes_have_ids_of_their_own_and_name_their_charge",
        '        external_id=_text(money, "id"),\n        outcome=outcome,',
        '        external_id=_text(money, "id" if charge else "payment"),\n        outcome=outcome,',
    ),
    _one(
        "a pending refund counts as done",
        "a_refund_under_way_is_not_told_as_done",
        "    charge = kind is MoneyKind.CHARGE\n",
        "    charge = kind is MoneyKind.CHARGE\n    outcome = MoneyOutcome.SUCCEEDED if kind is MoneyKind.REFUND else outcome\n",
    ),
    _one(
        "a refund that fails counts as done",
        "a_refund_that_fails_is_told_as_failed",
        "    charge = kind is MoneyKind.CHARGE\n",
        "    charge = kind is MoneyKind.CHARGE\n"
        "    if kind is MoneyKind.REFUND and outcome is MoneyOutcome.FAILED:\n        outcome = MoneyOutcome.SUCCEEDED\n",
    ),
    _one(
        "a refund above the rest becomes a smaller one",
        "more_than_what_is_left_is_refused_for_good",
        '"currency": order.currency}\n',
        '"currency": order.currency, "at_most": True}\n',
    ),
    _one(
        "only the first page of refunds",
        "all_refunds_are_told_and_not_only_a_first_page",
        'path = answer["next"]',
        "path = None",
    ),
    _one(
        "a charge that is given back is no charge any more",
        "a_charge_that_is_given_back_whole_stays_a_charge",
        'charges = [_statement(one, MoneyKind.CHARGE, order) for one in order["payments"]]',
        'charges = [_statement(one, MoneyKind.CHARGE, order) for one in order["payments"] if not refunds]',
    ),
    Mistake(
        "disputes are not read",
        "test_a_dispute_is_told_with_its_charge",
        (
            ('    "dispute": MoneyKind.DISPUTE,\n', ""),
            ("money=(*charges, *given_back, *disputes),", "money=(*charges, *given_back),"),
        ),
    ),
    _one(
        "a lost dispute counts as won",
        "the_end_of_a_dispute_is_told_under_its_id",
        '"lost": MoneyOutcome.SUCCEEDED,',
        '"lost": MoneyOutcome.FAILED,',
    ),
    _one(
        "a dispute has the time of its payment",
        "a_dispute_that_is_won_after_it_was_lost_is_told_with_a_later_time",
        '        occurred_at=_time(money["at"]),',
        '        occurred_at=_time(order["payments"][0]["at"] if kind is MoneyKind.DISPUTE and order else money["at"]),',
    ),
    # ---------------------------------------------------------------------------------------------------- webhooks
    _one(
        "an event has the id of its payment",
        "each_event_of_a_payment_has_an_id_of_its_own_or_none",
        '                external_id=_text(event, "id"),\n',
        '                external_id=_text(event.get("payment") or event, "id"),\n',
    ),
    _one(
        "an unsigned webhook is taken",
        "an_unsigned_webhook_is_refused_where_they_are_signed",
        '            raise SignatureInvalid(NAME, "signature_malformed")\n',
        "            return self.parse(body)\n",
    ),
    _one(
        "any signature is taken",
        "no_forged_webhook_is_accepted",
        "if not any(hmac.compare_digest(sign(secret, given[1], body), given[2]) for secret in self._secrets):",
        "if False:",
    ),
    _one(
        "the signature is checked over JSON that is written anew",
        "a_signature_holds_for_the_raw_bytes_however_the_json_is_written",
        "hmac.compare_digest(sign(secret, given[1], body), given[2])",
        "hmac.compare_digest(sign(secret, given[1], json.dumps(json.loads(body or b'0')).encode()), given[2])",
    ),
    _one(
        "the signature is compared by ==",
        "a_signature_is_compared_in_constant_time",
        "hmac.compare_digest(sign(secret, given[1], body), given[2])",
        "sign(secret, given[1], body) == given[2]",
    ),
    _one(
        "the signature is looked for in another header",
        "a_webhook_leads_to_the_payment",
        "headers.get(SIGNATURE_HEADER, ",
        'headers.get("Acme-Signature", ',
    ),
    _one(
        "a webhook is good for ever",
        "a_webhook_is_good_for_300_seconds_either_way",
        "if abs(now.timestamp() - int(given[1])) > TOLERANCE_S:",
        "if False:",
    ),
    _one(
        "one secret only",
        "two_secrets_are_live_while_one_is_rolled",
        'credentials.webhook_secret.split(",")',
        "[credentials.webhook_secret]",
    ),
    _one(
        "an empty secret verifies",
        "without_a_webhook_secret_nothing_is_accepted",
        "        self._secrets = [secret for secret in secrets if secret]\n",
        "        self._secrets = list(secrets)\n",
    ),
    _one(
        "money of another program is a fault",
        "a_webhook_about_money_of_another_program_is_no_fault",
        '                request_reference=_text(order, "reference"),\n            )',
        '                request_reference="pr_" + order["reference"].split("pr_")[1],\n            )',
    ),
    _one(
        "signed nonsense is a bug",
        "nonsense_is_an_invalid_payload",
        "except (KeyError, TypeError, ValueError, AttributeError) as error:\n            raise PayloadInvalid",
        "except ZeroDivisionError as error:\n            raise PayloadInvalid",
    ),
    # ---------------------------------------------------------------------------------------------------- tokens, parts
    _one(
        "a token is used after its end",
        "a_token_is_not_used_after_its_end",
        "time.monotonic() + lives_s - min(MARGIN_S, lives_s / 2)",
        "time.monotonic() + 3600",
        module="batches",
    ),
    _one(
        "a call for a token that fails is ambiguous",
        "a_call_for_a_token_that_fails_made_nothing",
        'super()._call("POST", "/v1/token", reading=True)',
        'super()._call("POST", "/v1/token")',
        module="batches",
    ),
    _one(
        "the key in base64 is in the error of a token",
        "a_call_for_a_token_that_fails_made_nothing",
        'IntegrationError(self.name, "unexpected_answer", type(error).__name__)',
        'IntegrationError(self.name, "unexpected_answer", self._basic)',
        module="batches",
    ),
    _one(
        "the token is in an error",
        "no_error_and_no_log_line_has_a_secret_or_an_address",
        "        return await super()._call(method, path, body=body, key=key, reading=reading)\n",
        "        try:\n"
        "            return await super()._call(method, path, body=body, key=key, reading=reading)\n"
        "        except IntegrationError as error:\n"
        '            raise IntegrationError("acme_pay", error.reason, self._headers["authorization"]) from error\n',
        module="batches",
    ),
    _one(
        "the headers are in the message of a time-out",
        "no_error_and_no_log_line_has_a_secret_or_an_address",
        'NAME, "timeout", retryable=True, ambiguous=not reading',
        'NAME, "timeout", str(headers), retryable=True, ambiguous=not reading',
    ),
    _one(
        "the order's id is not signed",
        "the_ids_of_a_webhook_are_signed",
        '    return notification["order"].encode()\n',
        '    return b"notification"\n',
        module="batches",
    ),
    _one(
        "a number that is not signed is the event's id",
        "the_ids_of_a_webhook_are_signed",
        "external_id=None, type=",
        'external_id=str(one["number"]), type=',
        module="batches",
    ),
    _one(
        "what is paid in part counts as completed",
        "a_checkout_paid_in_parts_tells_each_part_and_all_of_them",
        "        return await super()._call(method, path, body=body, key=key, reading=reading)\n",
        "        answer = await super()._call(method, path, body=body, key=key, reading=reading)\n"
        '        return answer | ({"state": "paid"} if answer.get("state") == "part_paid" else {})\n',
        module="batches",
    ),
    # ---------------------------------------------------------------------------------------------------- batches
    _one(
        "only the first of a batch is reported",
        "every_event_of_a_batch_is_told_as_if_it_came_alone",
        "        return events\n",
        "        return events[:1]\n",
        module="batches",
    ),
    _one(
        "only the first of a batch is verified",
        "every_event_of_a_batch_is_verified",
        "        for one, part, given in signed:\n",
        "        first = signed[0]\n        for one in notifications:\n            _, part, given = first\n",
        module="batches",
    ),
    _one(
        "the events of a batch are stored under the whole body",
        "every_event_of_a_batch_is_told_as_if_it_came_alone",
        "events.append(dataclasses.replace(self.parse(raw), raw=raw))",
        "events.append(self.parse(raw))",
        module="batches",
    ),
    _one(
        "an odd event refuses its batch",
        "an_odd_event_of_a_batch_refuses_no_other",
        "                continue\n",
        "                raise\n",
        module="batches",
    ),
)
