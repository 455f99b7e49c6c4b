"""Reading command lines: from one as Olive's users type it to one of Drupe, with an answer to each flag."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import Notice, UsageError
from drupe_olive_compat.answers import MISSING
from drupe_olive_compat.flag_table import COMMANDS, NOT_DONE, OliveCommand
from drupe_olive_compat.flags import MANY, NONE, OURS, Flag, Line

ReadLine = tuple[list[str], list[Notice]]
HELP = ("-h", "--help")


def read_line(command: str, typed: Sequence[str], own: frozenset[str] | None) -> ReadLine | None:
    """The command line of Drupe that one of Olive asks for, and what is done about its flags.

    own: the flags of Drupe's command of that name; None where it has no such command. Gives None for a command that
    Olive does not have. Raises UsageError for what is not done, by its name.
    """
    if own is None and command in NOT_DONE:
        raise _refused_command(command)
    if command not in COMMANDS:
        return None
    if any(each in HELP for each in typed):
        return [command if own is not None else "optimize", "--help"], _all_flags(command) if own is None else []
    line = Line(command, olives=command not in OURS)
    _read(line, COMMANDS[command], typed, own or frozenset())
    if not line.ledger.lacks:
        from drupe_olive_compat.finishing import finish

        arguments = finish(line, COMMANDS[command])
    if line.ledger.lacks:
        raise _not_done(line)
    return arguments, line.ledger.notices


def _read(line: Line, command: OliveCommand, typed: Sequence[str], own: frozenset[str]) -> None:
    """Take every word of a line: Olive's flags with their values, and as they are, all others."""
    words = list(typed)
    while words:
        word = words.pop(0)
        if word == "--":
            line.arguments += [word, *words]
            return
        name, equals, value = word.partition("=")
        flag = _flag_of(name, command, own)
        if flag is None:
            line.arguments.append(word)
            continue
        taken = _values(flag, words, [value] if equals else [])
        if taken is None:
            raise UsageError(f"{name} takes no value" if equals else f"{name} needs a value")
        line.olives = line.olives or "_" in name or not own & set(flag.names)
        _take(line, flag, name, taken, own)


def _take(line: Line, flag: Flag, name: str, values: list[str], own: frozenset[str]) -> None:
    """Take one flag of Olive's into the line. One that Drupe's command has, and that means the same, stays."""
    before = set(line.given)
    value = True if flag.takes == NONE else values if flag.takes == MANY else values[0]
    spelled = name if name.replace("_", "-") in own else next((each for each in flag.names if each in own), None)
    is_own = spelled is not None and flag.treat is None
    said = None if is_own else flag.read(line, value, name)
    if said is None and spelled is not None:
        line.arguments += [spelled, *values]
        line.passed |= set(line.given) - before


def _flag_of(name: str, command: OliveCommand, own: frozenset[str]) -> Flag | None:
    """The flag of Olive's that a word names, whole or by the beginning of its name. None for other words."""
    if not name.startswith("-") or name == "-":
        return None
    wanted = name.replace("_", "-")
    exact = next((flag for flag in command.flags if wanted in flag.names), None)
    if exact is not None or wanted in own or not wanted.startswith("--"):
        return exact
    found = [flag for flag in command.flags if any(each.startswith(wanted) for each in flag.names)]
    others = {each for each in own if each.startswith(wanted) and not any(each in flag.names for flag in found)}
    if len(found) > 1 or (found and others):
        names = sorted({next(each for each in flag.names if each.startswith(wanted)) for flag in found} | others)
        raise UsageError(f"{name} may be any of {', '.join(names)}", cure="type more of it")
    return found[0] if found else None


def _values(flag: Flag, words: list[str], given: list[str]) -> list[str] | None:
    """The values of a flag, which are taken off the words; None where they do not fit."""
    if flag.takes == NONE:
        return None if given else []
    if flag.takes == MANY:
        while words and not (words[0].startswith("-") and not words[0][1:2].isdigit()):
            given.append(words.pop(0))
        return given
    if not given and words:
        given.append(words.pop(0))
    return given or None


def _refused_command(command: str) -> UsageError:
    answer = NOT_DONE[command]
    why = "Drupe does not have" if answer.handling == MISSING else "needs a plugin that is not installed"
    return UsageError(f"{command} is a command of Olive that {why}: {answer.what}", cure=answer.cure)


def _not_done(line: Line) -> UsageError:
    """The first thing that is not done, with the names of the others."""
    first, *others = [notice for notice in line.ledger.notices if notice.handling == MISSING]
    more = f"; nor what {', '.join(dict.fromkeys(each.about for each in others))} asks for" if others else ""
    who = f"{first.about} of Olive" if first.about.startswith("-") else f"{line.command}, {first.about},"
    what = f"{who} asks for what Drupe does not do: {first.what}{more}"
    return UsageError(what, cure=first.cure or None)


def _all_flags(command: str) -> list[Notice]:
    """What becomes of each flag of a command that Drupe has under another name."""
    whole = COMMANDS[command].answer
    flags = [Notice(flag.names[-1], flag.answer.handling, flag.answer.what) for flag in COMMANDS[command].flags]
    return [Notice(command, whole.handling, whole.what), *flags]
