"""Validates HTTP traffic against an OpenAPI 3 contract, and the base of fake vendors that do. It knows no vendor."""

from __future__ import annotations

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import ValidationError, relevance  # type: ignore[import-untyped]
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from integrations.kit.vendor import NONSENSE, FailureMode, LoopbackServer

FORM = "application/x-www-form-urlencoded"
_BASE = "urn:contract"
_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_SPECS = Path(__file__).resolve().parents[3] / "shared" / "specs"


def vendor_file(name: str) -> dict[str, Any] | None:
    """A JSON file of `../shared/specs`, or None if it is missing."""
    path = _SPECS / name
    return cast(dict[str, Any], json.loads(path.read_bytes())) if path.is_file() else None


class ContractViolation(Exception):
    """A request or a response that the contract does not allow; `sentences` say where and why."""

    def __init__(self, contract: str, subject: str, sentences: Sequence[str]) -> None:
        self.contract = contract
        self.subject = subject
        self.sentences = list(sentences)
        super().__init__(f"{contract}: {subject}: " + "; ".join(self.sentences))


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the contract, with the decoded and typed parts of a request to it."""

    method: str  # upper case
    path: str  # the template, "/v1/checkout/sessions/{session}"
    operation_id: str
    definition: Mapping[str, Any] = field(repr=False)
    path_params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None  # dict of typed values (form or JSON); None: no body


# --------------------------------------------------------------------------------------------------------- decoding
def decode_pairs(pairs: Sequence[tuple[str, str]], *, verbatim: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Convert form or query pairs to a tree: `a[b][0]=x` nests, a repeated plain key becomes a list.

    Names in `verbatim` are not split. Raises ValueError where two keys contradict each other.
    """
    tree: dict[str, Any] = {}
    for key, value in pairs:
        match = None if key in verbatim else re.fullmatch(r"([^\[\]]+)((?:\[[^\[\]]*\])+)", key)
        if match is None:
            if key not in tree:
                tree[key] = value
            elif isinstance(tree[key], str):
                tree[key] = [tree[key], value]
            elif isinstance(tree[key], list):
                tree[key].append(value)
            else:
                raise ValueError(f"{key} is given both as a value and with brackets")
            continue
        names = [match.group(1), *re.findall(r"\[([^\[\]]*)\]", match.group(2))]
        node = tree
        for position, name in enumerate(names):
            step = name if name != "" else str(len(node))
            if position == len(names) - 1:
                if step in node:
                    raise ValueError(f"{key} is given twice")
                node[step] = value
            else:
                child = node.setdefault(step, {})
                if not isinstance(child, dict):
                    raise ValueError(f"{key} is given both as a value and with brackets")
                node = child
    return tree


