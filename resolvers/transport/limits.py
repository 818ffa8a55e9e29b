"""What a client may ask of us and what it learns when something breaks: limits, error codes, masking, the error log.

Everything here is about any GraphQL API; who may see which row is decided in `resolvers.access`.
"""

import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

import strawberry
import structlog
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLSchema,
    GraphQLSyntaxError,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    get_named_type,
    get_nullable_type,
    get_operation_ast,
    is_abstract_type,
    parse,
)
from graphql.utilities import get_introspection_query
from graphql.validation import ASTValidationRule, NoSchemaIntrospectionCustomRule, validate
from graphql.validation.rules import overlapping_fields_can_be_merged
from graphql.validation.validate import ValidationAbortedError
from strawberry.exceptions import MissingQueryError
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule
from strawberry.types import ExecutionContext, ExecutionResult

from models.database_errors import is_transient
from resolvers.transport.executor import PerEventContext
from services.core.event_hub import SlowConsumer

log = structlog.get_logger(__name__)

FRAMES: Final = 12  # of a bug, innermost last

# The rule compares each pair of fields with one response name: work that grows with the square of the document. A field
# repeated 100 times, or 30 fragments on one type that select the same fields, stay below this; it costs at most 30 ms.
overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may cost; times in seconds, sizes in bytes."""

    tokens: int = 1_000
    document_chars: int = 65_536
    # Each error looks for its line from the start of the document.
    document_lines: int = 2_000
    # Of validation. Each costs a search for the names that may have been meant.
    errors: int = 5
    depth: int = 10
    aliases: int = 15
    directives: int = 50
    directives_on_one_field: int = 5
    cost: int = 10_000
    body_bytes: int = 131_072
    body_s: float = 10.0
    operation_s: float = 10.0
    init_s: float = 15.0
    operations_per_socket: int = 100
    sockets: int = 5_000
    sockets_per_token: int = 20
    messages_per_s: float = 20.0
    messages_burst: int = 100
    # Of one verified user or key; of what is not verified, of one network.
    requests_per_s: float = 50.0
    requests_burst: int = 100
    # A client that takes nothing for this long, with its buffer full, is cut off.
    stalled_s: float = 10.0


# ---------------------------------------------------------------------------------------------- how large a document
class Size(NamedTuple):
    """What a document asks for, fragments expanded."""

    depth: int
    aliases: int
    directives: int
    directives_on_one_field: int
    cost: int


_NOTHING: Final = Size(0, 0, 0, 0, 0)
DEFAULT_PAGE: Final = 50
LARGEST_PAGE: Final = 100
PLAIN_LIST: Final = 5
SCALAR_COST: Final = 1
OBJECT_COST: Final = 2


def measure(schema: GraphQLSchema, document: DocumentNode) -> Size:
    """The size of a document: depth of the deepest field (root fields: 0), aliases, directives, cost.

    Cost: a leaf 1, an object 2; below a field with `first` or `last` times that number (a variable: 100; left out: its
    default, else 50), below any other list times 5. There is no factor for depth: depth has its own limit, and with
    one an honest page of 100 thread items would cost more than a hostile tree. Fragments are measured once each, so
    this is linear.
    """
    return _Measure(schema, document).run()


class _Measure:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        # None while a fragment is being measured: a spread of itself counts nothing, validation refuses it later.
        self._known: dict[str, Size | None] = {}

    def run(self) -> Size:
        total = _NOTHING
        for operation in self._operations:
            root = self._schema.get_root_type(OperationType(operation.operation))
            size = self._selection(operation.selection_set, root, inside_page=False)
            total = _add(total, size._replace(directives=size.directives + len(operation.directives or ())))
        return total

    def _selection(self, selection_set: SelectionSetNode, parent: GraphQLNamedType | None, inside_page: bool) -> Size:
        total = _NOTHING
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                size = self._field(node, parent, inside_page)
            elif isinstance(node, InlineFragmentNode):
                named = self._type(node.type_condition.name.value) if node.type_condition else parent
                size = self._selection(node.selection_set, named, inside_page)
            else:
                size = self._spread(cast(FragmentSpreadNode, node), inside_page)
            here = len(node.directives or ())
            size = size._replace(
                directives=size.directives + here,
                directives_on_one_field=max(size.directives_on_one_field, here),
            )
            total = _add(total, size)
        return total

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None, inside_page: bool) -> Size:
        alias = 1 if node.alias else 0
        if node.name.value.startswith("__"):
            # Introspection has no costly resolvers; the limit of tokens bounds it.
            return _NOTHING._replace(aliases=alias)
        if node.selection_set is None:
            return _NOTHING._replace(aliases=alias, cost=SCALAR_COST)
        definition = getattr(parent, "fields", {}).get(node.name.value)
        child = get_named_type(definition.type) if definition else None
        page = _page(node, definition)
        # `nodes` and `edges` of a page are the page: they are multiplied once, by its `first`.
        is_list = definition is not None and isinstance(get_nullable_type(definition.type), GraphQLList)
        times = page or (PLAIN_LIST if is_list and not inside_page else 1)
        below = self._selection(node.selection_set, child, inside_page=page is not None)
        return below._replace(
            depth=below.depth + 1, aliases=below.aliases + alias, cost=OBJECT_COST + times * below.cost
        )

    def _spread(self, node: FragmentSpreadNode, inside_page: bool) -> Size:
        name = node.name.value
        if name not in self._known:
            fragment = self._fragments.get(name)
            self._known[name] = None
            if fragment is not None:
                on = self._type(fragment.type_condition.name.value)
                self._known[name] = self._selection(fragment.selection_set, on, inside_page)
        return self._known[name] or _NOTHING

    def _type(self, name: str) -> GraphQLNamedType | None:
        return self._schema.type_map.get(name)


def _add(one: Size, other: Size) -> Size:
    return Size(
        max(one.depth, other.depth),
        one.aliases + other.aliases,
        one.directives + other.directives,
        max(one.directives_on_one_field, other.directives_on_one_field),
        one.cost + other.cost,
    )


# ----------------------------------------------------------------------------------------------------- introspection
_LARGEST_WRAPPING: Final = 3  # [Item!]!


class _Among(Enum):
    """Which types a selection of introspection speaks of: how many members to expect depends on it."""

    ONE = 0
    ALL = 1
    MEMBERS_OF_ALL = 2


class _Introspection:
    """How many values the introspection fields of a document select, at most about. Fragments are counted once each."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._counts = _counts(schema)
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[tuple[str, _Among, int], int] = {}
        self._document = document

    def run(self) -> int:
        return sum(
            self._selection(node.selection_set, _Among.ONE, 0, inside=False)
            for node in self._document.definitions
            if isinstance(node, OperationDefinitionNode)
        )

    def _selection(self, selection_set: SelectionSetNode, among: _Among, wrapping: int, *, inside: bool) -> int:
        total = 0
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                if inside or node.name.value in ("__schema", "__type"):
                    total += self._field(node, among, wrapping)
            elif isinstance(node, InlineFragmentNode):
                total += self._selection(node.selection_set, among, wrapping, inside=inside)
            else:
                total += self._spread(cast(FragmentSpreadNode, node).name.value, among, wrapping, inside=inside)
        return total

    def _field(self, node: FieldNode, among: _Among, wrapping: int) -> int:
        if node.selection_set is None:
            return 1
        name = node.name.value
        wrapping = wrapping + 1 if name == "ofType" else 0
        if wrapping > _LARGEST_WRAPPING:
            return 0
        mean, most = self._counts.get(name, (1.0, 1))
        usual = among is _Among.ALL or (among is _Among.MEMBERS_OF_ALL and name == "args")
        below = _Among.ALL if name == "types" else _Among.MEMBERS_OF_ALL if among is _Among.ALL else _Among.ONE
        times = mean if usual else most
        return 2 + round(times * self._selection(node.selection_set, below, wrapping, inside=True))

    def _spread(self, name: str, among: _Among, wrapping: int, *, inside: bool) -> int:
        key = (name, among, wrapping if inside else -1)
        if key not in self._known:
            self._known[key] = 0
            fragment = self._fragments.get(name)
            if fragment is not None:
                self._known[key] = self._selection(fragment.selection_set, among, wrapping, inside=inside)
        return self._known[key]


