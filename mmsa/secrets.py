"""Secrets in addresses: what they are, how they are hidden, and where the true address is kept."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import unquote

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmsa.errors import ConfigError

VARIABLES = {"tracking.uri": "MMSA_TRACKING", "sweep.storage": "MMSA_STORAGE"}
"""Options that hold an address, and the environment variables with the whole address, its secret included."""
HIDDEN = "***"
"""Stands for a secret wherever one would be stored or shown."""

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<rest>.*)", re.DOTALL)
_IN_TEXT = re.compile(r"[A-Za-z][\w+.-]*://[^\s\"'`<>]*")
_DATABASES = {"cockroachdb", "mariadb", "mssql", "mysql", "oracle", "postgres", "postgresql", "sqlite"}
"""Schemes whose user is a name; elsewhere a user alone may be a token."""
_USER = re.compile(r"(?P<user>[^:/?#@]*)(?P<password>:[^@]*(?:@[^/?#@]*)*)?@", re.DOTALL)
_NO_PORT = re.compile(r"(?![^:/?#@]*:\d*(?:[/?#]|$))" + _USER.pattern, re.DOTALL)
"""The same where a number after the first colon is a port, and an @ may follow in the path."""
_PLAIN = {"application_name", "charset", "client_encoding", "connect_timeout", "dbname", "driver", "host", "port"}
_PLAIN |= {"sslmode", "ssl_mode", "sslrootcert", "target_session_attrs", "timeout", "user"}
"""Names of a query whose values are no secrets. Any other value may be one."""
_PLAIN_VALUE = re.compile(r"[\w.,:/+%-]*")
_OF_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:")
_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:[^{}]*\}")
_KEPT = re.compile(r"(?:\x00\d+\x00|:)*")
_LEAST = 4
"""Characters of a secret that is also looked for outside addresses; a shorter one would be found in every word."""


def hidden(text: str) -> str:
    """A text with *** for the secrets of its addresses: passwords, tokens as users, and values of queries.

    `${oc.env:NAME}` names a secret and stays.
    """
    if _ADDRESS.fullmatch(text) and not re.search(r"\s\w+://", text):  # an address alone, whatever its password has
        return _hide(text, [])
    return _IN_TEXT.sub(lambda match: _hide(match[0], []), text)


def without_secrets(text: str, address: str) -> str:
    """A text of a library, which may quote an address whole or in parts, with *** for its secrets.

    Args:
        text: such as an error's.
        address: the true one.
    """
    secrets: list[str] = []
    shown = _hide(address, secrets)
    text = hidden(text.replace(address, shown))
    for secret in sorted({form for found in secrets for form in (found, unquote(found))}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN) if len(secret) >= _LEAST else text
    return text


def _hide(text: str, secrets: list[str]) -> str:
    """An address, alone or after other signs, without its secrets, which are added to a list."""
    variables: list[str] = []

    def set_aside(match: re.Match[str]) -> str:  # its signs are not those of the address
        variables.append(match[0])
        return f"\0{len(variables) - 1}\0"

    def hide(part: str) -> str:
        if _KEPT.fullmatch(part) and not any("," in variables[int(n)] for n in re.findall(r"\x00(\d+)\x00", part)):
            return part
        secrets.append(part)
        return HIDDEN

    def one(match: re.Match[str]) -> str:
        scheme, rest = match["scheme"], match["rest"]
        database = scheme.partition("+")[0].lower() in _DATABASES
        user = ""
        if found := (_USER if database else _NO_PORT).match(rest):
            rest = rest[found.end() :]
            name, password = found["user"], (found["password"] or "")[1:]
            if database:
                user = f"{name}:{hide(password)}@" if found["password"] else f"{name}@"
            else:
                user = f"{hide(name if not password else f'{name}:{password}')}@"
                secrets.extend(filter(None, (name, password) if user == f"{HIDDEN}@" else ()))
        path, mark, query = rest.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&")] if query else []
        shown = "&".join(_shown_pair(name, equals, value, hide) for name, equals, value in pairs)
        return f"{scheme}://{user}{_ADDRESS.sub(one, path)}{mark}{shown}"

    shown = _ADDRESS.sub(one, _VARIABLE.sub(set_aside, text))

    def put_back(text: str) -> str:
        return re.sub(r"\x00(\d+)\x00", lambda match: variables[int(match[1])], text)

    secrets[:] = map(put_back, secrets)
    return put_back(shown)


def _shown_pair(name: str, equals: str, value: str, hide: Any) -> str:
    if not equals:
        return str(hide(name))
    plain = name.lower() in _PLAIN and _PLAIN_VALUE.fullmatch(value)
    return f"{name}={value if plain else hide(value)}"


def is_of_environment(text: str) -> bool:
    """Whether a text names a variable of the environment: `${oc.env:NAME}`."""
    return _OF_ENVIRONMENT.search(text) is not None


def keep(key: str, written: str) -> str:
    """The address as it may be stored and shown; one with a secret is kept in the environment, for this process and
    those that it starts.

    Args:
        key: of VARIABLES.
        written: the option's value as written.
    """
    shown = hidden(written)
    if shown != written and HIDDEN not in written:
        os.environ[VARIABLES[key]] = resolved(key, written)
    return shown


def conceal(config: DictConfig) -> DictConfig:
    """Keep the secrets of a configuration in the environment, and change it to what may be stored and shown."""
    for key in VARIABLES:
        group, _, name = key.partition(".")
        node = config.get(group)
        written = node._get_node(name) if isinstance(node, DictConfig) and name in node else None
        if written is not None and isinstance(text := written._value(), str) and hidden(text) != text:
            node[name] = keep(key, text)
    return config


def resolved(key: str, written: str) -> str:
    """A text in which the environment's variables have their values.

    Raises:
        ConfigError: one of them is not set.
    """
    if not is_of_environment(written):
        return written
    try:
        return str(OmegaConf.create({"address": written}).address)
    except OmegaConfBaseException as error:
        raise ConfigError(unset(str(error)) or f"{key}={hidden(written)} cannot be read.") from None


def unset(message: str) -> str | None:
    """OmegaConf's refusal of a variable that is not set in our words; None where it is another one."""
    found = re.search(r"Environment variable '(.+?)' not found", message)
    if found is None:
        return None
    key = re.search(r"full_key: (\S+)", message)
    place = f"{key[1]}: " if key and key[1] != "address" else ""
    return (
        f"{place}the configuration names the environment variable {found[1]}, which is not set.\n"
        f"  type export {found[1]}=VALUE, and then the same command"
    )


