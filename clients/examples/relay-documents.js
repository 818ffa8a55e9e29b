// The screens and feeds of documents.js for Relay's compiler: operations are named after their file, fragments say `mask: false`
// so that one object has all of a screen. In an application each component has its fragment.
import relay from "relay-runtime";

const { graphql } = relay;

graphql`fragment relayDocuments_request on PaymentRequest { id number status productName amount { amount currency formatted }
  amountDue { amount currency formatted } deliveryState refundState isOverdue createdAt discardedAt contact { id } }`;
graphql`fragment relayDocuments_item on ThreadItem { __typename id occurredAt ... on Message { direction body deliveryStatus }
  ... on ActivityCard { kind text paymentRequest { ...relayDocuments_request @relay(mask: false) } } }`;
graphql`fragment relayDocuments_row on Conversation { id preview lastActivityAt unreadCount contact { id name } }`;
graphql`fragment relayDocuments_totals on ContactPaymentSummary { currency testMode openCount paidCount
  outstanding { amount currency formatted } paid { amount currency formatted } }`;
graphql`fragment relayDocuments_notice on Notification { id title body readAt createdAt }`;
graphql`fragment relayDocuments_figures on DashboardFigures { id asOf
  byCurrency { currency testMode requestsSent paidCount paid { amount currency formatted } } }`;

export const screens = {
  inbox: graphql`query relayDocumentsInboxQuery { conversations(first: 20) @connection(key: "Inbox_conversations") { eventCursor
    pageInfo { hasNextPage } edges { cursor node { ...relayDocuments_row @relay(mask: false) } } } }`,
  thread: graphql`query relayDocumentsThreadQuery($id: ID!) { conversation(id: $id) { id contact { id name }
    thread(last: 20) @connection(key: "Thread_thread") { pageInfo { hasPreviousPage startCursor }
      edges { cursor node { ...relayDocuments_item @relay(mask: false) } } } } }`,
  payments: graphql`query relayDocumentsPaymentsQuery($id: ID!) { contact(id: $id) { id
    paymentSummary { ...relayDocuments_totals @relay(mask: false) }
    paymentRequests(first: 20) @connection(key: "Payments_paymentRequests") { totalCount pageInfo { hasNextPage }
      edges { cursor node { ...relayDocuments_request @relay(mask: false) } } } } }`,
  unpaid: graphql`query relayDocumentsUnpaidQuery { paymentRequests(first: 20, filter: { status: [SENT, PARTIALLY_PAID] })
    @connection(key: "Unpaid_paymentRequests") { edges { cursor node { ...relayDocuments_request @relay(mask: false) } } } }`,
  ledger: graphql`query relayDocumentsLedgerQuery($id: ID!) { contact(id: $id) { id payments(first: 20)
    @connection(key: "Ledger_payments") { edges { cursor node { id kind status createdAt amount { amount currency formatted } } } } } }`,
  bell: graphql`query relayDocumentsBellQuery { viewer { id unreadNotificationCount }
    notifications(first: 20) @connection(key: "Bell_notifications") {
      edges { cursor node { ...relayDocuments_notice @relay(mask: false) } } } }`,
  dashboard: graphql`query relayDocumentsDashboardQuery { dashboard { ...relayDocuments_figures @relay(mask: false) } }`,
};

export const feeds = {
  inbox: graphql`subscription relayDocumentsInboxSubscription($after: Cursor) { inboxEvents(after: $after) {
    __typename ... on Event { cursor }
    ... on ThreadItemAdded { conversation { ...relayDocuments_row @relay(mask: false) }
      edge { cursor node { ...relayDocuments_item @relay(mask: false) } } }
    ... on MessageUpdated { message { ...relayDocuments_item @relay(mask: false) }
      conversation { ...relayDocuments_row @relay(mask: false) } }
    ... on PaymentRequestUpdated { paymentRequest { ...relayDocuments_request @relay(mask: false) }
      paymentRequestEdge { cursor node { ...relayDocuments_request @relay(mask: false) } } }
    ... on ConversationUpdated { conversation { ...relayDocuments_row @relay(mask: false) } }
    ... on ContactUpdated { contact { id name createdAt paymentSummary { ...relayDocuments_totals @relay(mask: false) } } }
    ... on ContactMerged { mergedContactId mergedConversationId conversation { ...relayDocuments_row @relay(mask: false) }
      contact { id name createdAt paymentSummary { ...relayDocuments_totals @relay(mask: false) } } } } }`,
  bell: graphql`subscription relayDocumentsBellSubscription($after: Cursor) { notificationEvents(after: $after) {
    __typename ... on Event { cursor }
    ... on NotificationAdded { viewer { id unreadNotificationCount }
      edge { cursor node { ...relayDocuments_notice @relay(mask: false) } } }
    ... on NotificationsRead { viewer { id unreadNotificationCount } } } }`,
  dashboard: graphql`subscription relayDocumentsDashboardSubscription { dashboardEvents { __typename ... on Event { cursor }
    ... on DashboardUpdated { figures { ...relayDocuments_figures @relay(mask: false) } } } }`,
};
