"""The GraphQL documents of the flow tests, as an inbox sends them."""

from __future__ import annotations

from collections.abc import Mapping

from strawberry.utils.str_converters import to_camel_case


def keys_of(kind: str, values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """A processor's credentials, by the names of its settings, as configureProcessor takes them."""
    return {kind.lower(): {to_camel_case(name): value for name, value in values.items()}}


ERRORS = "userErrors { code message field }"
ERROR_FACTS = """userErrors { __typename code message field
  ... on AmountLimitError { minimum { amount currency } maximum { amount currency } }
  ... on RefundLimitError { refundable { amount currency } }
  ... on ConflictError { current { __typename id } }
  ... on WindowClosedError { help { kind sentence channelId } }
  ... on RateLimitError { retryAfterSeconds } }"""

REQUEST_FIELDS = """
  id number status version productName description checkoutUrl processorKind testMode deliveryState sentVia voidPending
  refundState disputeState isOverdue humanViews sentAt paidAt voidedAt
  amount { amount currency minorUnits formatted } amountPaid { minorUnits } amountDue { minorUnits }
  excess { minorUnits } late { minorUnits }
  contact { id } conversation { id } lastAttempt { status declineCode message }
  refunds { id status reason amount { minorUnits } payment { id } }
  disputes { id state amount { minorUnits } reason responseDueAt openedAt closedAt }
  payments { id kind status amount { minorUnits currency } fee { minorUnits } net { minorUnits } processorKind processorReference }
  availableActions { action resultingStatus }
"""

CREATE = f"mutation($input: CreatePaymentRequestInput!) {{ createPaymentRequest(input: $input) {{ paymentRequest {{ {REQUEST_FIELDS} }} {ERRORS} }} }}"
SEND_REQUEST = f"""mutation($input: SendPaymentRequestInput!) {{ sendPaymentRequest(input: $input) {{
  paymentRequest {{ {REQUEST_FIELDS} }} message {{ id body channelKind deliveryStatus }} activityCard {{ id kind status }} {ERRORS} }} }}"""
SEND_MESSAGE = f"""mutation($input: SendMessageInput!) {{ sendMessage(input: $input) {{
  message {{ id body channelKind deliveryStatus paymentRequests {{ id status }} }} activityCards {{ id kind status paymentRequest {{ id }} }} {ERRORS} }} }}"""
RESEND = f"""mutation($input: ResendMessageInput!) {{ resendMessage(input: $input) {{
  message {{ id body channelKind deliveryStatus retryOf {{ id }} paymentRequests {{ id status }} }} {ERRORS} }} }}"""
REFUND = f"""mutation($input: RefundPaymentInput!) {{ refundPayment(input: $input) {{
  paymentRequest {{ {REQUEST_FIELDS} }} refund {{ id status }} payment {{ id kind status amount {{ minorUnits }} }}
  activityCard {{ id kind status }} message {{ id body channelKind deliveryStatus }} {ERRORS} }} }}"""
RECORD_OUTSIDE = f"""mutation($input: RecordOutsidePaymentInput!) {{ recordOutsidePayment(input: $input) {{
  paymentRequest {{ {REQUEST_FIELDS} }} payment {{ id kind status processorKind processorReference methodSummary note createdAt
  amount {{ minorUnits }} }} activityCard {{ id kind status text }} {ERRORS} }} }}"""
RESOLVE = f"""mutation($input: ResolveMismatchInput!) {{ resolveMismatch(input: $input) {{
  paymentRequest {{ id status amountPaid {{ minorUnits }} waived {{ minorUnits }} unresolved {{ minorUnits currency }} }}
  activityCard {{ id kind text }} refund {{ id status }} {ERRORS} }} }}"""
UNDO_OUTSIDE = f"""mutation($input: UndoOutsidePaymentInput!) {{ undoOutsidePayment(input: $input) {{
  paymentRequest {{ {REQUEST_FIELDS} }} payment {{ id status }} activityCard {{ id kind status text }} {ERRORS} }} }}"""
RELEASE = f"""mutation($input: ReleasePaymentLinkInput!) {{ releasePaymentLink(input: $input) {{
  paymentRequest {{ id status linkReleasedAt }} activityCard {{ id kind text }} {ERRORS} }} }}"""
VOID = f"""mutation($input: VoidPaymentRequestInput!) {{ voidPaymentRequest(input: $input) {{
  paymentRequest {{ {REQUEST_FIELDS} }} activityCard {{ id kind }} {ERRORS} }} }}"""
COPIED = f"""mutation($input: RecordLinkCopiedInput!) {{ recordLinkCopied(input: $input) {{
  paymentRequest {{ id status linkCopiedAt }} {ERRORS} }} }}"""
DISCARD = f"mutation($input: DiscardPaymentRequestInput!) {{ discardPaymentRequest(input: $input) {{ paymentRequest {{ id }} {ERRORS} }} }}"
CONFIGURE_PROCESSOR = f"""mutation($input: ConfigureProcessorInput!) {{ configureProcessor(input: $input) {{
  processor {{ id kind displayName connected testMode webhookUrl keyHint }} {ERRORS} }} }}"""
DISCONNECT_PROCESSOR = f"mutation($input: DisconnectProcessorInput!) {{ disconnectProcessor(input: $input) {{ processor {{ id connected }} {ERRORS} }} }}"
CONNECT_CHANNEL = f"mutation($input: ConnectChannelInput!) {{ connectChannel(input: $input) {{ channel {{ id kind connected }} {ERRORS} }} }}"
DISCONNECT_CHANNEL = f"mutation($input: DisconnectChannelInput!) {{ disconnectChannel(input: $input) {{ channel {{ id connected }} {ERRORS} }} }}"
CREATE_CONTACT = f"mutation($input: CreateContactInput!) {{ createContact(input: $input) {{ contact {{ id name conversation {{ id }} }} {ERRORS} }} }}"
UPDATE_ACCOUNT = f"mutation($input: UpdateAccountInput!) {{ updateAccount(input: $input) {{ account {{ id defaultCurrency }} {ERRORS} }} }}"
MARK_READ = f"mutation($input: MarkConversationReadInput!) {{ markConversationRead(input: $input) {{ conversation {{ id unreadCount }} {ERRORS} }} }}"
SAVE_DRAFT = (
    f"mutation($input: SaveDraftInput!) {{ saveDraft(input: $input) {{ conversation {{ id draft }} {ERRORS} }} }}"
)
ADD_NOTE = f"mutation($input: AddNoteInput!) {{ addNote(input: $input) {{ note {{ id body }} {ERRORS} }} }}"
TAG_CONVERSATION = f"""mutation($input: UpdateConversationTagsInput!) {{ updateConversationTags(input: $input) {{
  conversation {{ id tags }} {ERRORS} }} }}"""
ASSIGN = f"mutation($input: AssignConversationInput!) {{ assignConversation(input: $input) {{ conversation {{ id assignee {{ id }} }} {ERRORS} }} }}"
NOTIFICATIONS_READ = f"""mutation($upTo: Cursor!) {{ markNotificationsRead(input: {{ upTo: $upTo }}) {{
  viewer {{ unreadNotificationCount }} {ERRORS} }} }}"""

REQUEST = f"query($id: ID!) {{ paymentRequest(id: $id) {{ {REQUEST_FIELDS} }} }}"
COMPOSER = """query($id: ID!, $channelId: ID!) { paymentRequest(id: $id) { composerInsert(channelId: $channelId) {
  text checkoutUrl length maxLength smsSegments encoding } } }"""
DEFAULTS = "{ paymentRequestDefaults { currency currencies processorKind testMode } }"
CONVERSATIONS = (
    "{ conversations(first: 20) { nodes { id unreadCount lastActivityAt contact { id name } } eventCursor } }"
)
CHANNELS = """query($id: ID!) { conversation(id: $id) { channels { id channel { id kind provider connected } paymentRequests {
  supported enabled reason maxMessageLength windowClosesAt } } } }"""
THREAD = """query($id: ID!) { conversation(id: $id) { id eventCursor unreadCount draft thread(last: 100) { nodes {
  __typename id
  ... on Message { direction channelKind body deliveryStatus paymentRequests { id status } }
  ... on ActivityCard { kind status text paymentRequest { id status } payment { id amount { minorUnits } } } } } } }"""
CONTACT = """query($id: ID!) { contact(id: $id) { id name tags
  paymentSummary { currency testMode requested { minorUnits } outstanding { minorUnits } paid { minorUnits } net { minorUnits }
    openCount paidCount overdueCount firstPaidAt }
  paymentRequests(first: 100) { totalCount nodes { id status amount { minorUnits } } } } }"""
SETTINGS = "{ account { id name defaultCurrency paymentSettings { defaultProcessorKind processors { id kind connected webhookUrl keyHint } } } }"
NOTIFICATIONS = "{ notifications(first: 50) { eventCursor nodes { id kind title body readAt paymentRequest { id } } } }"
DASHBOARD = """{ dashboard { asOf byCurrency { currency requestsSent requested { minorUnits } paidCount paid { minorUnits }
  outstanding { minorUnits } } } }"""

_EVENT = """
  __typename
  ... on Event { cursor }
  ... on ResyncRequired { cursor reason }
"""
_ITEM = """
  ... on ThreadItemAdded { cursor conversation { id preview lastActivityAt } edge { cursor node { __typename id
    ... on Message { direction body deliveryStatus }
    ... on ActivityCard { kind status paymentRequest { id status } } } } }
  ... on PaymentRequestUpdated { cursor paymentRequestEdge { cursor } previousStatus card { id kind }
    paymentRequest { id status version amountPaid { minorUnits } deliveryState refunds { id status } } }
  ... on MessageUpdated { cursor conversation { id } message { id deliveryStatus } }
  ... on ContactUpdated { cursor contact { id paymentSummary { paid { minorUnits } outstanding { minorUnits } } } }
"""
INBOX = f"subscription($after: Cursor) {{ inboxEvents(after: $after) {{ {_EVENT} {_ITEM} ... on ConversationUpdated {{ cursor conversation {{ id unreadCount }} }} }} }}"
CONVERSATION_EVENTS = f"""subscription($id: ID!, $after: Cursor) {{ conversationEvents(conversationId: $id, after: $after) {{
  {_EVENT} {_ITEM} }} }}"""
CONTACT_EVENTS = f"""subscription($id: ID!, $after: Cursor) {{ contactPaymentEvents(contactId: $id, after: $after) {{ {_EVENT}
  ... on PaymentRequestUpdated {{ cursor paymentRequestEdge {{ cursor node {{ id }} }} paymentRequest {{ id status contact {{ id }} }} }}
  ... on ContactUpdated {{ cursor contact {{ id paymentSummary {{ paid {{ minorUnits }} }} }} }} }} }}"""
NOTIFICATION_EVENTS = f"""subscription($after: Cursor) {{ notificationEvents(after: $after) {{ {_EVENT}
  ... on NotificationAdded {{ cursor viewer {{ unreadNotificationCount }} edge {{ node {{ id kind title paymentRequest {{ id }} }} }} }}
  ... on NotificationsRead {{ cursor viewer {{ unreadNotificationCount }} }} }} }}"""
DASHBOARD_EVENTS = f"""subscription {{ dashboardEvents {{ {_EVENT}
  ... on DashboardUpdated {{ cursor figures {{ byCurrency {{ currency paidCount paid {{ minorUnits }} }} }} }} }} }}"""
FOLLOWING = """subscription($after: Cursor) { inboxEvents(after: $after) { __typename
  ... on Subscribed { cursor } ... on ConversationUpdated { cursor conversation { id following } }
  ... on ThreadItemAdded { cursor } ... on PaymentRequestUpdated { cursor } ... on MessageUpdated { cursor } ... on ContactUpdated { cursor } } }"""
FOLLOW = "mutation($input: FollowConversationInput!) { followConversation(input: $input) { conversation { id following } userErrors { code } } }"
