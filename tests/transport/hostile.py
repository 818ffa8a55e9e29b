"""Expensive documents for both GraphQL APIs, which need no credentials."""

from collections.abc import Callable

import orjson
from graphql import GraphQLSyntaxError, Lexer, Source, TokenKind

Make = Callable[[int], str]


def _fits(document: str, tokens: int) -> bool:
    lexer = Lexer(Source(document))
    try:
        return all(lexer.advance().kind is not TokenKind.EOF for _ in range(tokens)) is False
    except GraphQLSyntaxError:
        return True


def _most(make: Make, tokens: int) -> str:
    high = 2
    while _fits(make(high), tokens):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(make(middle), tokens) else (low, middle)
    return make(low)


def _nested(field: str, levels: int, leaf: str) -> str:
    return f"{{ {field} " * levels + f"{{ {leaf} }}" + " }" * levels


def _numbered(text: str, count: int) -> str:
    return " ".join(
        text.replace("#n", str(n)).replace("#m", str(n + 1)).replace("#d", str(n % 15)) for n in range(count)
    )


def _query(text: str, *, before: str = "query Q0 { ", after: str = " }") -> Make:
    return lambda n: before + _numbered(text, n) + after


def _with_fragments(start: str, text: str, end: str = "") -> Make:
    return lambda n: (
        start.replace("#spreads", _numbered("...F#n", n)) + " " + _numbered(text, n) + end.replace("#n", str(n))
    )


