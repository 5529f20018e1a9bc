"""What an earlier attempt has kept, and whether this one goes on from it or starts over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resumable.checkpoint.kept import Kept
from resumable.checkpoint.names import error_of_place
from resumable.checkpoint.setting import Setting, fingerprint
from resumable.errors import RefusedError, SupersededError
from resumable.identity import Generation, Relation
from resumable.policy import OnChange, OnClear

NONE_GIVEN = fingerprint({"spec": None})
"""What a record that does not say is taken to have been given as ``spec=``."""


class Earlier:
    """
    The earlier attempts of a checkpoint, as this one finds them.

    Attributes:
        attempt: the number of this one, from 1.
        token: of the work, a fresh one once it has started over.
        other_code: items that were done with other code than this attempt's.
    """

    def __init__(self, setting: Setting, kept: Kept) -> None:
        self._setting, self._stored, self._kept, self._what = setting, kept, kept.record, setting.what
        self.attempt = 1
        self.other_code = 0
        self.token = setting.token
        if self._kept:
            with kept.readable():
                self.attempt = int(self._kept["attempt"]) + 1
                starts_over = self._is_cleared() and self._restarts(
                    self._setting.policy.on_clear is OnClear.RESTART, self._setting.policy.on_clear
                )
                self.token = self._fresh_token() if starts_over else self._kept.get("token", setting.token)

    def settled(self, kind: str, work: str) -> dict[str, Any] | None:
        """
        What was kept, if this attempt is to go on from it.

        Args:
            kind: of the loop: items or pages.
            work: fingerprint of all that the work is done by.

        Raises:
            RefusedError: on_change=fail. SupersededError: a later try is at work.
            ConfigurationError: it is of another item of the outer checkpoint.
        """
        kept, policy = self._kept, self._setting.policy
        if kept is None:
            return None
        with self._stored.readable():
            generation, spec, earlier_kind = Generation.from_json(kept["generation"]), kept["spec"], kept["kind"]
            int(kept["done"]), int(kept["try"]), kept["state"]
        if int(kept["try"]) > self._setting.try_number and not self._setting.generation.is_of_later_run(generation):
            raise SupersededError(
                f"Try {kept['try']} works on {self._what}, this is try {self._setting.try_number}: Airflow has given it up. It "
                "does nothing; the other goes on. Nothing needs to be done."
            )
        if self._is_cleared() and self._restarts(policy.on_clear is OnClear.RESTART, policy.on_clear):
            self._say_fresh("the task was cleared", "on_clear", policy.on_clear, self._setting.log.info)
            return None
        self._check_place(kept)
        is_other_item = self._is_other_item(kept)
        if spec == work and earlier_kind == kind and not is_other_item:
            self.other_code = int(kept.get("other_code", 0))
            if self._is_cleared():
                self._say_goes_on("the task was cleared", "on_clear")
            return kept
        cannot_go_on = earlier_kind != kind or is_other_item
        refuses = policy.on_change is OnChange.FAIL or (cannot_go_on and policy.on_change is OnChange.REATTACH)
        if refuses and self._is_cleared():  # as the error has said
            self.token = self._fresh_token()
            self._say_fresh("the task was cleared after a change", "on_change", policy.on_change, self._setting.log.warning)
            return None
        if refuses:
            raise RefusedError(
                f"{'What the mapped task was given' if is_other_item else 'The code of the task or its spec='} has changed since "
                f"{kept['done']} {earlier_kind} of {self._what} were done, on_change={OnChange(policy.on_change).value}. Nothing "
                "was done. Undo the change, or clear the task to "
                "start over."
            )
        is_other_work = cannot_go_on or self._is_other_spec(kept)
        if self._restarts(policy.on_change is OnChange.RESTART or (is_other_work and not policy.on_change), policy.on_change):
            self.token = self._fresh_token()
            what = "its spec= or the kind of its loop" if is_other_work else "the code of the task"
            what = "what the mapped task was given of its list" if is_other_item else what
            self._say_fresh(f"{what} has changed", "on_change", policy.on_change, self._setting.log.warning)
            return None
        self.other_code = int(kept["done"])
        self._say_goes_on("the code of the task has changed", "on_change")
        return kept

    def _check_place(self, kept: dict[str, Any]) -> None:
        """Raises: ConfigurationError: what was kept is of the same name in another item of the outer checkpoint."""
        here, there = self._setting.place, kept.get("inside")
        if here is not None and there is not None and here != there:
            raise error_of_place(self._setting.name, self._setting.outer)

    def _is_other_item(self, kept: dict[str, Any]) -> bool:
        """Whether a mapped task, which is known by its place in a list, was given another part of the list by now."""
        here, there = self._setting.item, kept.get("item")
        return here is not None and there is not None and here != there

    def _is_other_spec(self, kept: dict[str, Any]) -> bool:
        given = self._setting.given
        return given is None or kept.get("given", NONE_GIVEN) != given

    def _is_cleared(self) -> bool:
        """
        Whether a clear lies between what was kept and this attempt.

        A ``clear_number`` that moved alone is a sibling's clear, or one of the task itself while it ran: that cannot be told, and
        what is done stays done.
        """
        assert self._kept is not None
        return self._setting.generation.relation_to(Generation.from_json(self._kept["generation"])) is Relation.CLEARED

    def _restarts(self, is_chosen: bool, choice: Any) -> bool:
        """Whether to start over: as was chosen, or where nobody has chosen, if all was done."""
        assert self._kept is not None
        return is_chosen or (choice is None and self._kept["state"] == "done")

    def _fresh_token(self) -> str:
        """Another one for work that starts over; what an earlier one has committed does not count for it."""
        return f"{self._setting.token[:40]}{self.attempt & 0xFFFFFFFF:08x}"

    def _say_fresh(self, why: str, setting: str, choice: Any, say: Callable[..., None]) -> None:
        kept = self._kept or {}
        say(
            "resumable: %s starts over, %s items or pages that an earlier attempt did are done again: %s, and %s. "
            "resume_policy={%r: 'reattach'} would go on",
            self._what,
            kept.get("done"),
            why,
            f"{setting}={choice.value}"
            if choice is not None
            else "all of them were done"
            if kept.get("state") == "done"
            else "so it has to",
            setting,
        )

    def _say_goes_on(self, why: str, setting: str) -> None:
        kept = self._kept or {}
        self._setting.log.info(
            "resumable: %s goes on though %s: %s %s stay done%s. resume_policy={%r: 'restart'} would do them again",
            self._what,
            why,
            kept.get("done"),
            kept.get("kind"),
            ", done with other code" if setting == "on_change" else "",
            setting,
        )