@lru_cache(4)
def _counts(schema: GraphQLSchema) -> dict[str, tuple[float, int]]:
    """How many values each list of introspection has: on average over all types (or fields), and at most."""
    types = list(schema.type_map.values())
    fields = [field for named in types for field in getattr(named, "fields", {}).values()]
    inputs: dict[bool, list[int]] = {True: [], False: []}
    for named in types:
        inputs[isinstance(named, GraphQLInputObjectType)].append(len(getattr(named, "fields", {})))
    sizes = {
        "fields": inputs[False],
        "inputFields": inputs[True],
        "enumValues": [len(getattr(named, "values", {})) for named in types],
        "interfaces": [len(getattr(named, "interfaces", ())) for named in types],
        "possibleTypes": [len(schema.get_possible_types(named)) if is_abstract_type(named) else 0 for named in types],
        "args": [len(getattr(field, "args", {})) for field in fields],
    }
    counts = {
        name: (sum(of) / len(types if name != "args" else fields), max(of, default=0)) for name, of in sizes.items()
    }
    return {
        **counts,
        "types": (len(types), len(types)),
        "directives": (len(schema.directives), len(schema.directives)),
    }


def _introspection(schema: GraphQLSchema, document: DocumentNode) -> int:
    source = document.loc.source.body if document.loc else ""
    if "__schema" not in source and "__type" not in source:
        return 0
    return _Introspection(schema, document).run()


