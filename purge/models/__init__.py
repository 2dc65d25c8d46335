"""Customers, what hangs off them, and the users who sign in."""

from purge.models.activity import Device, EmailSent, NpsAnswer, ShareLink, Tag, TeamNote, TimelineEvent
from purge.models.customers import Address, Customer
from purge.models.programme import Order, Referral, Reward, RewardStatus
from purge.models.users import Role, User

__all__ = [
    "Address",
    "Customer",
    "Device",
    "EmailSent",
    "NpsAnswer",
    "Order",
    "Referral",
    "Reward",
    "RewardStatus",
    "Role",
    "ShareLink",
    "Tag",
    "TeamNote",
    "TimelineEvent",
    "User",
]