def _load_json(body: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise ValueError("an object holds one key twice")
        return out

    return json.loads(body, object_pairs_hook=unique)


# ------------------------------------------------------------------------------------------------- OpenAPI to schema
_ANNOTATIONS = {"nullable", "example", "examples", "discriminator", "xml", "externalDocs", "default", "description"}
_MAPS = {"properties", "patternProperties"}
_LISTS = {"allOf", "anyOf", "oneOf"}
_SINGLES = {"items", "additionalProperties", "not"}


def to_json_schema(schema: Any) -> Any:
    """An OpenAPI 3.0 schema as JSON Schema 2020-12.

    `nullable` allows null in every position (beside `$ref`, `anyOf`, `enum`, with or without `type`):
    read literally, Stripe's file refuses its own fixtures.
    """
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    if "$ref" in schema:
        out["$ref"] = _BASE + schema["$ref"]
    else:
        for key, value in schema.items():
            if key in _ANNOTATIONS or key.startswith("x-"):
                continue
            if key in _MAPS:
                out[key] = {name: to_json_schema(sub) for name, sub in value.items()}
            elif key in _LISTS:
                out[key] = [to_json_schema(sub) for sub in value]
            elif key in _SINGLES:
                out[key] = to_json_schema(value)
            elif not _is_left_out(key, value):
                out[key] = value
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if schema.get(exclusive) is True:
                out[exclusive] = out.pop(bound)
    if schema.get("nullable"):
        if set(out) & {"$ref", "enum", "const", *_LISTS}:
            return {"anyOf": [out, {"type": "null"}]}
        if isinstance(out.get("type"), str):
            out["type"] = [out["type"], "null"]
    return out


def _is_left_out(key: str, value: Any) -> bool:
    """The 3.0 form of an exclusive bound (converted apart), and patterns that Python does not know."""
    if key in ("exclusiveMinimum", "exclusiveMaximum"):
        return isinstance(value, bool)
    return key == "pattern" and not _compiles(value)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:  # an ECMAScript pattern that Python does not know
        return False
    return True


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    kind = schema.get("type", ())
    return (kind,) if isinstance(kind, str) else tuple(kind)


class Contract:
    """One vendor's OpenAPI document, which validates requests and responses."""

    def __init__(self, spec: dict[str, Any], *, name: str) -> None:
        self.name = name
        self.spec = spec
        schemas = (spec.get("components") or {}).get("schemas") or {}
        document = {"components": {"schemas": {key: to_json_schema(value) for key, value in schemas.items()}}}
        self._document = document
        self._registry: Registry[Any] = Registry().with_resource(_BASE, DRAFT202012.create_resource(document))
        self._validators: dict[int, tuple[Any, Draft202012Validator]] = {}
        servers = spec.get("servers") or []
        self._prefix = urlsplit(servers[0].get("url", "")).path.rstrip("/") if servers else ""
        self._routes = self._compile_routes()

    def _compile_routes(self) -> list[tuple[re.Pattern[str], str, str, dict[str, Any], list[Any]]]:
        routes = []
        for path, item in self.spec["paths"].items():
            pattern = re.compile(
                "".join(
                    f"(?P<p{i // 2}>[^/]+?)" if i % 2 else re.escape(part)
                    for i, part in enumerate(re.split(r"\{([^{}]+)\}", path))
                )
            )
            for method in _METHODS:
                if method in item:
                    routes.append((pattern, method.upper(), path, item[method], item.get("parameters") or []))
        # A literal segment wins over a parameter: /orders/search before /orders/{id}.
        return sorted(routes, key=lambda route: route[2].count("{"))

    # ------------------------------------------------------------------------------------------------------ lookup
    def find(self, method: str, path: str) -> Operation:
        """The operation of this method and path. Raises: ContractViolation."""
        local = path[len(self._prefix) :] if self._prefix and path.startswith(self._prefix) else path
        for pattern, verb, template, definition, _ in self._routes:
            match = pattern.fullmatch(local)
            if match is not None and verb == method.upper():
                names = re.findall(r"\{([^{}]+)\}", template)
                return Operation(
                    method=verb,
                    path=template,
                    operation_id=definition.get("operationId", f"{verb} {template}"),
                    definition=definition,
                    path_params={n: unquote(match.group(f"p{i}")) for i, n in enumerate(names)},
                )
        raise ContractViolation(self.name, f"{method} {path}", ["the contract has no such operation"])

    def schema(self, name: str) -> dict[str, Any]:
        """A named component schema, as a reference that `check_value` takes."""
        if name not in self._document["components"]["schemas"]:
            raise KeyError(name)
        return {"$ref": f"#/components/schemas/{name}"}

    def check_value(self, schema: Mapping[str, Any], value: object, *, subject: str = "value") -> None:
        """Validate a value against a schema of this contract. Raises: ContractViolation."""
        if sentences := self._errors(schema, value, subject):
            raise ContractViolation(self.name, subject, sentences)

    # ---------------------------------------------------------------------------------------------------- requests
    def check_request(
        self,
        method: str,
        path: str,
        *,
        query: str,
        content_type: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
    ) -> Operation:
        """Validate a request; return its operation with typed values.

        `query` without "?". With `headers` (lower-case names), required header parameters are demanded too.
        Raises ContractViolation.
        """
        found = self.find(method, path)
        item = next(r for r in self._routes if r[1] == found.method and r[2] == found.path)
        parameters = [self._deref_parameter(p) for p in [*item[4], *(found.definition.get("parameters") or [])]]
        sentences: list[str] = []
        for parameter in parameters:
            if parameter["in"] == "path" and "schema" in parameter:
                raw = found.path_params.get(parameter["name"], "")
                sentences += self._errors(
                    parameter["schema"], self._coerce(raw, parameter["schema"]), f"path {parameter['name']}"
                )
            if parameter["in"] == "header" and headers is not None:
                value = headers.get(parameter["name"].lower())
                if value is None and parameter.get("required"):
                    sentences.append(f"header {parameter['name']} is missing")
                elif value is not None and "schema" in parameter:
                    typed = self._coerce(value, parameter["schema"])
                    sentences += self._errors(parameter["schema"], typed, f"header {parameter['name']}")
        typed_query, more = self._check_query(parameters, query)
        typed_body, worse = self._check_body(found, content_type, body)
        sentences += more + worse
        if sentences:
            raise ContractViolation(self.name, f"{found.method} {found.path}", sentences)
        return Operation(
            method=found.method,
            path=found.path,
            operation_id=found.operation_id,
            definition=found.definition,
            path_params=found.path_params,
            query=typed_query,
            body=typed_body,
        )

    def _deref_parameter(self, parameter: dict[str, Any]) -> dict[str, Any]:
        return cast(dict[str, Any], self._pointer(parameter["$ref"])) if "$ref" in parameter else parameter

    def _pointer(self, ref: str) -> Any:
        node: Any = self.spec
        for part in ref.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
        return node

    def _check_query(self, parameters: list[dict[str, Any]], query: str) -> tuple[dict[str, Any], list[str]]:
        known = {p["name"]: p for p in parameters if p["in"] == "query"}
        sentences: list[str] = []
        try:
            tree = decode_pairs(parse_qsl(query, keep_blank_values=True), verbatim=frozenset(known))
        except ValueError as error:
            return {}, [f"query: {error}"]
        typed: dict[str, Any] = {}
        for name, value in tree.items():
            if name not in known:
                sentences.append(f"query {name}: the operation has no such parameter")
                continue
            schema = known[name].get("schema", {})
            typed[name] = self._coerce(value, schema)
            sentences += self._errors(schema, typed[name], f"query {name}")
        sentences += [f"query {n} is missing" for n, p in known.items() if p.get("required") and n not in tree]
        return typed, sentences

    def _check_body(self, found: Operation, content_type: str, body: bytes) -> tuple[Any, list[str]]:
        declared = found.definition.get("requestBody")
        if declared is not None and "$ref" in declared:
            declared = self._pointer(declared["$ref"])
        kind = content_type.partition(";")[0].strip().lower()
        if not body:
            if declared is None:
                return None, []
            # An empty form is an empty object, so that missing required fields are found.
            form_schema = ((declared.get("content") or {}).get(FORM) or {}).get("schema")
            if form_schema is not None:
                return {}, self._errors(form_schema, {}, "body")
            return None, ["body is missing"] if declared.get("required") else []
        if declared is None:
            return None, ["body: the operation takes none"]
        media = (declared.get("content") or {}).get(kind)
        if media is None:
            return None, [f"content type {kind or '(none)'} is not one of {sorted(declared.get('content') or {})}"]
        schema = media.get("schema") or {}
        try:
            if kind == FORM:
                pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, strict_parsing=True)
                value = self._coerce(decode_pairs(pairs), schema)
            elif kind == "application/json" or kind.endswith("+json"):
                value = _load_json(body)
            else:
                return body, []
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
            return None, [f"body: {error}"]
        return value, self._errors(schema, value, "body")

    def _coerce(self, value: Any, schema: Any) -> Any:
        """Convert form values to the schema's types; a value that does not convert stays and fails validation."""
        if not isinstance(schema, Mapping):
            return value
        if "$ref" in schema:
            return self._coerce(value, self._pointer(schema["$ref"]))
        options = [*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())]
        if options:
            tried = [(self._coerce(value, option), option) for option in options]
            for candidate, option in tried:
                if not self._errors(option, candidate, ""):
                    return candidate
            for candidate, option in tried:
                if isinstance(candidate, dict) and "properties" in option:
                    return candidate
            return tried[0][0]
        for part in schema.get("allOf") or ():
            value = self._coerce(value, part)
        kinds = _types(schema)
        if isinstance(value, str):
            return self._coerce_text(value, kinds, schema)
        if "array" in kinds:
            if isinstance(value, dict) and sorted(value) == sorted(str(i) for i in range(len(value))):
                value = [value[str(i)] for i in range(len(value))]
            if isinstance(value, list):
                return [self._coerce(item, schema.get("items", {})) for item in value]
        if isinstance(value, dict):
            properties = schema.get("properties") or {}
            return {k: self._coerce(v, properties.get(k, schema.get("additionalProperties"))) for k, v in value.items()}
        return value

    def _coerce_text(self, value: str, kinds: tuple[str, ...], schema: Mapping[str, Any]) -> Any:
        if "integer" in kinds and re.fullmatch(r"-?\d{1,18}", value):
            return int(value)
        if "number" in kinds and re.fullmatch(r"-?\d{1,18}(\.\d+)?", value):
            return float(value)
        if "boolean" in kinds and value in ("true", "false"):
            return value == "true"
        if "array" in kinds and "string" not in kinds:
            # Twilio repeats a key for a list: one value is a list of one.
            return [self._coerce(value, schema.get("items", {}))]
        return value

    # ---------------------------------------------------------------------------------------------------- answers
    def check_response(self, operation: Operation, status: int, payload: object) -> None:
        """Validate a response. Undocumented error statuses pass. Raises: ContractViolation."""
        responses = operation.definition.get("responses") or {}
        definition = responses.get(str(status)) or responses.get(f"{status // 100}XX") or responses.get("default")
        subject = f"answer {status} of {operation.method} {operation.path}"
        if definition is None:
            if status >= 400:
                return
            raise ContractViolation(self.name, subject, [f"status {status} is not documented ({sorted(responses)})"])
        if "$ref" in definition:
            definition = self._pointer(definition["$ref"])
        content = definition.get("content") or {}
        media = content.get("application/json")
        if media is None:
            if payload is not None and not content:
                raise ContractViolation(self.name, subject, ["a body is given, none is documented"])
            return
        if sentences := self._errors(media.get("schema") or {}, payload, "answer"):
            raise ContractViolation(self.name, subject, sentences)

    # -------------------------------------------------------------------------------------------------- validation
    def _errors(self, schema: Any, value: object, subject: str) -> list[str]:
        key = id(schema)
        if key not in self._validators:
            validator = Draft202012Validator(
                to_json_schema(schema), registry=self._registry, format_checker=Draft202012Validator.FORMAT_CHECKER
            )
            self._validators[key] = (schema, validator)  # keeps the schema alive: its id stays its own
        return [_sentence(error, subject) for error in self._validators[key][1].iter_errors(value)]