@lru_cache(4)
def _standard_introspection(schema: GraphQLSchema) -> int:
    """What the query of GraphiQL and of the code generators counts, and some more for those that add to it."""
    query = get_introspection_query(
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
        one_of=True,
    )
    return round(1.2 * _Introspection(schema, parse(query)).run())


# ------------------------------------------------------------------------------------------------ more of the document
def _page(node: FieldNode, definition: Any) -> int | None:
    if definition is None or not ({"first", "last"} & definition.args.keys()):
        return None
    largest = 0
    for argument in node.arguments or ():
        if argument.name.value in ("first", "last"):
            literal = argument.value
            # A long number is not converted: Python refuses 4,300 digits.
            short = isinstance(literal, IntValueNode) and len(literal.value) <= 9
            largest = max(largest, int(cast(IntValueNode, literal).value) if short else LARGEST_PAGE)
    if not largest:
        defaults = [definition.args[name].default_value for name in ("first", "last") if name in definition.args]
        largest = max((value for value in defaults if isinstance(value, int)), default=DEFAULT_PAGE)
    return min(largest, LARGEST_PAGE)


def refuse_too_complex(size: Size, limits: Limits) -> GraphQLError | None:
    """The one error of a document that is over a limit, or None."""
    for what, asked, allowed in (
        ("directives on one field", size.directives_on_one_field, limits.directives_on_one_field),
        ("directives", size.directives, limits.directives),
        ("aliases", size.aliases, limits.aliases),
        ("levels of fields", size.depth, limits.depth),
        ("points of cost", size.cost, limits.cost),
    ):
        if asked > allowed:
            return too_complex(f"This document is too complex: {asked} {what}, allowed are {allowed}.")
    return None


