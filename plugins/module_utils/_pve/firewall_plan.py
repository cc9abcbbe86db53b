# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fewest calls that make one list of firewall rules another. Pure.

PVE puts every new rule at position 0 whatever it is told, and moves a rule in front of the one that is at `moveto`
before the move (pve-firewall's PVE/API2/Firewall/Rules.pm). So a new rule costs one call above all rules that stay
where they are, and two below; moving, rewriting and deleting one cost one each.
"""

from __future__ import annotations

import heapq
import ipaddress
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

FIELDS = (
    "type",
    "action",
    "macro",
    "proto",
    "source",
    "dest",
    "sport",
    "dport",
    "iface",
    "icmp-type",
    "log",
    "comment",
    "enable",
)
# States the search may look at before the best of the simple plans is taken; a second's work at the most.
SEARCH_STATES = 15_000

Rule = Mapping[str, Any]
Content = tuple[str, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Insert:
    """Lands at position 0."""

    rule: Rule


@dataclass(frozen=True)
class Move:
    """In front of the rule that is at `to` before the move; behind all when `to` is their number."""

    pos: int
    to: int


@dataclass(frozen=True)
class Update:
    pos: int
    values: Rule
    delete: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Delete:
    pos: int


Op = Union[Insert, Move, Update, Delete]  # noqa: UP007 - pylint does not take classes for operands


def content(rule: Rule) -> Content:
    """What a rule says, field by field, however it is written: two rules with the same content do the same."""
    return tuple(_canonical(name, rule.get(name)) for name in FIELDS)


def simulate(rules: Sequence[Rule], op: Op) -> list[Rule]:
    """The list that PVE makes of `rules`."""
    after = list(rules)
    match op:
        case Insert(rule):
            after.insert(0, rule)
        case Move(pos, to):
            rule = after.pop(pos)
            after.insert(to if to <= pos else to - 1, rule)
        case Update(pos, values, delete):
            after[pos] = {name: value for name, value in {**after[pos], **values}.items() if name not in delete}
        case Delete(pos):
            del after[pos]
    return after


def plan_rules(present: Sequence[Rule], wanted: Sequence[Rule]) -> list[Op]:
    """The calls that make `wanted` of `present`, in the order in which they are to be made.

    Their number is the smallest there is, unless the lists differ by so much that finding it would take too long.
    Rules are put right from the bottom to the top, a new one moved to its place at once; what is superfluous goes last.
    So nothing that is wanted and there already is missing in between.
    """
    numbers: dict[Content, int] = {}
    have = [numbers.setdefault(content(rule), len(numbers)) for rule in present]
    want = [numbers.setdefault(content(rule), len(numbers)) for rule in wanted]
    if have == want:
        return []
    # What is equal at the end stays. At the top that may cost more: see _assign.
    below = _common(reversed(have), reversed(want))
    present, have = present[: len(have) - below], have[: len(have) - below]
    wanted, want = wanted[: len(want) - below], want[: len(want) - below]
    # To give up a pair at the top costs a move, and spares a call for each new rule at the most.
    new = (Counter(want) - Counter(have)).total()
    assignment = min(
        (
            _assign(have, want, pairs[first:])
            for pairs in _simple(have, want)
            for first in range(min(len(pairs), new) + 1)
        ),
        key=lambda candidate: candidate.calls,
    )
    better = _Search(have, want).pairs(below=assignment.calls)
    if better is not None:
        assignment = _assign(have, want, better)
    return _operations(present, wanted, assignment)


def _canonical(name: str, value: Any) -> str:
    text = "" if value is None else str(value).strip()
    if name == "enable":
        return "0" if text in ("", "0", "False") else "1"
    if name == "log":
        return "" if text == "nolog" else text
    if name == "action":
        # the name of a group, in a rule of a guest, is no word of PVE's
        return text.upper() if text.upper() in ("ACCEPT", "DROP", "REJECT") else text
    if name in ("proto", "macro"):
        return text.lower()
    if name in ("sport", "dport"):
        return ",".join(sorted(text.replace(" ", "").split(",")))
    if name in ("source", "dest"):
        return ",".join(sorted(map(_address, text.split(","))))
    return text


def _address(text: str) -> str:
    text = text.strip()
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return text if text.startswith("+") else text.lower()  # PVE does not tell aliases apart by case


# ------------------------------------------------------------------------------ which rule becomes which


@dataclass(frozen=True)
class _Assignment:
    """sources: of each wanted rule the present one that becomes it, None for a new one. kept: those that stay in place.
    unused: the present ones that go."""

    sources: list[int | None]
    kept: frozenset[int]
    unused: list[int]
    calls: int

    @property
    def first_kept(self) -> int:
        return min(self.kept, default=len(self.sources))


def _assign(have: Sequence[int], want: Sequence[int], pairs: Sequence[Pair]) -> _Assignment:
    """The best that can be made of these `pairs` (present, wanted), ascending, which stay in place."""
    sources: list[int | None] = [None] * len(want)
    for present, wanted in pairs:
        sources[wanted] = present
    kept = frozenset(wanted for _present, wanted in pairs)
    first = min(kept, default=len(want))
    equal: defaultdict[int, deque[int]] = defaultdict(deque)
    for present in sorted(set(range(len(have))) - {present for present, _wanted in pairs}):
        equal[have[present]].append(present)
    # Below the first that stays, a new rule takes two calls: what is there already is used there first.
    open_ones = sorted(set(range(len(want))) - kept, key=lambda index: (index < first, index))
    for wanted in open_ones:
        if equal[want[wanted]]:
            sources[wanted] = equal[want[wanted]].popleft()
    free = deque(sorted(itertools.chain.from_iterable(equal.values())))
    for wanted in open_ones:
        if wanted > first and sources[wanted] is None and free:
            sources[wanted] = free.popleft()
    calls = len(free)
    for wanted, source in enumerate(sources):
        if source is None:
            calls += 1 if wanted < first else 2
        else:
            calls += (wanted not in kept) + (have[source] != want[wanted])
    return _Assignment(sources, kept, list(free), calls)


def _operations(present: Sequence[Rule], wanted: Sequence[Rule], assignment: _Assignment) -> list[Op]:
    ops: list[Op] = []
    line = list(range(len(present)))  # the rules by number; a new one has that of its place, counted on from the old
    places = [len(line) + index if source is None else source for index, source in enumerate(assignment.sources)]
    for index in reversed(range(len(wanted))):
        number, source = places[index], assignment.sources[index]
        if source is None:
            ops.append(Insert(wanted[index]))
            line.insert(0, number)
        if index not in assignment.kept and not (source is None and index < assignment.first_kept):
            pos = line.index(number)
            to = line.index(places[index + 1]) if index + 1 < len(places) else len(line)
            if to != pos + 1:
                ops.append(Move(pos, to))
                line.pop(pos)
                line.insert(to if to <= pos else to - 1, number)
        if source is not None and content(present[source]) != content(wanted[index]):
            ops.append(_update(line.index(number), present[source], wanted[index]))
    for number in sorted(assignment.unused, key=line.index, reverse=True):
        ops.append(Delete(line.index(number)))
        line.remove(number)
    return ops


def _update(pos: int, before: Rule, after: Rule) -> Update:
    differing = [name for name, old, new in zip(FIELDS, content(before), content(after), strict=True) if old != new]
    return Update(
        pos,
        {name: after[name] for name in differing if name in after},
        tuple(name for name in differing if name not in after),
    )


def _common(one: Iterable[int], other: Iterable[int]) -> int:
    """How many items are equal before the first that differ."""
    return sum(1 for _pair in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _simple(have: Sequence[int], want: Sequence[int]) -> list[list[Pair]]:
    """Alignments that are good as a rule: what is equal stays; the same, and what is in one list only is rewritten in
    place; the plain edit distance."""
    only_here, only_there = set(have) - set(want), set(want) - set(have)
    return [
        _align(have, want, lambda _old, _new: False),
        _align(have, want, lambda old, new: old in only_here and new in only_there),
        _align(have, want, lambda _old, _new: True),
    ]


def _align(have: Sequence[int], want: Sequence[int], rewritable: Callable[[int, int], bool]) -> list[Pair]:
    """The edit distance's alignment, where a pair that differs costs one if `rewritable`, and else is none."""
    above = _common(have, want)
    have, want = have[above:], want[above:]
    rows, columns = len(have), len(want)
    cost = [[0] * (columns + 1) for _row in range(rows + 1)]

    def pair(row: int, column: int) -> int | None:
        if have[row] == want[column]:
            return cost[row + 1][column + 1]
        return cost[row + 1][column + 1] + 1 if rewritable(have[row], want[column]) else None

    def cheapest(row: int, column: int) -> int:
        paired = pair(row, column)
        skipped = 1 + min(cost[row + 1][column], cost[row][column + 1])
        return skipped if paired is None else min(paired, skipped)

    for row in range(rows, -1, -1):
        for column in range(columns, -1, -1):
            if row == rows or column == columns:
                cost[row][column] = rows - row + columns - column
            else:
                cost[row][column] = cheapest(row, column)
    pairs: list[Pair] = [(index, index) for index in range(above)]
    row = column = 0
    while row < rows and column < columns:
        if cost[row][column] == pair(row, column):
            pairs.append((above + row, above + column))
            row, column = row + 1, column + 1
        elif cost[row][column] == 1 + cost[row + 1][column]:
            row += 1
        else:
            column += 1
    return pairs


@dataclass(frozen=True)
class _State:
    """So far in both lists; loose: shared contents that were left over, of the present list (+) or the wanted one (-);
    top: the same of wanted ones above all that stays; strange: how many contents of one list only were left over."""

    row: int = 0
    column: int = 0
    kept: bool = False
    loose: tuple[tuple[int, int], ...] = ()
    top: tuple[tuple[int, int], ...] = ()
    strange: tuple[int, int, int] = (0, 0, 0)  # present, wanted on top, wanted below


class _Search:
    """A* over the pairs that stay in place. Costs are half calls: a rule that moves is left over in both lists, which
    costs half a call each; what finds no partner pays the rest at the end."""

    def __init__(self, have: Sequence[int], want: Sequence[int]) -> None:
        self.have, self.want = have, want
        self.shared = set(have) & set(want)
        self._strange_have = _count_from(have, self.shared)
        self._strange_want = _count_from(want, self.shared)

    def pairs(self, *, below: int) -> list[Pair] | None:
        """The pairs of a plan with fewer than `below` calls, the fewest that there are; None without one."""
        order = itertools.count()
        start = _State()
        costs: dict[_State, int] = {start: 0}
        came: dict[_State, tuple[_State, Pair | None]] = {}
        queue = [(self._ahead(start), next(order), 0, start, False)]
        for _turn in range(SEARCH_STATES):
            if not queue:
                return None
            bound, _order, cost, state, ended = heapq.heappop(queue)
            if bound > 2 * (below - 1):
                return None
            if ended:
                return _path(came, state)
            if cost > costs[state]:
                continue
            if state.row == len(self.have) and state.column == len(self.want):
                total = cost + self._leftover(state)
                heapq.heappush(queue, (total, next(order), total, state, True))
                continue
            for following, price, pair in self._next(state):
                total = cost + price
                if total < costs.get(following, total + 1):
                    costs[following] = total
                    came[following] = (state, pair)
                    heapq.heappush(queue, (total + self._ahead(following), -next(order), total, following, False))
        return None

    def _next(self, state: _State) -> list[tuple[_State, int, Pair | None]]:
        row, column = state.row, state.column
        found: list[tuple[_State, int, Pair | None]] = []
        present, top, below = state.strange
        if row < len(self.have) and column < len(self.want):
            kept = _State(row + 1, column + 1, True, state.loose, state.top, state.strange)
            found.append((kept, 0 if self.have[row] == self.want[column] else 2, (row, column)))
        if row < len(self.have):
            item = self.have[row]
            if item in self.shared:
                after = _State(row + 1, column, state.kept, _add(state.loose, item, 1), state.top, state.strange)
            else:
                after = _State(row + 1, column, state.kept, state.loose, state.top, (present + 1, top, below))
            found.append((after, 1, None))
        if column < len(self.want):
            item = self.want[column]
            loose, tops, strange = state.loose, state.top, state.strange
            if item not in self.shared:
                strange = (present, top, below + 1) if state.kept else (present, top + 1, below)
            elif state.kept:
                loose = _add(loose, item, -1)
            else:
                tops = _add(tops, item, 1)
            found.append((_State(row, column + 1, state.kept, loose, tops, strange), 1, None))
        return found

    def _ahead(self, state: _State) -> int:
        """Never more than what is still to be paid."""
        rest = abs((len(self.have) - state.row) - (len(self.want) - state.column))
        strange = 2 * max(self._strange_have[state.row], self._strange_want[state.column])
        return sum(state.strange) + max(rest, strange)

    @staticmethod
    def _leftover(state: _State) -> int:
        """What the rules without a partner cost beyond the half call that each has paid."""
        present, top, below = state.strange
        loose, tops = Counter(dict(state.loose)), Counter(dict(state.top))
        for item, number in tops.items():
            moved = min(number, max(loose[item], 0))
            loose[item] -= moved
            top += number - moved
        present += sum(number for number in loose.values() if number > 0)
        below -= sum(number for number in loose.values() if number < 0)
        # deleted; new on top; new and moved - or one moved and rewritten, which spares a deletion
        return present + top + 3 * below - 2 * min(present, below)


def _count_from(items: Sequence[int], shared: set[int]) -> list[int]:
    """From each index on, how many items are not shared."""
    counts = [0]
    for item in reversed(items):
        counts.append(counts[-1] + (item not in shared))
    return counts[::-1]


def _add(counts: tuple[tuple[int, int], ...], item: int, number: int) -> tuple[tuple[int, int], ...]:
    changed = dict(counts)
    changed[item] = changed.get(item, 0) + number
    return tuple(sorted(pair for pair in changed.items() if pair[1]))


def _path(came: Mapping[_State, tuple[_State, Pair | None]], state: _State) -> list[Pair]:
    pairs: list[Pair] = []
    while state in came:
        state, pair = came[state]
        if pair is not None:
            pairs.append(pair)
    return pairs[::-1]
