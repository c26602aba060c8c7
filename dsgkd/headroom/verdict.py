"""One sentence: whether a study is worth its GPU hours, with which teacher and which layer."""

from dataclasses import dataclass
from typing import Literal

from dsgkd.headroom.features import RANDOM, TEACHER
from dsgkd.headroom.intervals import Interval
from dsgkd.headroom.measurement import Measured, Row

Finding = Literal["headroom", "small", "none", "unclear"]


@dataclass(frozen=True)
class Verdict:
    """What is concluded of one teacher."""

    teacher: str
    finding: Finding
    """`headroom`: gain and difference to random weights are above zero, and the gain is large
    enough; `small`: it is not; `none`: a gain that is large enough is excluded; `unclear`:
    neither."""
    sentence: str
    layer: int
    """Of the teacher, with the largest gain."""

    def mapping(self, student_depth: int) -> str:
        """Return the mapping from the student's last layer, in the notation of `LayerMapping`."""
        return f"{student_depth}:{self.layer}"


def verdicts(measured: Measured, worth: float) -> tuple[Verdict, ...]:
    """Return the verdict of each teacher, the most promising first.

    Args:
        measured: everything.
        worth: the smallest gain for which a study is worth it.
    """
    order: tuple[Finding, ...] = ("headroom", "small", "unclear", "none")
    found = [_verdict(measured, teacher, worth) for teacher in measured.teachers]
    gains = {one: measured.find(TEACHER, one).gain.value for one in measured.teachers}
    return tuple(sorted(found, key=lambda one: (order.index(one.finding), -gains[one.teacher])))


def _verdict(measured: Measured, teacher: str, worth: float) -> Verdict:
    row, random = measured.find(TEACHER, teacher), measured.find(RANDOM, teacher)
    layer = max(measured.layers(teacher), key=lambda one: one.gain.value).layer
    assert layer is not None
    finding = _finding(row, worth)
    return Verdict(teacher, finding, _sentence(teacher, finding, row, random, worth), layer)


def _finding(row: Row, worth: float) -> Finding:
    gain, excess = row.gain, row.excess
    if min(gain.low, excess.low) > 0:
        return "headroom" if gain.value >= worth else "small"
    return "none" if min(gain.high, excess.high) < worth else "unclear"


def _sentence(teacher: str, finding: Finding, row: Row, random: Row, worth: float) -> str:
    gain, beyond = signed(row.gain), signed(row.excess)
    weights = f"random weights {_signed(random.gain.value)}, difference {beyond}"
    if finding == "headroom":
        return (
            f"Headroom: the states of {teacher} predict the label {unsigned(row.gain)} AUROC "
            f"better than the text and its words alone ({weights}): a study is worth it."
        )
    if finding == "small":
        return (
            f"Little headroom: the states of {teacher} add {unsigned(row.gain)} AUROC to what the "
            f"text says ({weights}): less than {figure(worth)}, so a study is hardly worth it."
        )
    if finding == "none":
        return (
            f"No headroom found: what {teacher} knows of the words, the text says already ({gain}; "
            f"{weights}): a study would measure noise."
        )
    return (
        f"No headroom found, but {row.labels:,} labels cannot exclude it: the states of {teacher} "
        f"add {gain} AUROC to what the text says ({weights}): more labels or a larger teacher "
        "before a study."
    )


def figure(value: float) -> str:
    """Return a share with three digits and no leading zero: .045, -.004."""
    return f"{round(value, 3) + 0.0:.3f}".replace("0.", ".", 1)  # -.000 is .000


def _signed(value: float) -> str:
    return figure(value) if round(value, 3) < 0 else f"+{figure(value)}"


def unsigned(interval: Interval) -> str:
    """Return `.045 [.030, .060]`; a dash where nothing was measured."""
    if not interval.is_defined:
        return "-"
    return f"{figure(interval.value)} [{figure(interval.low)}, {figure(interval.high)}]"


def signed(interval: Interval) -> str:
    """Return `+.045 [.030, .060]`; a dash where nothing was measured."""
    if not interval.is_defined or round(interval.value, 3) < 0:
        return unsigned(interval)
    return f"+{unsigned(interval)}"
