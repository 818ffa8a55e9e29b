"""The schema class and its options: limits, error log, execution."""

from collections.abc import Mapping, Set
from typing import Any

import strawberry
from graphql import (
    GraphQLArgument,
    GraphQLError,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
)
from graphql.validation import ASTValidationRule, NoSchemaIntrospectionCustomRule
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from resolvers.transport.documents import CheckDocument, Documents
from resolvers.transport.errors import PresentErrors, log_errors
from resolvers.transport.executor import PerEventContext, PlannedExecution
from resolvers.transport.limits import Limits


class Schema(strawberry.Schema):
    """strawberry's own error log writes the document with its literals; this one does not."""

    plans: PlannedExecution | None = None

    def __init__(self, *args: Any, documents: Documents, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _omit_null_defaults(self._schema)
        self.documents = documents

    def use(self, plans: PlannedExecution) -> None:
        """Execute what has a plan with it."""
        self.plans = plans
        executor: Any = self.execution_context_class
        executor.plans = plans

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        log_errors(errors, execution_context)


def _omit_null_defaults(schema: GraphQLSchema) -> None:
    """Drop defaults of null. What is left out then gets the Python default, which is None, too."""
    for kind in schema.type_map.values():
        inputs: list[GraphQLArgument | GraphQLInputField] = []
        if isinstance(kind, GraphQLInputObjectType):
            inputs = list(kind.fields.values())
        elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            inputs = [argument for field in kind.fields.values() for argument in field.args.values()]
        for given in inputs:
            if given.default_value is None:
                given.default_value = Undefined


def schema_options(
    *,
    production: bool,
    introspection: bool | None = None,
    limits: Limits | None = None,
    scalar_map: Mapping[object, Any] | None = None,
    once: Set[str] = frozenset(),
) -> dict[str, Any]:
    """`once`: costly root fields, allowed once per operation."""
    allow_introspection = not production if introspection is None else introspection
    rules: tuple[type[ASTValidationRule], ...] = () if allow_introspection else (NoSchemaIntrospectionCustomRule,)
    limits = limits or Limits()
    documents = Documents(limits, rules, hide_suggestions=production, once=once)
    executor = type("LimitedContext", (PerEventContext,), {"operation_s": limits.operation_s})
    return {
        "documents": documents,
        "extensions": [PresentErrors, lambda: CheckDocument(documents)],
        "execution_context_class": executor,
        # No sort_schema: it copies the types, and strawberry 0.341.2 then finds no union member.
        "config": StrawberryConfig(disable_field_suggestions=production, scalar_map=dict(scalar_map or {})),
    }
