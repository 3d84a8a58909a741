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
_QUERY = re.compile(
    r"""(?<= [?&] )
        (?P<name> [\w.-]* (?: password | passwd | pwd | secret | token | credential | signature | api_?key | access_?key )
                | sig | odbc_connect )
        = [^&\s'"\#]*""",
    re.IGNORECASE | re.VERBOSE,
)


def without_password(text: str) -> str:
    """``text`` as the person may see it who gave it: ``https://ada:***@host``."""

    def shown(login: re.Match[str]) -> str:
        return login[0] if login["password"] is None else login[0].removesuffix(f"{login['password']}@") + ":***@"

    return _QUERY.sub(r"\g<name>=***", _LOGIN.sub(shown, text))


def without_credentials(text: str) -> str:
    """``text`` as it may leave the house, without users as well: ``https://host``."""

    def shown(login: re.Match[str]) -> str:
        return login[0][: login[0].index("://")] + "://"

    return _QUERY.sub(r"\g<name>=***", _LOGIN.sub(shown, text))