# Each is sent under a fresh operation name (`Q0`), so that no cache helps; each is as large as the limits let it be.
_KINDS: dict[str, Make] = {
    "one object repeated": _query("account{name}"),
    "one leaf repeated": _query("__typename"),
    "one leaf of an object repeated": _query("name", before="query Q0 { account { ", after=" } }"),
    "two levels repeated": _query("account{paymentSettings{defaultProcessorKind}}"),
    "three levels repeated": _query("account{paymentSettings{processors{id kind} processors{id}}}"),
    "repeated in repeated": _query("account{" + "paymentSettings{defaultProcessorKind} " * 10 + "}"),
    "an object repeated under aliases": _query("a#d: account{name}"),
    "few objects repeated": _query("account{name} viewer{role}"),
    "one name for two fields": _query("x: account{name} account{name}"),
    "conflicts below a field": _query("account{name: id} account{name}"),
    "arguments that differ": _query("contact(id: #n) {id}"),
    "large arguments that are equal": _query(
        'contacts(filter: {tags: ["a", "b", "c", "d", "e", "f", "g"]}) {totalCount}'
    ),
    "inline fragments repeated": _query("...{account{name}}"),
    "typed inline fragments repeated": _query("...on Query{account{name}}"),
    "abstract types repeated": _query(
        "...on Contact{id name} ...on Account{id name} ...on Conversation{id}",
        before="query Q0 { node(id: 1) { ",
        after=" } }",
    ),
    "fragments beside each other": _with_fragments("query Q0 { #spreads }", "fragment F#n on Query { account{name} }"),
    "small fragments beside each other": _with_fragments(
        "query Q0 { #spreads }", "fragment F#n on Query { __typename }"
    ),
    "fragments in a chain": _with_fragments(
        "query Q0 { ...F0 }", "fragment F#n on Query { account{name} ...F#m }", " fragment F#n on Query { __typename }"
    ),
    "fragments that double": _with_fragments(
        "query Q0 { ...F0 }", "fragment F#n on Query { ...F#m ...F#m }", " fragment F#n on Query { __typename }"
    ),
    "fragments that double below a field": _with_fragments(
        "query Q0 { __schema { types { ...F0 } } }",
        "fragment F#n on __Type { ofType { ...F#m } ofType { ...F#m } }",
        " fragment F#n on __Type { name }",
    ),
    "fragments on members that multiply": _with_fragments(
        "query Q0 { __schema { types { ...F0 } } }",
        "fragment F#n on __Type { fields { type { ...F#m } } possibleTypes { ...F#m } }",
        " fragment F#n on __Type { name }",
    ),
    "one introspection field repeated": _query(
        "ofType{name}", before="query Q0 { __schema { queryType { ", after=" } } }"
    ),
    "all fragments spread in all": lambda n: (
        "query Q0 { ...F0 } "
        + " ".join(f"fragment F{k} on Query {{ account{{name}} {_numbered('...F#n', n)} }}" for k in range(n))
    ),
    "fragments without a cycle, all in all": lambda n: (
        "query Q0 { ...F0 } "
        + " ".join(
            f"fragment F{k} on Query {{ account{{name}} {' '.join(f'...F{m}' for m in range(k + 1, n))} }}"
            for k in range(n)
        )
    ),
    "unused fragments": _with_fragments("query Q0 { __typename }", "fragment F#n on Query { account{name} }"),
    "a circle of fragments": _with_fragments(
        "query Q0 { ...F0 }", "fragment F#n on Query { ...F#m }", " fragment F#n on Query { ...F0 }"
    ),
    "fragments of one name": _with_fragments("query Q0 { ...F0 }", "fragment F0 on Query { account{name} }"),
    "many operations": _query("query Q#n { account{name} }", before="", after=""),
    "many operations with variables": _query(
        "query Q#n($a: ID!, $b: ID!) { ...F0 }",
        before="",
        after=" fragment F0 on Query { " + "contact(id: $a) {id} " * 15 + "}",
    ),
    "operations times fragments": _query(
        "query Q#n($a: ID!) { ...F#n } fragment F#n on Query { contact(id: $a) { id } ...F#m }",
        before="",
        after=" fragment F39 on Query { __typename }",
    ),
    "many variables": _query("$v#n: ID!", before="query Q0(", after=") { __typename }"),
    "a variable used often": _query("$a", before="query Q0($a: Int) { contact(id: [", after="]) { id } }"),
    "variables that are not defined": _query("$v#n", before="query Q0 { contact(id: [", after="]) { id } }"),
    "unknown fields": _query("acount#n"),
    "unknown fields near known ones": _query("paymentReqests#n"),
    "unknown types": _query("...on PaymentReqest#n{id}"),
    "unknown types of variables": _query("$v#n: PaymentReqestInput#n", before="query Q0(", after=") { __typename }"),
    "unknown arguments": _query("frst#n: 1", before="query Q0 { contacts(", after=") { totalCount } }"),
    "unknown input fields": _query(
        "nme#n: 1", before="mutation Q0 { createContact(input: {", after="}) { contact { id } } }"
    ),
    "unknown enum values": _query(
        "SENTT#n", before="query Q0 { paymentRequests(filter: {status: [", after="]}) { totalCount } }"
    ),
    "input fields of one name": _query(
        "name: 1", before="mutation Q0 { createContact(input: {", after="}) { contact { id } } }"
    ),
    "unknown directives": _query("account @skp#n {name}"),
    "many directives": _query("account @include(if: true) @skip(if: false) {name}"),
    "directives on one field": _query("@include(if: true)", before="query Q0 { account ", after=" {name} }"),
    "aliases": _query("a#n: account {name}"),
    "deep fields": lambda n: "query Q0 " + _nested("account", n, "name"),
    "deep inline fragments": lambda n: "query Q0 " + _nested("...", n, "__typename"),
    "deep lists": lambda n: "query Q0 { contact(id: " + "[" * n + "]" * n + ") { id } }",
    "deep objects": lambda n: "query Q0 { contact(id: " + "{a:" * n + "1" + "}" * n + ") { id } }",
    "deep list types": lambda n: "query Q0($a: " + "[" * n + "Int" + "]" * n + ") { __typename }",
    "a wide list": _query("1", before="query Q0 { contact(id: [", after="]) { id } }"),
    "many ids": _query("1", before="query Q0 { nodes(ids: [", after="]) { id } }"),
    "long names of fields": _query("account" + "x" * 110 + "#n"),
    "names of fields as long as possible": _query("account" + "x" * 1_000 + "#n"),
    "a subscription of many fields": _query("inboxEvents(after: 1){__typename}", before="subscription Q0 { "),
    "types beside operations": _query("type A { a: Int }", before="query Q0 { __typename } ", after=""),
    "descriptions": _query(
        '"""b""" fragment F on Query { __typename }', before='"a" query Q0 { __typename } ', after=""
    ),
    "lines and many errors": _query("x#n", before="query Q0 { " + "\n" * 1_990),
    "lines and one error with many places": _query("account{name}", before="query Q0 { " + "\n" * 1_990),
    "lines and an error for each root": _query(
        "a#d: account{name} b: viewer{role} users{id} contacts{totalCount} conversations{totalCount}"
        " contact(id: 1){id} conversation(id: 1){id} dashboard{asOf} node(id: 1){id} nodes(ids: [1]){id}",
        before="query Q0 { " + "\n" * 1_990,
    ),
    "introspection under aliases": _query("a#n: __schema { types { fields { name args { name } } } }"),
    "all types under aliases": _query("a#d: __schema { types { name } }"),
    "one type under aliases": _query('a#d: __type(name: "Query") { fields { type { fields { name } } } }'),
}

