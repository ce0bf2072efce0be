"""Group commit in small worlds: a replica takes several requests that have reached it, in any order, into one synced write.

Most groups are equivalent to their requests one after the other, in some order: the same store, and the same replies. A world
takes those single steps anyway. Between them it takes other steps, such as answering a client, so that an operation that begins
later is owed more: what is right after single steps is right after the group too. So only the *odd* groups, with a different
outcome, are steps of their own. The real code has odd groups only in what replicas know of settled records.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import combinations_with_replacement, permutations
from typing import Final

#: The numbers of requests, in the order in which the replica takes them.
Group = tuple[int, ...]
#: The effect of a group on a store: the store afterwards, and the replies in the order of the requests.
Handled = Callable[[int, Group], tuple[int, Group]]

#: The most requests in a group, unless the scope sets another limit.
MOST: Final = 3


def odd_groups(handled: Handled, store: int, requests: Collection[int], most: int) -> Iterator[Group]:
    """Yields the groups of up to ``most`` requests whose outcome no order of single requests has.

    A group may contain a request twice: the network repeats messages, and two clients may ask for the same.
    """
    for size in range(2, most + 1):
        for some in combinations_with_replacement(requests, size):
            orders = sorted(set(permutations(some)))
            usual = [_one_by_one(handled, store, order) for order in orders]
            yield from (order for order in orders if _outcome(order, *handled(store, order)) not in usual)


def _one_by_one(handled: Handled, store: int, order: Group) -> tuple[int, Counter[tuple[int, int]]]:
    replies = []
    for request in order:
        store, (reply,) = handled(store, (request,))
        replies.append(reply)
    return _outcome(order, store, tuple(replies))


def _outcome(order: Group, store: int, replies: Group) -> tuple[int, Counter[tuple[int, int]]]:
    """The outcome, comparable between different orders."""
    return store, Counter(zip(order, replies, strict=True))