def refuse_repeated(document: DocumentNode, once: Set[str]) -> GraphQLError | None:
    """The error of a document with an operation that selects a root field of `once` under two names, or None."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    for operation in document.definitions:
        if not isinstance(operation, OperationDefinitionNode):
            continue
        names: set[str] = set()  # fields with one name and equal arguments are executed once
        spread: set[str] = set()
        waiting = [operation.selection_set]
        while waiting:
            for node in waiting.pop().selections:
                if isinstance(node, FieldNode):
                    if node.name.value in once:
                        names.add(node.alias.value if node.alias else node.name.value)
                elif isinstance(node, InlineFragmentNode):
                    waiting.append(node.selection_set)
                elif (name := cast(FragmentSpreadNode, node).name.value) in fragments and name not in spread:
                    spread.add(name)
                    waiting.append(fragments[name].selection_set)
        if len(names) > 1:
            return too_complex(f"One operation may have one of these fields, once: {', '.join(sorted(once))}.")
    return None


def too_complex(message: str) -> GraphQLError:
    """A refusal with code QUERY_TOO_COMPLEX."""
    return GraphQLError(message, extensions={"code": "QUERY_TOO_COMPLEX"})


# ------------------------------------------------------------------------------------ parse, limit and validate once
CACHED_DOCUMENTS: Final = 256
LONGEST_CACHED: Final = 16_384


class _Documents:
    """Parses, measures and validates, and keeps what it has accepted, so that a client's documents are read once.

    Documents of strangers are not kept: the collector of cyclic garbage walks through all that is kept, for seconds in the end.
    """

    def __init__(
        self,
        limits: Limits,
        rules: tuple[type[ASTValidationRule], ...],
        *,
        hide_suggestions: bool = False,
        once: Set[str] = frozenset(),
    ) -> None:
        self.limits = limits
        self.once = once
        self.rules = rules
        self.hide_suggestions = hide_suggestions
        self.accepted: OrderedDict[str, DocumentNode] = OrderedDict()  # text -> document, the longest unused first

    def parse(self, query: str) -> DocumentNode | None:
        """The document, or None for a syntax error: strawberry parses it again and reports it in its own way."""
        if (known := self.accepted.get(query)) is not None:
            self.accepted.move_to_end(query)
            return known
        try:
            return parse(query, max_tokens=self.limits.tokens)
        except (GraphQLSyntaxError, RecursionError):
            return None

    def refuse_too_long(self, query: str) -> GraphQLError | None:
        """The error of a text that is not even parsed, or None."""
        limits = self.limits
        if len(query) > limits.document_chars:
            return too_complex(f"This document is too long: at most {limits.document_chars} characters are allowed.")
        if query.count("\n") + query.count("\r") > limits.document_lines:
            return too_complex(f"This document is too long: at most {limits.document_lines} lines are allowed.")
        return None

    def check(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        rules: tuple[type[ASTValidationRule], ...],
        *,
        keep: bool,
    ) -> list[GraphQLError]:
        """One error over a limit, else what validation finds. `keep`: a signed-in client's, worth keeping."""
        source = document.loc.source.body if document.loc else ""
        if self.accepted.get(source) is document:
            return []
        errors = self._check(schema, document, rules + self.rules)
        if keep and not errors and len(source) <= LONGEST_CACHED:
            self.accepted[source] = document
            if len(self.accepted) > CACHED_DOCUMENTS:
                self.accepted.popitem(last=False)
        return errors

    def _check(
        self, schema: GraphQLSchema, document: DocumentNode, rules: tuple[type[ASTValidationRule], ...]
    ) -> list[GraphQLError]:
        # Before the standard rules: some of them take seconds on a document made for it, and report what they find.
        refusal = refuse_too_complex(measure(schema, document), self.limits) or refuse_repeated(document, self.once)
        if refusal is None and _introspection(schema, document) > _standard_introspection(schema):
            refusal = too_complex("This document asks for more of the schema than the standard introspection query.")
        if refusal is not None:
            return [refusal]
        errors = validate(
            schema,
            document,
            (*rules, MaybeNullValidationRule, OneOfInputValidationRule),
            max_errors=self.limits.errors,
            hide_suggestions=self.hide_suggestions,
        )
        if errors and isinstance(errors[-1], ValidationAbortedError) and "errors" not in errors[-1].message:
            return [too_complex("This document is too complex: it selects the same fields too often.")]
        return errors