def _sentence(error: ValidationError, subject: str) -> str:
    while error.context:
        # The deepest branch of a failed anyOf explains the most, the "or null" branch the least.
        error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type", relevance(e)))
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return f"{subject}{where}: {error.message[:300]}"


# ------------------------------------------------------------------------------------------------------------ server
@dataclass(frozen=True, slots=True)
class Call:
    """One validated request."""

    method: str
    path: str
    headers: Mapping[str, str]  # lower-case names
    raw_body: bytes
    operation: Operation | None  # None: it broke the contract


@dataclass(slots=True)
class Answer:
    """The fake's response. `payload` None: no body."""

    status: int
    payload: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class ContractServer(ABC):
    """A fake vendor over HTTP that validates each request and each of its own responses.

    Use as `async with TheServer(contract) as server:`; `server.url` is the address. Subclasses answer in `handle`
    and shape errors in `error`. `calls` holds every request in order, `violations` every broken rule of a client;
    a broken rule of the fake itself raises when the server closes.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self._own_faults: list[str] = []
        self._failures: list[tuple[FailureMode, Callable[[Call], bool] | None]] = []
        self._closing = asyncio.Event()
        self._server: LoopbackServer | None = None
        methods = [m.upper() for m in _METHODS]
        self.app = Starlette(routes=[*self.extra_routes(), Route("/{path:path}", self._endpoint, methods=methods)])

    # --------------------------------------------------------------------------------------------- for subclasses
    @abstractmethod
    async def handle(self, call: Call) -> Answer:
        """Answer a valid call (`call.operation` is set). Rules beyond the contract belong here."""

    @abstractmethod
    def error(self, status: int, reason: str, sentences: Sequence[str], call: Call) -> Answer:
        """A vendor-shaped error. reason: "violation", "not_found" (no such operation), "server_error", "rate_limit"."""

    def extra_routes(self) -> list[Route]:
        """Addresses outside the contract (token endpoints, hosted pages)."""
        return []

    def finish(self, call: Call, answer: Answer) -> Answer:
        """Called after each handled call, even if a 500 replaces its response (for idempotency caches)."""
        return answer

    # ------------------------------------------------------------------------------------------------- for tests
    @property
    def url(self) -> str:
        """The base URL without a trailing slash."""
        if self._server is None:
            raise RuntimeError("the server is not running")
        return self._server.url

    def fail_next(self, mode: FailureMode, *, times: int = 1, match: Callable[[Call], bool] | None = None) -> None:
        """Let the next call(s) fail.

        accept_then_500: done, then 500. hang: done, never answered. drop: done, connection cut.
        before_500, rate_limit (429) and refuse (400): not done. nonsense and empty: done, and answered with nonsense.
        """
        self._failures += [(mode, match)] * times

    def operations(self) -> list[str]:
        """The operation ids of all calls so far ("?" for an invalid one)."""
        return [call.operation.operation_id if call.operation else "?" for call in self.calls]

    async def __aenter__(self) -> Self:
        self._server = LoopbackServer(self.app)
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closing.set()
        if self._server is not None:
            await self._server.__aexit__()
            self._server = None
        if self._own_faults and error[0] is None:
            raise AssertionError("the fake broke its own contract: " + "; ".join(self._own_faults))

    # -------------------------------------------------------------------------------------------------- machinery
    async def _endpoint(self, request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        headers = {k.lower(): v for k, v in request.headers.items()}
        path = request.scope.get("raw_path", b"").decode("ascii") or request.url.path
        operation: Operation | None = None
        broken: ContractViolation | None = None
        try:
            operation = self.contract.check_request(
                request.method,
                path,
                query=request.scope["query_string"].decode("ascii"),
                content_type=headers.get("content-type", ""),
                body=body,
                headers=headers,
            )
        except ContractViolation as violation:
            broken = violation
        call = Call(request.method, path, headers, body, operation)
        self.calls.append(call)
        if broken is not None:
            self.violations += [f"{broken.subject}: {sentence}" for sentence in broken.sentences]
            unknown = "the contract has no such operation" in broken.sentences
            return self._encode(
                self.error(404 if unknown else 400, "not_found" if unknown else "violation", broken.sentences, call)
            )
        mode = self._take_failure(call)
        if mode == "before_500":
            return self._checked(call, self.error(500, "server_error", ["an internal error"], call))
        if mode == "refuse":
            return self._encode(self.error(400, "violation", ["refused for the test"], call))
        if mode == "rate_limit":
            return self._checked(call, self.error(429, "rate_limit", ["too many requests"], call))
        answer = await self.handle(call)
        if mode == "accept_then_500":
            answer = self.error(500, "server_error", ["an internal error"], call)
        answer = self.finish(call, answer)
        if mode in NONSENSE:
            return Response(NONSENSE[mode], media_type="application/json")
        if mode == "hang":
            return _Hang(self._closing)
        if mode == "drop" and self._server is not None and request.client is not None:
            return _Drop(self._server, (request.client.host, request.client.port))
        return self._checked(call, answer)

    def _take_failure(self, call: Call) -> FailureMode | None:
        for index, (mode, match) in enumerate(self._failures):
            if match is None or match(call):
                del self._failures[index]
                return mode
        return None

    def _checked(self, call: Call, answer: Answer) -> Response:
        if call.operation is not None:
            try:
                self.contract.check_response(call.operation, answer.status, answer.payload)
            except ContractViolation as violation:
                self._own_faults.append(str(violation))
        return self._encode(answer)

    def _encode(self, answer: Answer) -> Response:
        if answer.payload is None:
            return Response(status_code=answer.status, headers=answer.headers)
        return Response(
            json.dumps(answer.payload).encode(),
            status_code=answer.status,
            headers=answer.headers,
            media_type="application/json",
        )


class _Hang(Response):
    """Does not answer until the client disconnects or the server closes."""

    def __init__(self, closing: asyncio.Event) -> None:
        super().__init__()
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        waits = {asyncio.create_task(left()), asyncio.create_task(self._closing.wait())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await super().__call__(scope, receive, send)


class _Drop(Response):
    """Cuts the connection instead of answering."""

    def __init__(self, server: LoopbackServer, client: tuple[str, int]) -> None:
        super().__init__()
        self._target = (server, client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._target[0].cut(self._target[1])
        while (await receive())["type"] != "http.disconnect":
            pass
        await super().__call__(scope, receive, send)
