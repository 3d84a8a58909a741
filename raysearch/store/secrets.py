"""Texts without the passwords in them. A command line, an address or a message may hold several URIs, or none.

What is a secret is decided here alone: what stands before the host of a URI, and values of its query whose names say so.
"""

from __future__ import annotations

import re

# A password runs to the last "@" of its word: people write "@" and "/" into passwords without encoding them, and database
# drivers take that. After http(s) alone, ":5000/" begins a port and a path, where an "@" is nobody's secret.
_LOGIN = re.compile(
    r"""(?<! [a-z0-9+.-] )
        (?: (?P<web>https?) | (?!https?:) [a-z][a-z0-9+.-]* ) ://
        (?P<user> [^\s/?\#:'"\[]* )
        (?P<password> : (?(web) (?! \d{1,5}/ )) (?: (?!://) \S )* )?
        @""",
    re.IGNORECASE | re.VERBOSE,
)
_TOKEN = re.compile(r"(?=[^0-9]*[0-9])[\w-]{20,}")
_QUERY = re.compile(
    r"""(?<= [?&] )
        (?P<name> [\w.-]* (?: password | passwd | pwd | secret | token | credential | signature
                         | api_?key | access_?key (?:_?id)? | secret_?key | authorization )
                | sig | odbc_connect )
        = [^&\s'"\#]*""",
    re.IGNORECASE | re.VERBOSE,
)


def without_password(text: str) -> str:
    """``text`` as the person may see it who gave it: ``https://ada:***@host``."""

    def shown(login: re.Match[str]) -> str:
        if login["password"] is not None:
            return login[0].removesuffix(f"{login['password']}@") + ":***@"
        # A token stands alone where a user would: https://ghp_16C7e42F292c6912E7710c838347Ae178B4a@host.
        return login[0].removesuffix(f"{login['user']}@") + "***@" if _TOKEN.fullmatch(login["user"]) else login[0]

    return _QUERY.sub(r"\g<name>=***", _LOGIN.sub(shown, text))


def words_with_password(text: str) -> dict[str, str]:
    """The words of ``text`` in which a password stands, each with what may be shown of it."""
    return {word: clean for word in text.split() if (clean := without_password(word)) != word}


def without_credentials(text: str) -> str:
    """``text`` as it may leave the house, without users as well: ``https://host``."""

    def shown(login: re.Match[str]) -> str:
        return login[0][: login[0].index("://")] + "://"

    return _QUERY.sub(r"\g<name>=***", _LOGIN.sub(shown, text))
