"""Stripe's contract for the calls that we make, read from the installed SDK's generated annotations. Serves nothing.

The SDK's files say "File generated from our OpenAPI spec": reading them back gives the contract of exactly the version
that runs. The vendor's files in ../shared/specs are also used where they are present.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import types
import typing
from decimal import Decimal
from functools import cache
from typing import Any

import typing_extensions
from stripe._list_object import ListObject
from stripe._request_options import RequestOptions
from stripe._stripe_object import StripeObject, UntypedStripeObject

from tests.contracts.openapi import Contract, vendor_file

CURRENT_FILE = "stripe-2026-10-28.endive.from-sdk.openapi.json"
OLD_FILE = "stripe-2023-08-16.openapi.json"

# What the fakes may expand; every other expandable field stays an id, or the whole API would come along.
RESOURCES = {
    "account": ("stripe", "Account"),
    "balance_transaction": ("stripe", "BalanceTransaction"),
    "charge": ("stripe", "Charge"),
    "checkout.session": ("stripe.checkout", "Session"),
    "dispute": ("stripe", "Dispute"),
    "event": ("stripe", "Event"),
    "payment_intent": ("stripe", "PaymentIntent"),
    "refund": ("stripe", "Refund"),
    "webhook_endpoint": ("stripe", "WebhookEndpoint"),
}
_PARAMS = "stripe.params"
# method, path, parameters' module and class, resource answered ("[]": a list of it)
OPERATIONS = [
    ("post", "/v1/checkout/sessions", "checkout._session_create_params.SessionCreateParams", "checkout.session"),
    ("get", "/v1/checkout/sessions", "checkout._session_list_params.SessionListParams", "checkout.session[]"),
    (
        "get",
        "/v1/checkout/sessions/{session}",
        "checkout._session_retrieve_params.SessionRetrieveParams",
        "checkout.session",
    ),
    (
        "post",
        "/v1/checkout/sessions/{session}/expire",
        "checkout._session_expire_params.SessionExpireParams",
        "checkout.session",
    ),
    (
        "get",
        "/v1/payment_intents/{intent}",
        "_payment_intent_retrieve_params.PaymentIntentRetrieveParams",
        "payment_intent",
    ),
    (
        "post",
        "/v1/payment_intents/{intent}/cancel",
        "_payment_intent_cancel_params.PaymentIntentCancelParams",
        "payment_intent",
    ),
    ("get", "/v1/events", "_event_list_params.EventListParams", "event[]"),
    ("get", "/v1/refunds", "_refund_list_params.RefundListParams", "refund[]"),
    ("post", "/v1/refunds", "_refund_create_params.RefundCreateParams", "refund"),
    ("get", "/v1/refunds/{refund}", "_refund_retrieve_params.RefundRetrieveParams", "refund"),
    ("get", "/v1/account", "_account_retrieve_current_params.AccountRetrieveCurrentParams", "account"),
    ("get", "/v1/webhook_endpoints", "_webhook_endpoint_list_params.WebhookEndpointListParams", "webhook_endpoint[]"),
    (
        "post",
        "/v1/webhook_endpoints",
        "_webhook_endpoint_create_params.WebhookEndpointCreateParams",
        "webhook_endpoint",
    ),
    (
        "delete",
        "/v1/webhook_endpoints/{webhook_endpoint}",
        "_webhook_endpoint_delete_params.WebhookEndpointDeleteParams",
        "webhook_endpoint",
    ),
]
ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type"],
            "properties": {
                **{
                    name: {"type": "string", "nullable": True}
                    for name in ("charge", "code", "decline_code", "doc_url", "message", "param", "request_log_url")
                },
                "type": {"type": "string"},
            },
        }
    },
}


@cache
def derived_contract() -> Contract:
    """The contract of the installed SDK; about half a second, once per test run."""
    return Contract(derive(), name="stripe (installed SDK)")


@cache
def file_contract(name: str) -> Contract | None:
    """A contract of ../shared/specs, or None in a bare clone."""
    spec = vendor_file(name)
    return None if spec is None else Contract(spec, name=name)


def contracts() -> list[Contract]:
    """Every available contract: the installed SDK's first, then the vendor's files."""
    files = [contract for name in (CURRENT_FILE, OLD_FILE) if (contract := file_contract(name)) is not None]
    return [derived_contract(), *files]


def derive() -> dict[str, Any]:
    """An OpenAPI 3.0 document of OPERATIONS, read from the installed SDK."""
    reader = _Reader()
    paths: dict[str, Any] = {}
    for method, path, params, answered in OPERATIONS:
        module, _, name = params.rpartition(".")
        schema = reader.typed_dict(getattr(importlib.import_module(f"{_PARAMS}.{module}"), name))
        resource = {"$ref": f"#/components/schemas/{answered.removesuffix('[]')}"}
        operation: dict[str, Any] = {
            "operationId": f"{method} {path}",
            "parameters": [
                {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
                for part in path.split("/")
                if part.startswith("{")
            ],
            "responses": {
                "200": {
                    "content": {
                        "application/json": {"schema": _list_of(resource) if answered.endswith("[]") else resource}
                    }
                },
                "default": {"content": {"application/json": {"schema": ERROR_SCHEMA}}},
            },
        }
        if method == "post":
            operation["requestBody"] = {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}
        else:
            operation["parameters"] += [
                {"name": key, "in": "query", "required": key in schema.get("required", []), "schema": value}
                for key, value in schema["properties"].items()
            ]
        paths.setdefault(path, {})[method] = operation
    schemas = {
        name: reader.resource(getattr(importlib.import_module(module), cls))
        for name, (module, cls) in RESOURCES.items()
    }
    return {"openapi": "3.0.3", "paths": paths, "components": {"schemas": schemas}}


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["data", "has_more", "object", "url"],
        "properties": {
            "object": {"type": "string", "enum": ["list"]},
            "data": {"type": "array", "items": items},
            "has_more": {"type": "boolean"},
            "url": {"type": "string"},
        },
    }


@cache
def _late_imports(module_name: str) -> dict[str, tuple[str, str]]:
    """Names that a module imports for type checkers only, with where they come from."""
    module = importlib.import_module(module_name)
    found = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module, alias.name)
    return found


class _Elsewhere:
    """Replaces a class of another module of which only the name is needed."""

    origin: tuple[str, str]


@cache
def _stand_in(module: str, name: str) -> type:
    return type(name, (_Elsewhere,), {"origin": (module, name)})


class _Reader:
    """Annotations to schemas. Requests close the SDK's open enumerations, answers leave them open."""

    def __init__(self) -> None:
        found = {name: getattr(importlib.import_module(module), cls) for name, (module, cls) in RESOURCES.items()}
        self._names = {(cls.__module__, cls.__qualname__): name for name, cls in found.items()}

    # ---------------------------------------------------------------------------------------------------- requests
    def typed_dict(self, cls: Any) -> dict[str, Any]:
        """A parameter dictionary: nothing beyond its keys is allowed."""
        properties: dict[str, Any] = {}
        required = []
        options = typing_extensions.get_annotations(RequestOptions)
        for key, annotation in typing_extensions.get_annotations(cls).items():
            if key in options and cls.__name__.endswith("Params"):
                continue  # the SDK's own options of a call, not parameters of it
            kind = self._resolve(annotation, cls)
            if (
                typing.get_origin(kind) is typing_extensions.NotRequired
                or typing.get_origin(kind) is typing.NotRequired
            ):
                kind = typing.get_args(kind)[0]
            else:
                required.append(key)
            properties[key] = self._schema(kind, cls, request=True)
        out: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        return out | ({"required": required} if required else {})

    # ----------------------------------------------------------------------------------------------------- answers
    def resource(self, cls: type[StripeObject]) -> dict[str, Any]:
        """An object of an answer: Optional may be null or left out, more fields may always come."""
        properties: dict[str, Any] = {}
        required = []
        for key, annotation in typing_extensions.get_annotations(cls).items():
            if key.startswith("_"):
                continue
            kind = self._resolve(annotation, cls)
            if typing.get_origin(kind) is typing.ClassVar:
                continue
            schema = self._schema(kind, cls, request=False)
            if not schema.get("nullable"):
                required.append(key)
            properties[key] = schema
        return {"type": "object", "properties": properties, "required": required}

    # ------------------------------------------------------------------------------------------------------- types
    def _resolve(self, annotation: Any, owner: Any) -> Any:
        if isinstance(annotation, typing.ForwardRef):
            annotation = annotation.__forward_arg__
        if not isinstance(annotation, str):
            return annotation
        module = importlib.import_module(owner.__module__)
        names = dict(vars(module))
        for word, (source, original) in _late_imports(owner.__module__).items():
            names.setdefault(word, _stand_in(source, original))
        names |= {k: v for k, v in vars(owner).items() if isinstance(v, type)}
        return eval(annotation, names)  # noqa: S307 (the installed SDK's own source)

    def _schema(self, kind: Any, owner: Any, *, request: bool) -> dict[str, Any]:
        if isinstance(kind, (str, typing.ForwardRef)):
            return self._schema(self._resolve(kind, owner), owner, request=request)
        if kind is Any:
            return {}
        simple: dict[Any, dict[str, Any]] = {
            str: {"type": "string"},
            int: {"type": "integer"},
            float: {"type": "number"},
            bool: {"type": "boolean"},
            Decimal: {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"},
        }
        if kind in simple:
            return dict(simple[kind])
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Literal, typing_extensions.Literal):
            return {"enum": list(args)}
        if origin in (typing.Union, types.UnionType):
            return self._union(list(args), owner, request=request)
        if origin is list:
            return {"type": "array", "items": self._schema(args[0], owner, request=request)}
        if origin is dict or origin is UntypedStripeObject:
            return {"type": "object", "additionalProperties": self._schema(args[-1], owner, request=request)}
        if origin is ListObject:
            return _list_of(self._schema(args[0], owner, request=request))
        if isinstance(kind, type) and issubclass(kind, (StripeObject, _Elsewhere)):
            key = kind.origin if issubclass(kind, _Elsewhere) else (kind.__module__, kind.__qualname__)
            if key in self._names:
                return {"$ref": f"#/components/schemas/{self._names[key]}"}
            return {} if issubclass(kind, _Elsewhere) else self.resource(kind)
        if typing_extensions.is_typeddict(kind):
            return self.typed_dict(kind)
        raise TypeError(f"{owner.__name__}: cannot read {kind!r}")

    def _union(self, args: list[Any], owner: Any, *, request: bool) -> dict[str, Any]:
        nullable = type(None) in args
        args = [arg for arg in args if arg is not type(None)]
        literals = [a for a in args if typing.get_origin(a) in (typing.Literal, typing_extensions.Literal)]
        args = [a for a in args if a not in literals]
        values = [value for literal in literals for value in typing.get_args(literal)]
        # `Literal[...] | str` is an open enumeration; `Literal[""] | str` is one too: text that may be emptied.
        closed = bool(values) and (str not in args or (request and values != [""]))
        if closed:
            args = [a for a in args if a is not str]
        options = [{"enum": values}] if closed else []
        options += [self._schema(arg, owner, request=request) for arg in args]
        if not request and str in args:
            # What cannot be expanded here is an id: the class that is only named would allow anything.
            options = [option for option in options if option != {}]
        schema = options[0] if len(options) == 1 else {"anyOf": options}
        return schema | ({"nullable": True} if nullable else {})