def address(key: str, written: str) -> str:
    """The true address of an option, from its stored form and the environment.

    Args:
        key: of VARIABLES.
        written: the option's value as stored.

    Raises:
        ConfigError: its secret is not in the environment, or that of another place is.
    """
    found = resolved(key, written)
    if HIDDEN in found:
        variable = VARIABLES[key]
        true = os.environ.get(variable)
        if not true:
            raise ConfigError(
                f"{key}={found}: its secret is stored nowhere.\n"
                f"  type export {variable}=ADDRESS, the whole address, and then the same command"
            )
        check_place(key, found)
        found = true
    if found.startswith("sqlite:") and hidden(found) != found:
        raise ConfigError(
            f"{key}={hidden(found)}: an SQLite file takes neither password nor token.\n  type {key}=sqlite:///FILE"
        )
    return found


def check_place(key: str, shown: str) -> None:
    """Refuse an address in the environment that is of another place.

    Args:
        key: of VARIABLES.
        shown: the address as it is stored.

    Raises:
        ConfigError: host, port or database differ.
    """
    variable = VARIABLES[key]
    true = os.environ.get(variable)
    if true and _place(true) != _place(resolved(key, shown)):
        raise ConfigError(
            f"{variable} names {hidden(true)}, but {key} is {hidden(shown)}.\n"
            f"  type export {variable}=ADDRESS of that place, or unset {variable}"
        )


def _place(text: str) -> tuple[str, str]:
    """Kind of server, and host, port and database, without the user and the query."""
    scheme, _, rest = hidden(text).rpartition("://")
    place, _, query = re.sub(r"^[^/?]*@", "", rest).partition("?")
    socket = sorted(pair for pair in query.split("&") if pair.startswith(("host=", "port=")))  # of PostgreSQL
    return scheme.partition("+")[0], "&".join([place, *socket])


def as_stored(config: DictConfig) -> dict[str, Any]:
    """A configuration as it is stored and shown: resolved, but texts that name the environment as they were written,
    and addresses without their secrets."""
    stored = _kept(OmegaConf.to_container(config, resolve=True), OmegaConf.to_container(config, resolve=False))
    for key in VARIABLES:
        group, _, name = key.partition(".")
        node = stored.get(group)
        if isinstance(node, dict) and isinstance(node.get(name), str):
            node[name] = hidden(node[name])
    return stored


def _kept(value: Any, written: Any) -> Any:
    """The value, but a text of the environment as written."""
    if isinstance(value, dict) and isinstance(written, dict):
        return {key: _kept(value[key], written[key]) for key in value}
    if isinstance(value, list) and isinstance(written, list):
        return list(map(_kept, value, written))
    of_environment = isinstance(value, str) and isinstance(written, str) and is_of_environment(written)
    return written if of_environment else value
