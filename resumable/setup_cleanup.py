"""What becomes of a value of `once` that is not kept: it is cleaned up, or left with words that say what to look for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from resumable import host
from resumable.checkpoint.failures import error_text, value_text
from resumable.helpers import check_done, import_path

_log = logging.getLogger("resumable")


class CleanUp:
    """
    The clean-up of one value.

    Args:
        name: of the value.
        function: as ``cleanup`` of `once`.
        context: the task's context.
    """

    def __init__(self, name: str, function: Callable[[Any], Any] | None, context: Mapping[str, Any]) -> None:
        self._name, self.function, self._context = name, function, context
        self.is_clean = False

    def path(self) -> str | None:
        """For the sweep."""
        return None if self.function is None else import_path(self.function) or "a function of the DAG file"

    def clean_up(self, value: Any) -> bool:
        """Whether it is cleaned up now. What the function raises is logged."""
        if self.function is None:
            return False
        try:
            check_done(self.function(value))
        except (Exception, SystemExit) as e:  # sys.exit() of a command's function must not end the clean-ups of others
            _log.warning(
                "resumable: once %r: the clean-up of %s failed: %s. Remove it by hand",
                self._name,
                value_text(value),
                error_text(e, value),
            )
            return False
        self.is_clean = True
        _log.info("resumable: once %r: %s is cleaned up", self._name, value_text(value))
        return True

    def say_what_was_begun(self, why: str, token: str, when: str) -> None:
        """An earlier try has begun to make a value, and this one begins anew."""
        _log.warning(
            "resumable: once %r: %s, and an earlier try died or failed while it made the value; what it may have left is not "
            "known. Look for what bears the token %s, or was made about %s, and remove it by hand",
            self._name,
            why,
            token,
            when,
        )

    def say_left(self, value: Any) -> None:
        """It is another attempt's now."""
        text = value_text(value)
        _log.warning("resumable: once %r: %s was made, and is left: Airflow has given this try up", self._name, text)

    def say_what_is_left(self, what: str, token: str, wants_token: bool, *, is_last: bool = False) -> None:
        """Something was made, or may have been, and is not kept."""
        if not wants_token:
            then = "Look for it by hand. A create with a parameter token makes no second one"
        elif is_last or host.is_last_try(self._context):
            then = f"This was the last try: look for what bears the token {token}, and remove it by hand"
        else:
            then = f"The next try calls create with the same token {token}, which makes no second one"
        _log.warning("resumable: once %r: %s. %s", self._name, what, then)
