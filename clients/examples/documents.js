// The screens of an inbox and the feeds that keep them current, as every example but Relay's uses them.
const REQUEST = `id number status productName amount { amount currency formatted } amountDue { amount currency formatted }
  deliveryState refundState isOverdue createdAt discardedAt contact { id }`;
const MESSAGE = `direction body deliveryStatus`;
const ITEM = `id occurredAt ... on Message { ${MESSAGE} }
  ... on ActivityCard { kind text paymentRequest { ${REQUEST} } }`;
const ROW = `id preview lastActivityAt unreadCount contact { id name }`;
const TOTALS = `currency testMode openCount paidCount outstanding { amount currency formatted } paid { amount currency formatted }`;
const NOTICE = `id title body readAt createdAt`;
const FIGURES = `id asOf byCurrency { currency testMode requestsSent paidCount paid { amount currency formatted } }`;

export const screens = {
  inbox: `query Inbox { conversations(first: 20) { eventCursor pageInfo { hasNextPage } edges { cursor node { ${ROW} } } } }`,
  thread: `query Thread($id: ID!) { conversation(id: $id) { id contact { id name }
    thread(last: 20) { pageInfo { hasPreviousPage startCursor } edges { cursor node { ${ITEM} } } } } }`,
  payments: `query Payments($id: ID!) { contact(id: $id) { id paymentSummary { ${TOTALS} }
    paymentRequests(first: 20) { totalCount pageInfo { hasNextPage } edges { cursor node { ${REQUEST} } } } } }`,
  unpaid: `query Unpaid { paymentRequests(first: 20, filter: { status: [SENT, PARTIALLY_PAID] }) {
    edges { cursor node { ${REQUEST} } } } }`,
  ledger: `query Ledger($id: ID!) { contact(id: $id) { id payments(first: 20) {
    edges { cursor node { id kind status createdAt amount { amount currency formatted } } } } } }`,
  bell: `query Bell { viewer { id unreadNotificationCount } notifications(first: 20) { edges { cursor node { ${NOTICE} } } } }`,
  dashboard: `query Dashboard { dashboard { ${FIGURES} } }`,
};

export const feeds = {
  inbox: `subscription InboxFeed($after: Cursor) { inboxEvents(after: $after) { ... on Event { cursor }
    ... on ThreadItemAdded { conversation { ${ROW} } edge { cursor node { ${ITEM} } } }
    ... on MessageUpdated { message { id ${MESSAGE} } conversation { ${ROW} } }
    ... on PaymentRequestUpdated { paymentRequest { ${REQUEST} } paymentRequestEdge { cursor node { ${REQUEST} } } }
    ... on ConversationUpdated { conversation { ${ROW} } }
    ... on ContactUpdated { contact { id name createdAt paymentSummary { ${TOTALS} } } }
    ... on ContactMerged { mergedContactId mergedConversationId conversation { ${ROW} }
      contact { id name createdAt paymentSummary { ${TOTALS} } } } } }`,
  bell: `subscription BellFeed($after: Cursor) { notificationEvents(after: $after) { ... on Event { cursor }
    ... on NotificationAdded { viewer { id unreadNotificationCount } edge { cursor node { ${NOTICE} } } }
    ... on NotificationsRead { viewer { id unreadNotificationCount } } } }`,
  dashboard: `subscription DashboardFeed { dashboardEvents { ... on Event { cursor }
    ... on DashboardUpdated { figures { ${FIGURES} } } } }`,
};
