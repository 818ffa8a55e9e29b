"""The root of mutations. The order of its bases is the order of fields in the SDL."""

from __future__ import annotations

import strawberry

from resolvers.mutations.account import AccountMutations
from resolvers.mutations.channels import ChannelMutations
from resolvers.mutations.contacts import ContactMutations
from resolvers.mutations.conversations import ConversationMutations
from resolvers.mutations.messages import MessageMutations
from resolvers.mutations.notifications import NotificationMutations
from resolvers.mutations.payment_requests import PaymentRequestMutations
from resolvers.mutations.payments import PaymentMutations
from resolvers.mutations.processors import ProcessorMutations
from resolvers.mutations.profile import ProfileMutations
from resolvers.mutations.sign_in import SignInMutations
from resolvers.mutations.team import TeamMutations


@strawberry.type(
    description="Writes. An expected failure is in the payload's userErrors and has changed nothing; all others are"
    " top-level errors."
)
class Mutation(
    SignInMutations,
    PaymentRequestMutations,
    PaymentMutations,
    MessageMutations,
    ConversationMutations,
    ContactMutations,
    AccountMutations,
    ProcessorMutations,
    ChannelMutations,
    NotificationMutations,
    TeamMutations,
    ProfileMutations,
):
    pass
