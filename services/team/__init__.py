"""The team: invitations, passwords, profiles, and what disabling a user frees."""
