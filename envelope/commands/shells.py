"""Completions for shells, made from what `interface` knows of the commands. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from envelope.commands.interface import Command, CommandOption
from envelope.commands.values import FILE, Kind, Value

# Lists the ids of open sessions, and nothing without a service.
_SESSIONS: Final = "envelope sessions 2>/dev/null | sed -n '2,$s/ .*//p'"

_HEAD: Final = "# Completion of envelope, as `envelope completion` prints it.\n"


def _quoted(text: str) -> str:
    """`text` as one word of bash or zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _quoted_for_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# -- bash --------------------------------------------------------------------------------------

_BASH: Final = """\
_envelope() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} options= ended= word
    local before=
    COMPREPLY=()
    # bash takes the = of --option=value for a word, unless COMP_WORDBREAKS lacks it.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    elif [[ $cur == --*=* ]]; then
        prev=${cur%%=*} before=${cur%%=*}= cur=${cur#*=}
    fi
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "@COMMANDS@ --help --version" -- "$cur"))
        return
    fi
    for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
        [[ $word == -- ]] && ended=yes
    done
    if [[ ! $ended ]]; then
        case "${COMP_WORDS[1]} $prev" in
@VALUES@
        esac
        case "${COMP_WORDS[1]}" in
@OPTIONS@
        esac
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "$options" -- "$cur"))
            return
        fi
    fi
    case "${COMP_WORDS[1]}" in
@ARGUMENTS@
    esac
}
complete -F _envelope envelope
"""


def bash(commands: Sequence[Command]) -> str:
    """The script for bash 4 or later; it needs no other completions."""
    values, options, arguments = [], [], []
    for command in commands:
        for value, names in _by_value(command).items():
            pattern = " | ".join(f'"{command.name} --{name}"' for name in names)
            action = _bash_action(value)
            values.append(f"            {pattern})\n                {action}; return ;;")
        listed = " ".join(f"--{option.name}" for option in command.all_options)
        options.append(f"            {command.name}) options='{listed}' ;;")
        if command.arguments is not None:
            arguments.append(f"        {command.name}) {_bash_action(command.arguments)} ;;")
    return _HEAD + _filled(_BASH, {
        "COMMANDS": " ".join(command.name for command in commands),
        "VALUES": "\n".join(values), "OPTIONS": "\n".join(options),
        "ARGUMENTS": "\n".join(arguments),
    })


def _bash_action(value: Value) -> str:
    match value.kind:
        case Kind.FILE:
            return (
                "compopt -o filenames; "
                'mapfile -t COMPREPLY < <(compgen -P "$before" -f -- "$cur")')
        case Kind.PROGRAM:
            programs = 'COMPREPLY=($(compgen -c -- "$cur"))'
            its_own = _bash_action(FILE)
            return f"if [[ $ended && $prev != -- ]]; then {its_own}; else {programs}; fi"
        case Kind.SESSION:
            return f'COMPREPLY=($(compgen -W "$({_SESSIONS})" -- "$cur"))'
        case Kind.WORD:
            return f'COMPREPLY=($(compgen -P "$before" -W "{" ".join(value.words)}" -- "$cur"))'
    return ":"


def _by_value(command: Command) -> dict[Value, list[str]]:
    found: dict[Value, list[str]] = {}
    for option in command.all_options:
        if option.value is not None:
            found.setdefault(option.value, []).append(option.name)
    return found


# -- zsh ---------------------------------------------------------------------------------------

_ZSH: Final = """\
_envelope() {
    # `commands` is zsh's own name, of the programs that it knows.
    local -a known
    known=(
@COMMANDS@
    )
    if ((CURRENT == 2)); then
        _describe command known
        _arguments '--help[Print the commands and exit.]' '--version[Print the version and exit.]'
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
@CASES@
    esac
}
_envelope "$@"
"""


def zsh(commands: Sequence[Command]) -> str:
    """The script for zsh, to be installed as `_envelope`."""
    listed = [
        "        " + _quoted(f"{command.name}:{command.what}") for command in commands
    ]
    cases = []
    for command in commands:
        specs = [_zsh_option(option) for option in command.all_options]
        if command.arguments is not None:
            # With two colons, the words of a program are completed as a command line of its own.
            colons = "::" if command.arguments.kind is Kind.PROGRAM else ":"
            specs.append(_quoted(f"*{colons}argument:{_zsh_action(command.arguments)}"))
        lines = " \\\n                ".join(specs)
        cases.append(f"        {command.name})\n            _arguments -S {lines} ;;")
    return "#compdef envelope\n" + _HEAD + _filled(_ZSH, {
        "COMMANDS": "\n".join(listed), "CASES": "\n".join(cases),
    })


def _zsh_option(option: CommandOption) -> str:
    meaning = re.sub(r"([][\\:])", r"\\\1", option.short)
    often = "*" if option.many else ""
    if option.value is None:
        return _quoted(f"{often}--{option.name}[{meaning}]")
    return _quoted(
        f"{often}--{option.name}=[{meaning}]:{option.name}:{_zsh_action(option.value)}"
    )


def _zsh_action(value: Value) -> str:
    match value.kind:
        case Kind.FILE:
            return "_files"
        case Kind.PROGRAM:
            # `_arguments` leaves in a -- that comes first.
            return "{ [[ $words[1] == -- ]] && { shift words; ((CURRENT--)) }; _normal }"
        case Kind.SESSION:
            return f"($({_SESSIONS}))"
        case Kind.WORD:
            return f"({' '.join(value.words)})"
    return " "


# -- fish --------------------------------------------------------------------------------------


def fish(commands: Sequence[Command]) -> str:
    """The script for fish 3 or later."""
    lines = ["complete -c envelope -f"]
    for command in commands:
        lines.append(
            f"complete -c envelope -n __fish_use_subcommand -a {command.name} "
            f"-d {_quoted_for_fish(command.what)}"
        )
    for command in commands:
        start = f"complete -c envelope -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.all_options:
            value = "" if option.value is None else _fish_value(option.value)
            lines.append(f"{start} -l {option.name}{value} -d {_quoted_for_fish(option.short)}")
        if command.arguments is not None:
            lines.append(f"{start}{_fish_arguments(command, command.arguments)}")
    return _HEAD + "\n".join(lines) + "\n"


def _fish_value(value: Value) -> str:
    if value.kind is Kind.FILE:
        return " -r -F"
    return f" -x -a {_quoted_for_fish(' '.join(value.words))}" if value.words else " -x"


def _fish_arguments(command: Command, value: Value) -> str:
    match value.kind:
        case Kind.FILE:
            return " -F"
        case Kind.PROGRAM:
            # It skips the values of the options that follow. Without "-" it would take them for its
            # own.
            skipped = [f"--{option.name}" for option in command.all_options if option.value]
            return f" -a '(__fish_complete_subcommand --fcs-skip=2 - {' '.join(skipped)})'"
        case Kind.SESSION:
            return f" -a {_quoted_for_fish(f'({_SESSIONS})')}"
    return f" -a {_quoted_for_fish(' '.join(value.words))}"


def _filled(template: str, parts: Mapping[str, str]) -> str:
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template


SHELLS: Final[Mapping[str, Callable[[Sequence[Command]], str]]] = {
    "bash": bash, "zsh": zsh, "fish": fish,
}
