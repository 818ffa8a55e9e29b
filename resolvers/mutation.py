"""The root of mutations. The order of its bases is the order of fields in the SDL."""

from __future__ import annotations

from typing import Final

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
from resolvers.mutations.sandbox import SandboxMutations
from resolvers.mutations.sign_in import SignInMutations
from resolvers.mutations.team import TeamMutations
from resolvers.mutations.views import ViewMutations

DESCRIPTION: Final = "Writes. An expected failure is in the payload's userErrors and has changed nothing; all others are top-level errors."


@strawberry.type(description=DESCRIPTION)
class Mutation(
    SignInMutations,
    ProfileMutations,
    TeamMutations,
    AccountMutations,
    ProcessorMutations,
    ChannelMutations,
    ContactMutations,
    ConversationMutations,
    MessageMutations,
    PaymentRequestMutations,
    PaymentMutations,
    ViewMutations,
    NotificationMutations,
):
    pass


@strawberry.type(name="Mutation", description=DESCRIPTION)
class MutationWithSandbox(Mutation, SandboxMutations):
    pass
