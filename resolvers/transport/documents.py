"""Documents: limited, parsed and validated once, then cached."""

from collections import OrderedDict
from collections.abc import Iterator, Set
from typing import Final

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    get_operation_ast,
    parse,
)
from graphql.validation import ASTValidationRule, validate
from graphql.validation.rules import overlapping_fields_can_be_merged
from graphql.validation.validate import ValidationAbortedError
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from resolvers.transport.document_size import measure, refuse_repeated, refuse_too_complex, too_complex
from resolvers.transport.introspection import asks_too_much
from resolvers.transport.limits import Limits

# The rule compares each pair of fields with the same response name, so its cost grows quadratically. A field repeated 100
# times, or 30 fragments on one type with the same fields, stay below this budget, which takes at most 30 ms.
overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 10_000

CACHED_DOCUMENTS: Final = 256
LONGEST_CACHED: Final = 16_384


class Documents:
    """Caches the documents of signed-in clients."""

    # Anonymous documents are not cached: the garbage collector walks all cached nodes, which would end up taking seconds.

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
        self.accepted: OrderedDict[str, DocumentNode] = OrderedDict()  # text -> document, least recently used first

    def parse(self, query: str) -> DocumentNode | None:
        """None for a syntax error."""
        if (known := self.accepted.get(query)) is not None:
            self.accepted.move_to_end(query)
            return known
        try:
            return parse(query, max_tokens=self.limits.tokens)
        except (GraphQLSyntaxError, RecursionError):
            return None

    def cost(self, schema: GraphQLSchema, query: str) -> int | None:
        """Of the document, as it is compared with the limit; None if it is too long or no GraphQL."""
        document = self.parse(query) if self.refuse_too_long(query) is None else None
        return measure(schema, document).cost if document is not None else None

    def refuse_too_long(self, query: str) -> GraphQLError | None:
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
        """`keep`: cache a valid document."""
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
        # Before the standard rules: some take seconds on a hostile document.
        refusal = refuse_too_complex(measure(schema, document), self.limits) or refuse_repeated(document, self.once)
        if refusal is None and asks_too_much(schema, document):
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
    def __init__(self, documents: Documents) -> None:
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
            # strawberry would run the first one.
            context.pre_execution_errors = [GraphQLError("Name the operation to run: operationName.")]
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


def is_subscription(query: str | None, operation_name: str | None) -> bool:
    try:
        operation = get_operation_ast(parse(query or ""), operation_name)
    except GraphQLError:
        return False
    return operation is not None and operation.operation is OperationType.SUBSCRIPTION