class CheckDocument(SchemaExtension):
    """Parsing and validation through the shared cache, limits first."""

    def __init__(self, documents: _Documents) -> None:
        self._documents = documents

    def on_operation(self) -> Iterator[None]:
        self.execution_context.parse_options["max_tokens"] = self._documents.limits.tokens
        yield

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        if context.query and context.graphql_document is None:
            if (refusal := self._documents.refuse_too_long(context.query)) is not None:
                raise refusal
            context.graphql_document = self._documents.parse(context.query)
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        assert context.graphql_document is not None  # noqa: S101 strawberry validates only what it has parsed
        schema: GraphQLSchema = context.schema._schema
        if context._provided_operation_name is None and _operations(context.graphql_document) > 1:
            # strawberry would take the first one.
            context.pre_execution_errors = [GraphQLError("Say which operation of the document to run: operationName.")]
            yield
            return
        context.pre_execution_errors = self._documents.check(
            schema,
            context.graphql_document,
            context.validation_rules,
            keep=getattr(context.context, "viewer", None) is not None,
        )
        yield


def _operations(document: DocumentNode) -> int:
    return sum(isinstance(node, OperationDefinitionNode) for node in document.definitions)


# -------------------------------------------------------------------------------------------------------------- errors
MASKED: Final = "Something went wrong on our side. Quote the request id when you report it."
MESSAGE_CHARS: Final = 1_000
SLOW_CONSUMER: Final = "SLOW_CONSUMER"
UNAVAILABLE: Final = "SERVICE_UNAVAILABLE"
UNAVAILABLE_TEXT: Final = (
    "The service can't do this at the moment. Try again; repeat a mutation with the same idempotency key."
)
RETRY_AFTER_S: Final = 2
_ABOUT_THE_REQUEST: Final = (CannotGetOperationTypeError, InvalidOperationTypeError, MissingQueryError)


def is_bug(error: GraphQLError) -> bool:
    """Whether the error tells of our fault: its text is for the log, never for the client."""
    cause = error.original_error
    if cause is None or isinstance(cause, (GraphQLError, SlowConsumer, RecursionError, *_ABOUT_THE_REQUEST)):
        return False
    if is_transient(cause):
        return False
    # With a place in the document but no path, a scalar has refused a literal or a variable: nothing has run yet.
    return not (isinstance(cause, ValueError) and error.nodes and error.path is None)


def is_unavailable(error: GraphQLError) -> bool:
    """Whether the database could not do it at this moment: nobody's fault, and worth a repeat."""
    if error.extensions and "code" in error.extensions:
        return bool(error.extensions["code"] == UNAVAILABLE)
    return error.original_error is not None and is_transient(error.original_error)


def nothing_answered(data: Mapping[str, Any] | None, errors: Sequence[GraphQLError]) -> bool:
    """Whether an answer holds nothing but that the service is not available: over HTTP it is a 503."""
    return any(is_unavailable(error) for error in errors) and all(value is None for value in (data or {}).values())


def is_subscription(query: str | None, operation_name: str | None) -> bool:
    """Whether this operation, which was parsed before and then failed, is a subscription."""
    try:
        operation = get_operation_ast(parse(query or ""), operation_name)
    except GraphQLError:
        return False
    return operation is not None and operation.operation is OperationType.SUBSCRIPTION


def present(error: GraphQLError, request_id: str) -> GraphQLError:
    """The error as a client may see it, always with `extensions.code`. Presenting twice changes nothing."""
    if error.extensions and "code" in error.extensions:
        return error
    if isinstance(error.original_error, SlowConsumer):
        return _coded(error, str(error.original_error), {"code": SLOW_CONSUMER})
    if is_unavailable(error):
        return _coded(error, UNAVAILABLE_TEXT, {"code": UNAVAILABLE, "requestId": request_id})
    if is_bug(error):
        return _coded(error, MASKED, {"code": "INTERNAL", "requestId": request_id})
    if isinstance(error.original_error, RecursionError) or (
        isinstance(error, GraphQLSyntaxError) and "Parsing aborted" in error.message
    ):
        return _coded(error, error.message, {"code": "QUERY_TOO_COMPLEX"})
    return _coded(error, error.message, {**(error.extensions or {}), "code": "BAD_REQUEST"})


