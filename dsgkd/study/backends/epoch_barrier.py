"""The meeting point of the workers of a distributed trial and its Tune actor.

Importing this needs nothing else, so its process is a small one and is there at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsgkd.study.messages import Report


class EpochBarrier:
    """Where workers leave their reports and wait to be told whether to go on. A Ray actor."""

    def __init__(self) -> None:
        self._reports: asyncio.Queue[Report | None] = asyncio.Queue()
        self._answers: asyncio.Queue[bool] = asyncio.Queue()

    async def report(self, report: Report) -> bool:
        """Leave a report; return whether to train another epoch, once that is known."""
        await self._reports.put(report)
        return await self._answers.get()

    async def answer(self, go_on: bool) -> None:
        """Answer the last report, or the next one."""
        await self._answers.put(go_on)

    async def next_report(self) -> Report | None:
        """Return the next report, once there is one; None: none will come."""
        return await self._reports.get()

    async def close(self) -> None:
        """Announce that no report will come."""
        await self._reports.put(None)