# Their size is in the text, not in its tokens.
_TEXTS: dict[str, str] = {
    "a long name": "query Q0 { " + "a" * 65_000 + " }",
    "a long operation name": "query Q0" + "a" * 65_000 + " { account{name} }",
    "a long integer": "query Q0 { contacts(first: " + "9" * 65_000 + ") { totalCount } }",
    "a long fraction": "query Q0 { contacts(first: 1." + "9" * 65_000 + ") { totalCount } }",
    "a large exponent": "query Q0 { contacts(first: 1e" + "9" * 65_000 + ") { totalCount } }",
    "many long integers": "query Q0 { contacts(first: [" + ("9" * 4_000 + " ") * 30 + "]) { totalCount } }",
    "a long integer where text belongs": "query Q0 { contact(id: " + "9" * 65_000 + ") { id } }",
    "a long string": 'query Q0 { contact(id: "' + "a" * 65_000 + '") { id } }',
    "a string of escapes": 'query Q0 { contact(id: "' + "\\u0041" * 10_000 + '") { id } }',
    "a string of wide escapes": 'query Q0 { contact(id: "' + "\\u{1F600}" * 6_500 + '") { id } }',
    "a string that does not end": 'query Q0 { contact(id: "' + "\\n" * 32_000,
    "a block string of lines": 'query Q0 { contact(id: """' + "\n" * 65_000 + '""") { id } }',
    "a block string of indents": 'query Q0 { contact(id: """' + " \n" * 32_000 + 'a""") { id } }',
    "a block string of quotes": 'query Q0 { contact(id: """' + '\\"""' * 15_000 + '""") { id } }',
    "commas": "query Q0 { " + "," * 65_000 + " account{name} }",
    "blanks": "query Q0 { " + " " * 65_000 + " account{name} }",
    "lines": "query Q0 { " + "\n" * 65_000 + " account{name} }",
    "lines of two characters": "query Q0 { " + "\r\n" * 32_000 + " account{name} }",
    "comments": "query Q0 { " + "#\n" * 32_000 + " account{name} }",
    "one comment": "query Q0 { #" + "x" * 65_000 + "\n account{name} }",
    "lines and an error at the end": "query Q0 { " + "\n" * 65_000 + " account{name} ",
    "bytes that are not characters": "query Q0 { " + "\u0000\u0001\ufffe" * 10_000 + " }",
    "wide characters": "query Q0 { #" + "\U0001f600" * 15_000 + "\n account{name} }",
    "introspection": "query Q0 { __schema { types { name description fields(includeDeprecated: true) { name description"
    " args(includeDeprecated: true) { name description type { ...T } defaultValue } type { ...T } }"
    " inputFields { name description type { ...T } }"
    " interfaces { ...T } enumValues { name description } possibleTypes { ...T } } directives { name description"
    " args { name type { ...T } } } } } fragment T on __Type { kind name ofType { kind name ofType { kind name"
    " ofType { kind name ofType { kind name } } } } }",
    "introspection in a circle": "query Q0 { __schema { types { fields { type { fields { type { fields { type { name } } } } } } } } }",
    "introspection of all types by all types": "query Q0 { __schema { types { possibleTypes { fields { name description"
    " type { name } args { name type { name ofType { name } } } } } } } }",
    "arguments of all fields of all types": "query Q0 { __schema { types { fields { args { type { fields { name }"
    " inputFields { name type { name } } } } type { fields { name } } } } } }",
    "every field of every type": "query Q0 { __schema { types { fields { name description isDeprecated deprecationReason"
    " type { name kind description } args { name description defaultValue } } } } }",
    "all members of one type": 'query Q0 { a: __type(name: "Mutation") { fields { name args { type { ofType { inputFields'
    " { name type { name } } } } } type { ofType { fields { name type { name fields { name } } } } } } } }",
    "as many lines as are allowed": "query Q0 { " + "\n" * 1_990 + " account{name} }",
    "many more lines": "query Q0 { " + "\r" * 60_000 + " account{name} }",
}