def _coded(error: GraphQLError, message: str, extensions: dict[str, Any]) -> GraphQLError:
    return GraphQLError(
        shortened(message),
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )


def shortened(message: str) -> str:
    """The message without the end of what it repeats from a long document."""
    return message if len(message) <= MESSAGE_CHARS else f"{message[:MESSAGE_CHARS]}…"


def request_id_of(context: Any) -> str:
    """The id that ties an answer to its log lines; empty without a context."""
    return str(getattr(context, "request_id", "") or "")


class PresentErrors(SchemaExtension):
    """Replaces what must not leave the process, in answers and in each pushed result."""

    def on_operation(self) -> Iterator[None]:
        yield
        self._present(self.execution_context.result)

    def on_stream_result(self, result: Any) -> Iterator[None]:
        self._present(result)
        yield

    def _present(self, result: Any) -> None:
        errors = getattr(result, "errors", None)
        if errors:
            request_id = request_id_of(self.execution_context.context)
            result.errors = [present(error, request_id) for error in errors]


def log_unavailable(error: BaseException, request_id: str) -> None:
    """Log that the database could not do what was asked: the class only, its text may quote values."""
    log.warning("the database failed for a moment", error=type(error).__name__, request_id=request_id)


def log_errors(errors: list[GraphQLError], execution_context: ExecutionContext | None) -> None:
    """Log bugs, and once per answer that the database failed, without the document and the exception's text: both may be private."""
    failed = next((error for error in errors if is_unavailable(error)), None)
    if failed is not None and failed.original_error is not None:
        log_unavailable(failed.original_error, request_id_of(execution_context.context if execution_context else None))
    for error in errors:
        cause = error.original_error
        if not is_bug(error) or cause is None:
            continue
        log.error(
            "resolver failed",
            error=type(cause).__name__,
            path=".".join(str(part) for part in error.path or ()),
            request_id=request_id_of(execution_context.context if execution_context else None),
            where=[
                f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(cause.__traceback__)[-FRAMES:]
            ],
        )


class Schema(strawberry.Schema):
    """strawberry's Schema with our error log: the stock one prints the document, literals included."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log bugs only."""
        log_errors(errors, execution_context)


def schema_options(
    *,
    production: bool,
    introspection: bool | None = None,
    limits: Limits | None = None,
    scalar_map: Mapping[object, Any] | None = None,
    once: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Keyword arguments for `Schema(query=..., **schema_options(production=...))`.

    `once`: costly root fields; an operation may have one of them, under one name.
    In production introspection (unless asked for) and the suggestions in error messages are off.
    """
    allow_introspection = not production if introspection is None else introspection
    rules: tuple[type[ASTValidationRule], ...] = () if allow_introspection else (NoSchemaIntrospectionCustomRule,)
    limits = limits or Limits()
    documents = _Documents(limits, rules, hide_suggestions=production, once=once)
    executor = type("LimitedContext", (PerEventContext,), {"operation_s": limits.operation_s})
    return {
        "extensions": [PresentErrors, lambda: CheckDocument(documents)],
        "execution_context_class": executor,
        # Not sort_schema: sorting copies the types, and strawberry 0.341.2 then finds no member of any union.
        "config": StrawberryConfig(disable_field_suggestions=production, scalar_map=dict(scalar_map or {})),
    }


def is_request_error(result: ExecutionResult) -> bool:
    """Whether nothing was executed: the answer then has no `data` and is 400 for clients of the new media type."""
    errors = result.errors or []
    return (
        result.data is None
        and bool(errors)
        and all(error.path is None and (error.extensions or {}).get("code") != "TIMEOUT" for error in errors)
    )
