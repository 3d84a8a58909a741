"""What the user can mend, apart from what is a bug."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user's, or of their files or machines: one line that names the place and the remedy.

    Programs print the line and exit with 2. Every other exception, a ValueError of NumPy's included, is a bug and keeps its
    traceback.
    """


class SettingError(UserError):
    """One setting has a value that cannot be: ``train.clip-grad is 0, must be above 0``.

    Args:
        name: of the field; which group it is in is added by who reads the group.
        words: all that follows the name.

    """

    def __init__(self, name: str, words: str) -> None:
        super().__init__(name, words)
        self.name, self.words = name, words

    def inside(self, group: str) -> SettingError:
        """The same error of a setting in a group."""
        return SettingError(f"{group}.{self.name}" if group else self.name, self.words)

    def __str__(self) -> str:
        """As the command line names settings, but for the two dashes before it."""
        return f"{self.name.replace('_', '-')} {self.words}"