def documents(tokens: int) -> dict[str, str]:
    """Every kind, as large as `tokens` allows."""
    return {**{name: _most(make, tokens) for name, make in _KINDS.items()}, **_TEXTS}


def _body(**fields: object) -> bytes:
    return orjson.dumps({"query": "query Q0 { __typename }", **fields})


# Bodies whose cost is not in the document.
BODIES: dict[str, bytes] = {
    "deep JSON": b'{"query": "{ __typename }", "variables": ' + b'{"a":' * 1_000 + b"1" + b"}" * 1_000 + b"}",
    "deeper JSON": b'{"query": "{ __typename }", "variables": {"a": ' + b"[" * 60_000 + b"]" * 60_000 + b"}}",
    "many keys of JSON": b'{"query": "{ __typename }", ' + b", ".join(b'"k%d": 1' % n for n in range(10_000)) + b"}",
    "many undeclared variables": _body(variables={f"v{n}": n for n in range(10_000)}),
    "a long number of JSON": b'{"query": "{ __typename }", "variables": {"a": ' + b"9" * 120_000 + b"}}",
    "many numbers of JSON": b'{"query": "{ __typename }", "variables": {"a": [' + b"1," * 60_000 + b"1]}}",
    "a wide list of ids": _body(
        query="query Q0($a: [ID!]!) { nodes(ids: $a) { id } }", variables={"a": ["1"] * 30_000}
    ),
    "a wide list of wrong ids": _body(
        query="query Q0($a: [ID!]!) { nodes(ids: $a) { id } }", variables={"a": [None] * 24_000}
    ),
    "a wide list of wrong numbers": _body(
        query="query Q0($a: [Int!]!) { contact(id: $a) { id } }", variables={"a": ["x"] * 30_000}
    ),
    "an input with many unknown fields": _body(
        query="mutation Q0($i: CreateContactInput!) { createContact(input: $i) { contact { id } } }",
        variables={"i": {f"nam{n}": 1 for n in range(8_000)}},
    ),
    "an input of many inputs": _body(
        query="mutation Q0($i: CreateContactInput!) { createContact(input: $i) { contact { id } } }",
        variables={"i": {"name": "a", "addresses": [{"knd": 1, "adress": 2}] * 5_000}},
    ),
    "a variable that is a long text": _body(
        query="query Q0($a: ID!) { contact(id: $a) { id } }", variables={"a": "x" * 120_000}
    ),
    "a text where a number belongs": _body(
        query="query Q0($a: Int) { contacts(first: $a) { totalCount } }", variables={"a": "9" * 120_000}
    ),
    "a long number where a small one belongs": b'{"query": "query Q0($a: Int) { contacts(first: $a) { totalCount } }",'
    b' "variables": {"a": 1' + b"0" * 300 + b"}}",
    "a date of many digits": _body(
        query="query Q0($a: DateTime) { contacts(first: $a) { totalCount } }", variables={"a": "2" * 120_000}
    ),
    "extensions": _body(extensions={f"k{n}": [n] for n in range(8_000)}),
    "an operation name of 100 kB": _body(operationName="Q" * 110_000),
    "many operations in a batch": orjson.dumps([{"query": "{ __typename }"}] * 3_000),
    "not JSON": b"[" * 120_000,
    "not text": b"\xff" * 120_000,
}
